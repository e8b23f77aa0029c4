//! [`run`]: carries a plan out: steps the simulation, lets happen what is due, heals everything at the
//! end, and holds what was seen against what must be true.

mod damage;
mod events;
mod node;
mod repair;
mod side;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use parking_lot::Mutex;
use turmoil::Sim;
use unisondb_platform::memory::MemoryDisk;

use crate::oracle::operations::Operations;
use crate::plan::{Act, Plan};
use crate::report::{Counters, Report};
use crate::restores::{Bench, Coverage, Tally};
use crate::run::node::Node;
use crate::run::side::Side;
use crate::trace::{Heal, Life, Trace, What};
use crate::workload::client::{Client, Shared};
use crate::workload::intruder::Intruder;
use crate::workload::operator::{Archive, Desk};
use crate::world::host::Status;
use crate::world::{Machine, NODE};

/// The namespaces that clients use: the first one is backed up and restored, the other one must not
/// notice.
pub const NAMESPACES: [&str; 2] = ["users", "orders"];
/// The one that the operator works on.
const NAMESPACE: &str = NAMESPACES[0];
/// How long after the last fault everything must be well again, in simulated time.
const HEALED_WITHIN_MS: u64 = 60_000;
/// How often the logs are read.
const COLLECT_MS: u64 = 1_000;

/// A run under way.
pub struct Run<'p> {
    plan: &'p Plan,
    sim: Sim<'static>,
    node: Node,
    desk: Desk,
    /// What the operator works on, and its neighbour.
    sides: [Side; 2],
    shared: Shared,
    trace: Trace,
    counters: Counters,
    faults: BTreeMap<String, u64>,
    timers: Vec<(u64, Timer)>,
    collected_at: u64,
    /// What the node was when it was last looked at.
    seen: Status,
}

/// What is due later.
#[derive(Debug, Clone, PartialEq)]
enum Timer {
    Start,
    HealDisk,
    HealFull,
    HealClock,
    HealNetwork(u64),
    Unflip(std::path::PathBuf, u64, u8),
}

/// Carries `plan` out.
pub fn run(plan: &Plan, keep_all: bool) -> Report {
    let mut run = Run::new(plan, keep_all);
    run.trace.event("node", format_args!("starts"));
    run.trace.note(What::Node(Life::Starts));
    run.live();
    run.heal();
    let restores = run.judge();
    run.report(&restores)
}

