//! Logs and metrics of the process: installed once, by the program, never by a library.
//!
//! Logs go to stderr (a service manager or a shell keeps them); metrics to a Prometheus recorder
//! that `/metrics` renders on the same listener.

use std::sync::{Arc, OnceLock};

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;
use unisondb_http::RenderMetrics;

use crate::config::{Config, LogFormat, LogLevel, Setting as _};

/// Starts logging. A second call changes nothing.
pub fn install_logs(config: &Config) {
    let filter = EnvFilter::new(match config.log_level {
        // Of each group every step otherwise; what an operator should know of it is said by the node.
        LogLevel::Info => "info,openraft=warn".to_owned(),
        level => level.print(),
    });
    let builder = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        // It would report a stderr that cannot be written on stderr, and panic.
        .log_internal_errors(false)
        .with_env_filter(filter);
    let installed = match config.log_format {
        LogFormat::Text => builder
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    // Only a second node in the same process meets a logger that is there.
    drop(installed);
}

/// Installs the process's metrics recorder, once, and gives what renders it.
///
/// # Panics
/// When another recorder was installed before the first call: its numbers would be lost.
pub fn install_metrics() -> RenderMetrics {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    let handle = HANDLE.get_or_init(|| {
        PrometheusBuilder::new()
            .install_recorder()
            .expect("no other recorder is in this process")
    });
    let handle = handle.clone();
    Arc::new(move || {
        // Folds histograms' samples: without it they are kept one by one for ever.
        handle.run_upkeep();
        handle.render()
    })
}
