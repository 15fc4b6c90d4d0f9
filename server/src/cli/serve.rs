//! `warren serve`: open, listen, say so, and stop in order.

use std::io::{self, IsTerminal};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

use crate::config::{Address, Apis, Config, Listener};
use crate::context::Context;
use crate::federation::room_policy;
use crate::http::admission::Admission;
use crate::http::limits::{DRAIN_TIME_MAX, METRICS_CONNECTIONS_MAX};
use crate::http::listen;
use crate::http::serve::Server;
use crate::recovery::End;
use crate::{data_dir, log, metrics, open_files, worker};

/// Runs the server until it is told to stop. Errors: a sentence about why it cannot start, or has stopped by itself.
pub fn run(config: Config) -> Result<(), String> {
    log::start(&config)?;
    log::warn_of_test_settings(&config);
    let connections_max = open_files::raise_limit(config.memory_budget_bytes)?;
    let _lock = data_dir::lock(&config.data_dir)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    let end = runtime.block_on(serve(config, connections_max))?;
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
async fn serve(config: Config, connections_max: usize) -> Result<Option<End>, String> {
    let ctx = Arc::new(Context::new(config)?);
    let server = Arc::new(Server::new(ctx.clone(), &crate::tables())?);
    let mut sockets = Vec::new();
    listen::warn_of_ipv6_alone(&ctx.config.listen);
    room_policy::warn_of_absent_lists(&ctx);
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
    let mut signals = Signals::new().map_err(|error| error.to_string())?;
    worker::start(&ctx);
    info!(server_name = %ctx.config.server_name, version = env!("CARGO_PKG_VERSION"), "ready");
    if let Some(token) = ctx.first_token() {
        tell_token(&ctx.config.public_base_url, &token);
    }
    notify(NotifyState::Ready);
    let metrics = async {
        if let Some(bound) = metrics {
            let server = Server::new(ctx.clone(), &[metrics::ENDPOINTS])?;
            let admission = Admission::new(METRICS_CONNECTIONS_MAX);
            listen::run(Arc::new(server), vec![bound], admission, ctx.shutdown.clone()).await;
        }
        Ok::<(), String>(())
    };
    let requests = listen::run(server, sockets, Admission::new(connections_max), ctx.shutdown.clone());
    let drained_at = async {
        ctx.shutdown.cancelled().await;
        Instant::now() + DRAIN_TIME_MAX
    };
    let (_, metrics, was_told, until) = tokio::join!(requests, metrics, signals.obey(&ctx), drained_at);
    // Last: requests that were still open may have begun what outlives them.
    if !ctx.under_way.over(until.saturating_duration_since(Instant::now())).await {
        warn!("not all that runs by itself, or goes on behind a request, ended in time");
    }
    info!("stopped");
    metrics?;
    // Who tells it to stop while it is about to start anew means the new one, too; and who did before, while the disk was looked
    // at, is not to get another.
    Ok(if was_told || signals.has_come().await { None } else { ctx.recovery.end() })
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

/// What the system or an operator says to the process.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    /// Whether who has started the server sees what it says. When that terminal is closed, the server gets a SIGHUP.
    is_at_terminal: bool,
}

impl Signals {
    fn new() -> io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            is_at_terminal: io::stderr().is_terminal(),
        })
    }

    /// Waits until the server is told to stop. At a SIGHUP, which service managers send for what is to be read anew, the
    /// certificate is looked at; of a server in a terminal it is the end.
    async fn stop(&mut self, ctx: &Arc<Context>) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                Some(()) = self.hang_up.recv() => {
                    if self.is_at_terminal {
                        return;
                    }
                    info!("SIGHUP: certificates are read again if they have changed, other options at the next start");
                    worker::reload_certificate(ctx);
                }
            }
        }
    }

    /// Waits until the server is told to stop, or stops by itself, and has it stop. Answers whether it was told.
    async fn obey(&mut self, ctx: &Arc<Context>) -> bool {
        let was_told = tokio::select! {
            () = self.stop(ctx) => true,
            () = ctx.shutdown.cancelled() => false,
        };
        if was_told {
            // Where it starts anew, systemd is not to wait for its end.
            notify(NotifyState::Stopping);
        }
        info!("stopping");
        ctx.shutdown.cancel();
        was_told
    }

    /// Whether it was told to stop once more.
    async fn has_come(&mut self) -> bool {
        tokio::select! {
            biased;
            _ = self.terminate.recv() => true,
            _ = self.interrupt.recv() => true,
            () = std::future::ready(()) => false,
        }
    }
}

/// Tells systemd; without systemd this does nothing.
fn notify(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::debug!(%error, "systemd was not notified");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn it_is_known_whether_somebody_told_it_to_stop() {
        let folder = tempfile::tempdir().expect("a folder");
        let ctx = Context::of_tests(folder.path());
        let mut signals = Signals::new().expect("they can be waited for");
        let kill = format!("kill -TERM {}", std::process::id());
        assert!(Command::new("sh").args(["-c", &kill]).status().expect("there is a shell").success());
        assert!(signals.obey(&ctx).await);
        // That it stops for another reason is nobody's word.
        assert!(!signals.has_come().await);
        assert!(!signals.obey(&ctx).await);
    }
}