impl<'p> Run<'p> {
    fn new(plan: &'p Plan, keep_all: bool) -> Run<'p> {
        let trace = Trace::default();
        if keep_all {
            trace.keep_all();
        }
        let setting = &plan.setting;
        let mut sim = turmoil::Builder::new()
            .rng_seed(plan.seed)
            .epoch(UNIX_EPOCH + Duration::from_secs(setting.epoch_seconds))
            .simulation_duration(Duration::from_secs(86_400))
            .tick_duration(Duration::from_micros(setting.tick_micros))
            .min_message_latency(Duration::from_micros(setting.tick_micros))
            .max_message_latency(Duration::from_millis(
                setting
                    .max_latency_ms
                    .max(setting.tick_micros.div_ceil(1_000)),
            ))
            .tcp_capacity(4_096)
            .build();
        let machine = Machine::new(setting, plan.seed, &trace);
        machine.disk.set_capacity(Some(setting.volume_bytes));
        let disk = Arc::new(Mutex::new(machine.disk.clone()));
        let counters = Counters::default();
        let shared = Shared {
            setting: setting.clone(),
            seed: plan.seed,
            namespace: NAMESPACE.to_owned(),
            history: Arc::default(),
            operations: Operations::default(),
            counters: counters.clone(),
            trace: trace.clone(),
            over: Arc::default(),
            hold: Arc::default(),
        };
        let side = Side::new(shared.clone());
        let neighbour = Side::new(Shared {
            namespace: NAMESPACES[1].to_owned(),
            history: Arc::default(),
            operations: Operations::default(),
            ..shared.clone()
        });
        let desk = Desk {
            shared: shared.clone(),
            errands: Arc::default(),
            archive: Arc::default(),
            truth: side.truth.clone(),
            disk,
            findings: Arc::default(),
            last_segment: Arc::default(),
            backups: Arc::default(),
        };
        let node = Node::new(machine, setting, &mut sim);
        for number in 0..setting.clients {
            let client = Client::new(shared.clone(), number);
            sim.client(format!("client-{number}"), async move {
                client.run().await;
                Ok(())
            });
        }
        let client = Client::new(neighbour.shared.clone(), setting.clients);
        sim.client("neighbour", async move {
            client.run().await;
            Ok(())
        });
        let intruder = Intruder {
            shared: shared.clone(),
            other: NAMESPACES[1].to_owned(),
            findings: desk.findings.clone(),
        };
        sim.client("intruder", async move {
            intruder.run().await;
            Ok(())
        });
        let operator = desk.clone();
        sim.client("operator", async move {
            operator.run().await;
            Ok(())
        });
        Run {
            plan,
            sim,
            node,
            desk,
            sides: [side, neighbour],
            shared,
            trace,
            counters,
            faults: BTreeMap::new(),
            timers: Vec::new(),
            collected_at: 0,
            seen: Status::Starting,
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.sim.elapsed().as_millis()).expect("a simulation ends")
    }

    /// One tick, and what it brought.
    fn step(&mut self) {
        if let Err(e) = self.sim.step() {
            self.find(&format!("a task failed: {e}"));
        }
        let elapsed = self.sim.elapsed();
        self.trace.tell(elapsed);
        self.node.machine.borrow().clock.tell(elapsed);
        self.watch();
        let now = self.now_ms();
        let due: Vec<Timer> = self
            .timers
            .iter()
            .filter(|t| t.0 <= now)
            .map(|t| t.1.clone())
            .collect();
        self.timers.retain(|t| t.0 > now);
        due.into_iter().for_each(|timer| self.ring(timer));
        if self.node.is_up() && self.node.machine.borrow().disk.is_frozen() {
            self.died();
        }
        let wrong = std::mem::take(&mut *self.node.machine.borrow().wrong.lock());
        wrong.iter().for_each(|w| self.find(w));
        if now >= self.collected_at + COLLECT_MS {
            self.collected_at = now;
            self.collect();
            // Not while the operator has the node in hands.
            if !*self.shared.hold.lock() {
                self.look_after();
            }
        }
    }

    /// Tells what has become of the node's process.
    fn watch(&mut self) {
        let now = self.node.status();
        if now == self.seen {
            return;
        }
        match &now {
            Status::Ready => {
                self.trace.event("node", format_args!("is ready"));
                self.trace.note(What::Node(Life::Ready));
            }
            Status::Broken(why) | Status::Failed(why) => {
                self.trace.note(What::Node(Life::Failed(why.clone())));
            }
            Status::Starting | Status::Stopped => {}
        }
        self.seen = now;
    }

    /// Starts the node, once with further flags.
    fn start(&mut self, flags: &[String]) {
        self.trace.event("node", format_args!("starts"));
        self.trace.note(What::Node(Life::Starts));
        self.node.start(&mut self.sim, flags);
    }

    /// Steps until `done`, for at most so long; whether it came.
    fn until(&mut self, most_ms: u64, mut done: impl FnMut(&mut Run<'p>) -> bool) -> bool {
        let end = self.now_ms() + most_ms;
        while self.now_ms() < end {
            if done(self) {
                return true;
            }
            self.step();
        }
        done(self)
    }

    /// The plan's events.
    fn live(&mut self) {
        for event in &self.plan.events {
            while self.now_ms() < event.at_ms {
                self.step();
            }
            let act = event.act.clone();
            self.trace.event("plan", format_args!("{act:?}"));
            self.act(&act);
        }
        let end = self.plan.setting.seconds * 1_000;
        while self.now_ms() < end {
            self.step();
        }
    }

    /// Everything is healed; within a bound all must be well.
    fn heal(&mut self) {
        self.trace
            .event("plan", format_args!("everything is healed"));
        self.trace
            .note(What::Operator("everything is healed".to_owned()));
        for timer in std::mem::take(&mut self.timers) {
            self.ring(timer.1);
        }
        self.ring(Timer::HealDisk);
        self.ring(Timer::HealFull);
        self.ring(Timer::HealClock);
        // An end that was to come at some operation does not come any more.
        self.node.machine.borrow().disk.freeze_at(u64::MAX);
        for client in 0..self.plan.setting.clients {
            self.ring(Timer::HealNetwork(client));
        }
        let before = self.sides.clone().map(|s| s.acknowledged());
        let snapshots = self.desk.archive.lock().snapshots.len();
        let mut asked = 0;
        let well = self.until(HEALED_WITHIN_MS, |run| {
            let now = run.now_ms();
            if run.node.status() == Status::Ready && now >= asked + 3_000 {
                asked = now;
                run.act(&Act::BackupSnapshot);
                run.act(&Act::BackupWal);
            }
            let mut sides = run.sides.iter().zip(before);
            let written = |(side, before): (&Side, usize)| side.acknowledged() > before + 2;
            sides.all(written) && run.desk.archive.lock().snapshots.len() > snapshots
        });
        if !well {
            let status = self.node.status();
            self.find(&format!("liveness: a minute after everything was healed no writes and backups succeed; the node is {status:?}"));
        }
        *self.shared.over.lock() = true;
        let end = self.now_ms() + 9_000;
        while self.now_ms() < end {
            self.step();
        }
        self.collect();
    }

    /// Reads what the logs on the disk show.
    fn collect(&mut self) {
        let (disk, removed) = {
            let machine = self.node.machine.borrow();
            let removed = std::mem::take(&mut *machine.removed.lock());
            (machine.disk.clone(), removed)
        };
        let sides = self.sides.iter();
        let wrong = sides.flat_map(|side| side.collect(&disk, &removed));
        let wrong: Vec<String> = wrong.collect();
        wrong.iter().for_each(|w| self.find(w));
    }

    fn find(&self, what: &str) {
        self.trace.finding(what);
        self.desk.findings.lock().push(what.to_owned());
    }

    /// Counts a fault that is over at once, or for good.
    fn fault(&mut self, kind: &str) {
        self.fault_until(kind, kind, None);
    }

    /// Counts a fault that lasts until it is healed; `told` is what the timeline says of it.
    fn fault_until(&mut self, kind: &str, told: &str, heals: Option<Heal>) {
        *self.faults.entry(kind.to_owned()).or_default() += 1;
        let kind = told.to_owned();
        self.trace.note(What::Fault { kind, heals });
    }

    /// Tells the desk of a new disk.
    fn new_disk(&mut self, disk: &MemoryDisk) {
        *self.desk.disk.lock() = disk.clone();
    }

    /// What was seen against what must be true; then restores.
    fn judge(&mut self) -> Tally {
        let mut tally = Tally::default();
        let mut wrong: Vec<String> = self
            .sides
            .iter()
            .flat_map(|s| s.judge(&self.node))
            .collect();
        let neighbours = self.sides[1].truth.lock().lineages().len();
        if neighbours > 1 {
            wrong.push(format!(
                "P15: the neighbour has {neighbours} lineages, though it was never restored"
            ));
        }
        if let Some(lineage) = self.node.lineage(NAMESPACE) {
            let truth = self.desk.truth.lock();
            let archive: &Archive = &self.desk.archive.lock();
            let coverage = Coverage::of(archive, &truth, lineage);
            let bench = Bench {
                archive,
                truth: &truth,
                namespace: NAMESPACE,
                keys: self.plan.setting.keys,
                seed: self.plan.seed,
            };
            for number in 0..self.plan.setting.restores {
                wrong.extend(bench.one(&coverage, number, &mut tally));
            }
        }
        wrong.iter().for_each(|w| self.find(w));
        tally
    }

    fn report(self, tally: &Tally) -> Report {
        let mut counters = self.counters.all();
        counters.insert("restores refused as they must be".to_owned(), tally.refused);
        counters.insert(
            "restores with a base of 50 records or more".to_owned(),
            tally.big_base,
        );
        let records = self
            .node
            .lineage(NAMESPACE)
            .map_or(0, |l| self.desk.truth.lock().last(l));
        let findings = self.desk.findings.lock().clone();
        Report {
            seed: self.plan.seed,
            hash: self.trace.hash(),
            simulated_ms: self.now_ms(),
            records,
            restores: tally.compared,
            inside_segment: tally.inside_segment,
            across_fork: tally.across_fork,
            disk_ops: self.trace.disk_ops(),
            faults: self.faults,
            counters,
            findings,
            lines: self.trace.lines(),
            events: self.trace.events(),
        }
    }
}

/// A machine that outlives its node's crashes.
type Shell = Rc<RefCell<Machine>>;

/// The name of a client's host.
fn client_name(number: u64) -> String {
    format!("client-{number}")
}

/// The node's host.
const HOST: &str = NODE;
