//! `unisondb`: runs a node. Reads the configuration, binds the listeners, starts the node, waits
//! for a signal.
//!
//! Exit codes: 0 stopped in order, 1 could not start or failed, 2 wrong usage or configuration.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use unisondb_platform::real::{self, TcpDial};
use unisondb_server::config::{self, ConfigError, Effective, Invocation};
use unisondb_server::{Parts, PeerSide, Running, descriptors, greeting, listen, start, telemetry};

/// What a start that fails exits with.
const FAILED: u8 = 1;
/// What wrong usage exits with.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let platform = real::platform();
    let loaded = config::load(
        std::env::args_os(),
        std::env::vars_os(),
        platform.disk.as_ref(),
    );
    let effective = match loaded {
        Ok(Invocation::Serve(effective)) => effective,
        Ok(Invocation::Check(effective)) => {
            drop(write!(std::io::stdout(), "{}", effective.print()));
            return ExitCode::SUCCESS;
        }
        Err(ConfigError::Usage(usage)) => usage.exit(),
        Err(error) => {
            say(format_args!("{error}\n"));
            return ExitCode::from(USAGE);
        }
    };
    telemetry::install_logs(&effective.config);
    if let Err(error) = descriptors::raise() {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let outcome = runtime
        .context("the runtime has no threads")
        .and_then(|runtime| runtime.block_on(run(*effective)));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // By itself on its line: scripts and people look for "permission denied: PATH". Errors of
            // this crate name their causes themselves.
            say(format_args!("{error}\n"));
            ExitCode::from(FAILED)
        }
    }
}

async fn run(effective: Effective) -> anyhow::Result<()> {
    let mut signals = Signals::new().context("signals cannot be handled")?;
    let listeners = listen::bind(&effective.config.http_addr).await?;
    let peers = match &effective.config.peer_addr {
        Some(address) if !effective.config.drill => Some(PeerSide {
            listeners: listen::bind(address).await?,
            dial: Arc::new(TcpDial),
        }),
        _ => None,
    };
    let parts = Parts {
        platform: real::platform(),
        effective,
        listeners,
        peers,
        render_metrics: Some(telemetry::install_metrics()),
    };
    let mut node = start(parts).await?;
    tracing::info!(addresses = ?node.addresses(), data_dir = %node.data_dir().display(), "listening");
    let opened = tokio::select! {
        opened = node.ready() => Some(opened),
        () = signals.next() => None,
    };
    match opened {
        Some(Ok(())) => {
            notify(&[NotifyState::Ready]);
            tracing::info!("ready");
            greet(&node);
            signals.next().await;
        }
        Some(Err(error)) => {
            stop(node, signals).await;
            return Err(error.into());
        }
        None => {}
    }
    stop(node, signals).await;
    Ok(())
}

/// Stops in order; a second signal ends the process at once: the log has all that was answered.
async fn stop(node: Running, mut signals: Signals) {
    tracing::info!("stopping");
    notify(&[NotifyState::Stopping]);
    tokio::select! {
        () = node.stop() => tracing::info!("stopped"),
        () = signals.next() => {
            tracing::warn!("a second signal: the process ends at once");
            std::process::exit(i32::from(FAILED));
        }
    }
}

/// On a first start: what to paste.
fn greet(node: &Running) {
    if node.is_first_start() {
        let address = greeting::address(node.addresses());
        let text = greeting::text(node.scheme(), &address, node.data_dir());
        say(format_args!("{text}"));
    }
}

/// Says it on stderr. Where that cannot be written (a full disk) there is nobody to tell, and the
/// node goes on: `eprintln!` would panic.
fn say(text: std::fmt::Arguments<'_>) {
    drop(std::io::stderr().write_fmt(text));
}

/// Tells the service manager, if there is one.
fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
