//! `warren serve`: open, listen, say so, and stop in order.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

use crate::config::{Address, Apis, Config, Listener};
use crate::context::Context;
use crate::http::listen;
use crate::http::serve::Server;
use crate::recovery::End;
use crate::{data_dir, log, metrics, worker};

/// Runs the server until it is told to stop. Errors: a sentence about why it cannot start, or has stopped by itself.
pub fn run(config: Config) -> Result<(), String> {
    log::start(&config)?;
    log::warn_of_test_settings(&config);
    let _lock = data_dir::lock(&config.data_dir)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    let end = runtime.block_on(serve(config))?;
    // Blocking work that is still running must not hold up the exit.
    runtime.shutdown_timeout(Duration::from_millis(100));
    match end {
        None => Ok(()),
        Some(End::Anew) => Err(start_anew()),
        Some(End::Fallen) => Err("stopped by a fault of the server's own, which the log tells".to_owned()),
    }
}

/// Has a new server take this one's place: in the same process, with the same arguments and variables. What is open, and the data
/// folder, is let go of by that. Returns only where that fails, with a sentence about why.
fn start_anew() -> String {
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_else(|| "warren".into());
    let error = Command::new(executable()).arg0(name).args(arguments).exec();
    format!("cannot start anew: {error}")
}

fn executable() -> PathBuf {
    // Where it was removed, or another version put in its place, it has no other name any more.
    let itself = || PathBuf::from("/proc/self/exe");
    std::env::current_exe().ok().filter(|path| path.exists()).unwrap_or_else(itself)
}

/// Returns why it ends, if nobody has told it to.
async fn serve(config: Config) -> Result<Option<End>, String> {
    let ctx = Arc::new(Context::new(config)?);
    let server = Arc::new(Server::new(ctx.clone(), &crate::tables())?);
    let mut sockets = Vec::new();
    for listener in &ctx.config.listen {
        sockets.push(listen::bind(listener, ctx.certificate.as_ref()).await?);
    }
    let metrics = match ctx.config.metrics_listen {
        Some(address) => {
            let listener = Listener { address: Address::Http(address), apis: Apis::ALL };
            Some(listen::bind(&listener, None).await?)
        }
        None => None,
    };
    let mut signals = Signals::new()?;
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
    let (_, metrics, ()) = tokio::join!(requests, metrics, stop_on_signal(&mut signals, &ctx));
    info!("stopped");
    metrics?;
    // Who tells it to stop while it is about to start anew means the new one, too.
    Ok(if signals.has_come().await { None } else { ctx.recovery.end() })
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

/// Those that tell the server to stop.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self, String> {
        let of = |kind| signal(kind).map_err(|error| error.to_string());
        Ok(Self { terminate: of(SignalKind::terminate())?, interrupt: of(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Whether there is another.
    async fn has_come(&mut self) -> bool {
        tokio::select! {
            biased;
            () = self.next() => true,
            () = std::future::ready(()) => false,
        }
    }
}

/// Waits for SIGTERM or SIGINT, unless the server stops by itself, and has it stop.
async fn stop_on_signal(signals: &mut Signals, ctx: &Context) {
    tokio::select! {
        () = signals.next() => notify(NotifyState::Stopping),
        // Where it starts anew, systemd is not to wait for its end.
        () = ctx.shutdown.cancelled() => {}
    }
    info!("stopping");
    ctx.shutdown.cancel();
}

/// Tells systemd; without systemd this does nothing.
fn notify(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::debug!(%error, "systemd was not notified");
    }
}
