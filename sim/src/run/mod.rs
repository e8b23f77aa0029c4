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
use crate::workload::admin::{Admin, Lost};
use crate::workload::client::{Client, Shared};
use crate::workload::intruder::Intruder;
use crate::workload::juggler::Juggler;
use crate::workload::operator::{Archive, Desk};
use crate::world::host::Status;
use crate::world::{self, Machine};

/// The namespaces that clients use: the first one is backed up and restored, the other one must not
/// notice.
pub const NAMESPACES: [&str; 2] = ["users", "orders"];
/// The one that comes and goes, where there are several nodes.
pub const SCRATCH: &str = "scratch";
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
    nodes: Vec<Node>,
    desk: Desk,
    /// What the operator works on, its neighbour, and, of several nodes, what comes and goes.
    sides: Vec<Side>,
    /// Nodes that have lost their disk.
    lost: Lost,
    shared: Shared,
    trace: Trace,
    counters: Counters,
    faults: BTreeMap<String, u64>,
    timers: Vec<(u64, Timer)>,
    collected_at: u64,
    /// What each node was when it was last looked at.
    seen: Vec<Status>,
}

/// What is due later.
#[derive(Debug, Clone, PartialEq)]
enum Timer {
    /// Of a node.
    Start(usize),
    HealDisk(usize),
    HealFull(usize),
    HealClock(usize),
    /// Of a client.
    HealNetwork(u64),
    /// Of the nodes of this set, with the others.
    HealSplit(u64),
    Unflip(std::path::PathBuf, u64, u8),
}

