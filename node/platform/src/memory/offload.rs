//! [`InlineOffload`]: blocking work done where it is asked for, because memory does not block.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crate::Offload;
use crate::offload::Task;
use crate::real::{block_on, or_abort};

/// Jobs run inline. A loop becomes a task of the current tokio runtime (one thread, one order), or
/// has a thread of its own when there is none.
#[derive(Debug, Clone, Copy, Default)]
pub struct InlineOffload;

impl Offload for InlineOffload {
    fn run(&self, job: Box<dyn FnOnce() + Send>) {
        job();
    }

    fn thread(&self, name: &str, mut task: Task) {
        let name = name.to_owned();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            // A runtime keeps a task's panic to itself: everyone would wait for a dead log.
            runtime.spawn(poll_fn(move |context| {
                catch_unwind(AssertUnwindSafe(|| task.as_mut().poll(context))).unwrap_or_else(
                    |_| {
                        tracing::error!(
                            thread = name,
                            "panic in a thread's loop: the process ends"
                        );
                        std::process::abort()
                    },
                )
            }));
            return;
        }
        std::thread::Builder::new()
            .name(name.clone())
            .spawn(move || or_abort(&name, || block_on(task)))
            .expect("a test has a thread to spare");
    }

    fn rest(&self, _: Duration) {}
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn inline_offload_keeps_the_contract_with_and_without_a_runtime() {
        let plain = || {
            tokio::runtime::Builder::new_current_thread()
                .build()
                .unwrap()
        };
        plain().block_on(crate::conformance::offload(&InlineOffload));
        let (done, result) = std::sync::mpsc::channel();
        InlineOffload.thread("alone", Box::pin(async move { done.send(7).unwrap() }));
        assert_eq!(result.recv(), Ok(7));
    }
}
