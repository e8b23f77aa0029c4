//! [`Settings`]: what an operator may choose about the HTTP surface.

use std::sync::Arc;

use crate::Tokens;

/// Gives the Prometheus text of the recorder that the program has installed.
pub type RenderMetrics = Arc<dyn Fn() -> String + Send + Sync>;

/// What an operator may choose. The default is what a start without configuration has: no tokens,
/// no foreign origins, names of this machine only.
#[derive(Clone, Default)]
pub struct Settings {
    /// Who may do what; `None`: whoever reaches the listener may do everything.
    pub tokens: Option<Tokens>,
    /// Whether `/metrics` and the health routes want a token too.
    pub guard_monitoring: bool,
    /// Origins whose pages may talk to this node, such as `https://console.example.com`.
    pub allowed_origins: Vec<String>,
    /// Names beside `localhost` and addresses that a `Host` header may have, without port.
    pub allowed_hosts: Vec<String>,
    /// Whether a field without a value counts as left out in the bodies of backup calls
    /// (`compat.lenient_json`).
    pub lenient_json: bool,
    /// Text of the metrics recorder, if one is installed.
    pub render_metrics: Option<RenderMetrics>,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings")
            .field("tokens", &self.tokens)
            .field("guard_monitoring", &self.guard_monitoring)
            .field("allowed_origins", &self.allowed_origins)
            .field("allowed_hosts", &self.allowed_hosts)
            .field("lenient_json", &self.lenient_json)
            .field("render_metrics", &self.render_metrics.is_some())
            .finish()
    }
}
