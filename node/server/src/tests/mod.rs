//! Rules of a node put together, on a machine in memory: every fault is asked for, nothing waits
//! for a clock.
#![allow(clippy::unwrap_used)]

mod fullness;
mod isolation;
mod namespaces;
mod writing;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use unisondb_api::{WriteError, Writer, Written};
use unisondb_engine::Engine;
use unisondb_http::{Host as _, HostError, State};
use unisondb_platform::memory::{self, Effect, MemoryClock, MemoryDisk, OpKind, Operation, Rule};
use unisondb_platform::{DiskExt as _, Platform};
use unisondb_types::{
    Action, EntryType, Key, Lsn, Namespace, Op, Outcome, TxId, TxOperation, Value,
};
use unisondb_wal::SegmentState;

use crate::config::{self, Invocation};
use crate::{Parts, Running, StartError, start};

struct Machine {
    platform: Platform,
    disk: MemoryDisk,
    clock: MemoryClock,
}

impl Machine {
    fn new() -> Machine {
        let (platform, disk, clock) = memory::platform(7);
        Machine {
            platform,
            disk,
            clock,
        }
    }

    /// The same machine after a crash or a kill.
    fn on(&self, disk: MemoryDisk) -> Machine {
        let clock = self.clock.clone();
        let platform = memory::platform_on(&disk, &clock, 8);
        Machine {
            platform,
            disk,
            clock,
        }
    }

    async fn try_start(&self, args: &[&str]) -> Result<Running, StartError> {
        let mut node = self.begin(args).await?;
        match node.ready().await {
            Ok(()) => Ok(node),
            Err(error) => {
                node.stop().await;
                Err(error)
            }
        }
    }

    /// Starts without waiting until all is open.
    async fn begin(&self, args: &[&str]) -> Result<Running, StartError> {
        self.begin_with(args, &[]).await
    }

    /// With variables of the environment.
    async fn begin_with(
        &self,
        args: &[&str],
        variables: &[(&str, &str)],
    ) -> Result<Running, StartError> {
        let base = [
            "unisondb",
            "--data-dir=/data",
            "--ballast-bytes=0",
            "--map-size=16MiB",
        ];
        let name = |arg: &str| arg.split('=').next().unwrap_or(arg).to_owned();
        let given: Vec<String> = args.iter().map(|arg| name(arg)).collect();
        let base = base.iter().filter(|arg| !given.contains(&name(arg)));
        let args = base.chain(args).map(Into::into);
        let variables = variables.iter().map(|(n, v)| (n.into(), v.into()));
        let loaded = config::load(args, variables, self.platform.disk.as_ref()).unwrap();
        let Invocation::Serve(effective) = loaded else {
            panic!("no check was asked for")
        };
        let parts = Parts::<tokio::net::TcpListener> {
            peers: None,
            platform: self.platform.clone(),
            effective: *effective,
            listeners: Vec::new(),
            render_metrics: None,
        };
        start(parts).await
    }

    async fn start(&self, args: &[&str]) -> Running {
        self.try_start(args).await.unwrap_or_else(|e| panic!("{e}"))
    }
}

fn users() -> Namespace {
    "users".parse().unwrap()
}

fn writer(node: &Running) -> Arc<dyn Writer> {
    node.registry().writer()
}

async fn engine(node: &Running) -> Engine {
    node.registry().create(&users()).await.unwrap()
}

fn put(key: &str, value: &str) -> Action {
    Action::Write {
        conditions: Vec::new(),
        ops: vec![Op::KvPut {
            key: Key::new(Bytes::copy_from_slice(key.as_bytes())).unwrap(),
            value: Value::new(Bytes::copy_from_slice(value.as_bytes())),
        }],
    }
}

async fn write(node: &Running, key: &str, value: &str) -> Result<Written, WriteError> {
    writer(node).write(&users(), put(key, value), None).await
}

fn value(engine: &Engine, key: &str) -> Option<Bytes> {
    let key = Key::new(Bytes::copy_from_slice(key.as_bytes())).unwrap();
    engine.kv(&key).unwrap().map(|entry| entry.value)
}

fn degraded(node: &Running) -> Vec<&'static str> {
    match node.registry().find(&users()).unwrap().state {
        State::Open { notes, .. } => {
            let bad = notes.into_iter().filter(|note| note.degraded);
            bad.map(|note| note.field).collect()
        }
        State::Starting { .. } | State::Failed { .. } => vec!["closed"],
    }
}
