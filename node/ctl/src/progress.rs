//! A bar on stderr while long reading goes on; nothing when stderr is no terminal.

use std::cell::RefCell;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use unisondb_engine::restore::Progress;

/// Shows what [`Progress`] says.
pub struct Bar {
    bar: RefCell<Option<ProgressBar>>,
}

impl Bar {
    /// None yet: the first step makes one.
    pub fn new() -> Bar {
        Bar {
            bar: RefCell::new(None),
        }
    }

    /// One more step or unit.
    pub fn show(&self, progress: Progress<'_>) {
        match progress {
            Progress::Begin(what, units) => {
                self.clear();
                // `stderr()` draws only on a terminal.
                let bar = ProgressBar::with_draw_target(Some(units), ProgressDrawTarget::stderr());
                let style = ProgressStyle::with_template("{msg:<36} {bar:40} {percent:>3}% {eta}");
                bar.set_style(style.expect("the template is right"));
                bar.set_message(what.to_owned());
                *self.bar.borrow_mut() = Some(bar);
            }
            Progress::Done(units) => {
                if let Some(bar) = self.bar.borrow().as_ref() {
                    bar.inc(units);
                }
            }
        }
    }

    /// Leaves the terminal as it was.
    pub fn clear(&self) {
        if let Some(bar) = self.bar.borrow_mut().take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.clear();
    }
}
