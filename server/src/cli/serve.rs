//! `warren serve`: open, listen, say so, and stop in order.

use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config::{Address, Apis, Config, Listener};
use crate::context::Context;
use crate::http::listen;
use crate::http::serve::Server;
use crate::{data_dir, log, metrics, worker};

/// Runs the server until it is told to stop. Errors: a sentence about why it cannot start.
pub fn run(config: Config) -> Result<(), String> {
    log::start(&config)?;
    log::warn_of_test_settings(&config);
    let _lock = data_dir::lock(&config.data_dir)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    runtime.block_on(serve(config))?;
    // Blocking work that is still running must not hold up the exit.
    runtime.shutdown_timeout(Duration::from_millis(100));
    Ok(())
}

async fn serve(config: Config) -> Result<(), String> {
    let ctx = Arc::new(Context::new(config)?);
    let server = Arc::new(Server::new(ctx.clone(), &crate::tables())?);
    let mut sockets = Vec::new();
    for listener in &ctx.config.listen {
        sockets.push(listen::bind(listener, ctx.certificate.as_ref())?);
    }
    let metrics = match ctx.config.metrics_listen {
        Some(address) => {
            let listener = Listener { address: Address::Http(address), apis: Apis::ALL };
            Some(listen::bind(&listener, None)?)
        }
        None => None,
    };
    let terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let interrupt = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
    worker::start(&ctx);
    info!(server_name = %ctx.config.server_name, version = env!("CARGO_PKG_VERSION"), "ready");
    if let Some(token) = ctx.first_token() {
        tell_token(&ctx.config.public_base_url, &token);
    }
    notify(NotifyState::Ready);
    let metrics = async {
        if let Some(bound) = metrics {
            let server = Server::new(ctx.clone(), &[metrics::ENDPOINTS])?;
            listen::run(Arc::new(server), vec![bound], ctx.shutdown.clone()).await;
        }
        Ok::<(), String>(())
    };
    let requests = listen::run(server, sockets, ctx.shutdown.clone());
    let (_, metrics, ()) =
        tokio::join!(requests, metrics, stop_on_signal(terminate, interrupt, &ctx.shutdown));
    info!("stopped");
    metrics
}

/// On standard output, whatever the log is to say: it is for who starts the server, and logs are kept and read by others.
fn tell_token(base_url: &str, token: &str) {
    let told = super::print(&format!(
        "Nobody has an account yet: open {base_url} in a browser, or name it to a Matrix client as the homeserver, and \
         register with the token {token}, which makes an administrator.\n"
    ));
    if let Err(error) = told {
        warn!(%error, "the token of the first account could not be printed; the page at / shows it");
    }
}

/// Waits for SIGTERM or SIGINT, then cancels the token.
async fn stop_on_signal(mut terminate: Signal, mut interrupt: Signal, shutdown: &CancellationToken) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    info!("stopping");
    notify(NotifyState::Stopping);
    shutdown.cancel();
}

/// Tells systemd; without systemd this does nothing.
fn notify(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::debug!(%error, "systemd was not notified");
    }
}