/// Carries `plan` out.
pub fn run(plan: &Plan, keep_all: bool) -> Report {
    let mut run = Run::new(plan, keep_all);
    for n in 0..run.nodes.len() {
        run.tell_life(n, Life::Starts);
    }
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
            trace.take_logs();
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
        let hosts = world::hosts(setting.nodes);
        let machines = hosts.iter().enumerate().map(|(n, name)| {
            let machine = Machine::new(setting, plan.seed, &trace, n, name);
            machine.disk.set_capacity(Some(setting.volume_bytes));
            machine
        });
        let machines: Vec<Machine> = machines.collect();
        let disks = machines.iter().map(|m| m.disk.clone()).collect();
        let disks = Arc::new(Mutex::new(disks));
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
            healed: Arc::default(),
            settled: Arc::default(),
            findings: Arc::default(),
        };
        let side = Side::new(shared.clone());
        let of = |namespace: &str| {
            Side::new(Shared {
                namespace: namespace.to_owned(),
                history: Arc::default(),
                operations: Operations::default(),
                ..shared.clone()
            })
        };
        let neighbour = of(NAMESPACES[1]);
        let desk = Desk {
            shared: shared.clone(),
            errands: Arc::default(),
            archive: Arc::default(),
            truth: side.truth.clone(),
            disks,
            last_segment: Arc::default(),
            backups: Arc::default(),
        };
        let nodes = machines.into_iter();
        let nodes = nodes.map(|machine| Node::new(machine, setting, &hosts, &mut sim));
        let nodes: Vec<Node> = nodes.collect();
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
        };
        sim.client("intruder", async move {
            intruder.run().await;
            Ok(())
        });
        let mut sides = vec![side, neighbour];
        let lost = Lost::default();
        if setting.nodes > 1 {
            let scratch = of(SCRATCH);
            let juggler = Juggler::new(scratch.shared.clone());
            sim.client("juggler", async move {
                juggler.run().await;
                Ok(())
            });
            sides.push(scratch);
            let admin = Admin {
                shared: shared.clone(),
                lost: lost.clone(),
            };
            sim.client("admin", async move {
                admin.run().await;
                Ok(())
            });
        }
        let operator = desk.clone();
        sim.client("operator", async move {
            operator.run().await;
            Ok(())
        });
        Run {
            plan,
            sim,
            seen: vec![Status::Starting; nodes.len()],
            nodes,
            desk,
            sides,
            lost,
            shared,
            trace,
            counters,
            faults: BTreeMap::new(),
            timers: Vec::new(),
            collected_at: 0,
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
        for node in &self.nodes {
            node.machine.borrow().clock.tell(elapsed);
        }
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
        for n in 0..self.nodes.len() {
            if self.nodes[n].is_up() && self.nodes[n].machine.borrow().disk.is_frozen() {
                self.died(n);
            }
            self.stopped(n);
            // The queue is empty once it is replaced.
            if self.nodes[n].is_fresh && self.lost.lock().is_empty() {
                self.nodes[n].is_fresh = false;
            }
            let wrong = std::mem::take(&mut *self.nodes[n].machine.borrow().wrong.lock());
            wrong.iter().for_each(|w| self.find(w));
        }
        if now >= self.collected_at + COLLECT_MS {
            self.collected_at = now;
            self.collect();
            for n in 0..self.nodes.len() {
                // Not one that the operator has in hands.
                if !*self.shared.hold.lock() && self.nodes[n].stopping.is_none() {
                    self.look_after(n);
                }
            }
        }
    }

    /// Tells what has become of the nodes' processes.
    fn watch(&mut self) {
        for n in 0..self.nodes.len() {
            let now = self.nodes[n].status();
            if now == self.seen[n] {
                continue;
            }
            match &now {
                Status::Ready => self.tell_life(n, Life::Ready),
                Status::Broken(why) | Status::Failed(why) => {
                    self.note_life(n, Life::Failed(why.clone()));
                }
                Status::Starting | Status::Stopped => {}
            }
            self.seen[n] = now;
        }
    }

    fn tell(&self, n: usize, what: std::fmt::Arguments<'_>) {
        self.trace.event(&self.nodes[n].name, what);
    }

    fn tell_life(&self, n: usize, life: Life) {
        self.tell(n, format_args!("{}", life.in_words()));
        self.note_life(n, life);
    }

    fn note_life(&self, n: usize, life: Life) {
        self.trace.note(match self.is_alone() {
            true => What::Node(life),
            false => What::Member {
                name: self.nodes[n].name.clone(),
                life,
            },
        });
    }

    /// Whether there is one node.
    fn is_alone(&self) -> bool {
        self.nodes.len() == 1
    }

    /// Starts a node, once with further flags.
    fn start(&mut self, n: usize, flags: &[String]) {
        self.tell_life(n, Life::Starts);
        self.nodes[n].start(&mut self.sim, flags);
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
            self.act(event.node, &act);
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
        for n in 0..self.nodes.len() {
            self.ring(Timer::HealDisk(n));
            self.ring(Timer::HealFull(n));
            self.ring(Timer::HealClock(n));
            // An end that was to come at some operation does not come any more.
            self.nodes[n].machine.borrow().disk.freeze_at(u64::MAX);
        }
        for client in 0..self.plan.setting.clients {
            self.ring(Timer::HealNetwork(client));
        }
        *self.shared.healed.lock() = true;
        let of_clients = 0..NAMESPACES.len();
        let before = self.sides[of_clients.clone()].iter();
        let before: Vec<usize> = before.map(Side::acknowledged).collect();
        let snapshots = self.desk.archive.lock().snapshots.len();
        let mut asked = 0;
        let well = self.until(HEALED_WITHIN_MS, |run| {
            let now = run.now_ms();
            let are_ready = run.nodes.iter().all(|n| n.status() == Status::Ready);
            if are_ready && now >= asked + 3_000 {
                asked = now;
                run.act(0, &Act::BackupSnapshot);
                run.act(0, &Act::BackupWal);
            }
            let mut sides = run.sides[of_clients.clone()].iter().zip(&before);
            let written = |(side, before): (&Side, &usize)| side.acknowledged() > before + 2;
            let settled = run.is_alone() || *run.shared.settled.lock();
            let replaced = run.lost.lock().is_empty();
            settled
                && replaced
                && sides.all(written)
                && run.desk.archive.lock().snapshots.len() > snapshots
        });
        if !well {
            let status: Vec<Status> = self.nodes.iter().map(Node::status).collect();
            self.find(&format!("liveness: a minute after everything was healed no writes and backups succeed; of the nodes is known: {status:?}"));
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
        let mut wrong: Vec<String> = Vec::new();
        for node in &self.nodes {
            let machine = node.machine.borrow();
            let removed = std::mem::take(&mut *machine.removed.lock());
            for side in &self.sides {
                wrong.extend(side.collect(node, &machine.disk, &removed));
            }
        }
        wrong.iter().for_each(|w| self.find(w));
    }

    fn find(&self, what: &str) {
        self.shared.find(what);
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

    /// Tells the desk of a node's new disk.
    fn new_disk(&mut self, n: usize, disk: &MemoryDisk) {
        self.desk.disks.lock()[n] = disk.clone();
    }

    /// What was seen against what must be true; then restores.
    fn judge(&mut self) -> Tally {
        let mut tally = Tally::default();
        let mut wrong: Vec<String> = self
            .sides
            .iter()
            .flat_map(|s| s.judge(&self.nodes))
            .collect();
        let neighbours = self.sides[1].truth.lock().lineages().len();
        if neighbours > 1 {
            wrong.push(format!(
                "P15: the neighbour has {neighbours} lineages, though it was never restored"
            ));
        }
        if let Some(lineage) = self.nodes[0].lineage(NAMESPACE) {
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
        if !self.is_alone() {
            let (leaders, records) = self.desk.truth.lock().changes();
            counters.insert("another leader wrote".to_owned(), leaders);
            let gave_way = "a record of one leader gave way to another's";
            counters.insert(gave_way.to_owned(), records);
        }
        let records = self.nodes[0]
            .lineage(NAMESPACE)
            .map_or(0, |l| self.desk.truth.lock().last(l));
        let findings = self.shared.findings.lock().clone();
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

/// A machine, that outlives its node's crashes.
type Shell = Rc<RefCell<Machine>>;

/// The name of a client's host.
fn client_name(number: u64) -> String {
    format!("client-{number}")
}
