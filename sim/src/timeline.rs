//! [`Timeline`]: a run's events as people read them: what many did is summed up by the second, faults
//! and the node's life become spans.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::trace::{Answered, Event, Heal, Life, What};

/// A run, told.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Timeline {
    /// By time.
    pub rows: Vec<Row>,
    /// The node's process, from start to end.
    pub lives: Vec<Span>,
    /// Acknowledged writes in each second.
    pub acknowledged: Vec<u64>,
    pub end: Duration,
}

/// One line of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub at: Duration,
    /// When it was over, if it lasted and that came.
    pub until: Option<Duration>,
    pub lane: Lane,
    pub text: String,
}

/// What a line is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    Fault,
    Node,
    Backup,
    FailedBackup,
    Restore,
    Operator,
    Second,
    Finding,
}

impl Lane {
    pub fn name(self) -> &'static str {
        match self {
            Lane::Fault => "fault",
            Lane::Node => "node",
            Lane::Backup | Lane::FailedBackup => "backup",
            Lane::Restore => "restore",
            Lane::Operator => "operator",
            Lane::Second => "",
            Lane::Finding => "FINDING",
        }
    }
}

/// A stretch of time in which something was so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    pub from: Duration,
    pub to: Duration,
    /// When the node had all open, if it came to that.
    pub ready: Option<Duration>,
    pub text: String,
}

/// What is summed up of one second.
#[derive(Debug, Default)]
struct Second {
    acknowledged: u64,
    /// The highest LSN that a client was told.
    lsn: u64,
    refused: BTreeMap<u16, u64>,
    unreachable: u64,
    unknown: u64,
    asked: u64,
    disk_ops: u64,
    syncs: u64,
}

impl Second {
    fn add(&mut self, what: &What) {
        match what {
            What::Disk { syncs } => {
                self.disk_ops += 1;
                self.syncs += u64::from(*syncs);
            }
            What::Asked => self.asked += 1,
            What::Write(Answered::Acknowledged { lsn }) => {
                self.acknowledged += 1;
                self.lsn = self.lsn.max(lsn.unwrap_or(0));
            }
            What::Write(Answered::Refused { status }) => {
                *self.refused.entry(*status).or_default() += 1;
            }
            What::Write(Answered::Unreachable) => self.unreachable += 1,
            What::Write(Answered::Unknown) => self.unknown += 1,
            _ => {}
        }
    }

    fn in_words(&self) -> String {
        let mut parts = Vec::new();
        if self.acknowledged > 0 {
            let upto = match self.lsn {
                0 => String::new(),
                lsn => format!(" up to LSN {lsn}"),
            };
            parts.push(format!(
                "{}{upto}",
                many(
                    self.acknowledged,
                    "write acknowledged",
                    "writes acknowledged"
                )
            ));
        }
        for (status, n) in &self.refused {
            parts.push(format!("{n} refused ({status})"));
        }
        if self.unreachable > 0 {
            parts.push(format!("{} not sent (unreachable)", self.unreachable));
        }
        if self.unknown > 0 {
            parts.push(format!("{} unknown", self.unknown));
        }
        if self.asked > 0 {
            parts.push(many(self.asked, "other request", "other requests"));
        }
        if self.disk_ops > 0 {
            parts.push(many(self.disk_ops, "disk operation", "disk operations"));
        }
        if self.syncs > 0 {
            parts.push(many(self.syncs, "sync", "syncs"));
        }
        parts.join(", ")
    }
}

fn many(n: u64, one: &str, more: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { more })
}

impl Timeline {
    /// Tells a run of which these events were kept, in their order, and that lasted until `end`.
    pub fn of(events: &[Event], end: Duration) -> Timeline {
        let mut seconds: BTreeMap<u64, Second> = BTreeMap::new();
        let mut told = Timeline {
            end,
            ..Timeline::default()
        };
        // Faults that are not over: which row, healed with what.
        let mut open: Vec<(usize, &Heal)> = Vec::new();
        for event in events {
            let at = event.at;
            match &event.what {
                What::Disk { .. } | What::Asked | What::Write(_) => {
                    seconds.entry(at.as_secs()).or_default().add(&event.what);
                }
                What::Fault { kind, heals } => {
                    open.extend(heals.as_ref().map(|heal| (told.rows.len(), heal)));
                    told.row(at, Lane::Fault, kind);
                }
                What::Healed(heal) => {
                    for (row, _) in open.iter().filter(|o| o.1 == heal) {
                        told.rows[*row].until = Some(at);
                    }
                    open.retain(|o| o.1 != heal);
                }
                What::Node(life) => told.live(at, life),
                What::Member { name, life } => {
                    let text = format!("{name} {}", life.in_words());
                    told.row(at, Lane::Node, &text);
                }
                What::Backup { text, done: true } => told.row(at, Lane::Backup, text),
                What::Backup { text, done: false } => told.row(at, Lane::FailedBackup, text),
                What::Restore(text) => told.row(at, Lane::Restore, text),
                What::Operator(text) => told.row(at, Lane::Operator, text),
                What::Finding(text) => told.row(at, Lane::Finding, text),
            }
        }
        if let Some(life) = told.lives.last_mut().filter(|l| l.to == Duration::MAX) {
            life.to = end;
        }
        let last = usize::try_from(end.as_secs()).unwrap_or(0);
        told.acknowledged = vec![0; last + 1];
        for (second, sum) in seconds {
            if let Some(n) = usize::try_from(second)
                .ok()
                .and_then(|s| told.acknowledged.get_mut(s))
            {
                *n = sum.acknowledged;
            }
            let text = sum.in_words();
            told.row(Duration::from_secs(second), Lane::Second, &text);
        }
        // A second's sum stands before what happened in it.
        told.rows.sort_by_key(|r| (r.at, r.lane != Lane::Second));
        told
    }

    fn row(&mut self, at: Duration, lane: Lane, text: &str) {
        self.rows.push(Row {
            at,
            until: None,
            lane,
            text: text.to_owned(),
        });
    }

    fn live(&mut self, at: Duration, life: &Life) {
        match life {
            Life::Starts => self.lives.push(Span {
                from: at,
                to: Duration::MAX,
                ready: None,
                text: String::new(),
            }),
            Life::Ready => {
                if let Some(life) = self.lives.last_mut() {
                    life.ready = Some(at);
                }
            }
            Life::Failed(_) => {}
            Life::Gone(how) => {
                if let Some(life) = self.lives.last_mut() {
                    life.to = life.to.min(at);
                    life.text = (*how).to_owned();
                }
            }
        }
        self.row(at, Lane::Node, &life.in_words());
    }
}

/// The lines around each finding, those of the disk left out; stretches that touch are one.
pub fn around(lines: &[String], before: usize, behind: usize) -> Vec<Vec<&str>> {
    let who = |line: &str| line.split_whitespace().nth(1).map(str::to_owned);
    let is_by = |line: &str, name: &str| {
        who(line).is_some_and(|w| w == name || w.ends_with(&format!(".{name}")))
    };
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let lines: Vec<&str> = lines.into_iter().filter(|l| !is_by(l, "disk")).collect();
    let found = (0..lines.len()).filter(|n| is_by(lines[*n], "FINDING"));
    let mut stretches: Vec<(usize, usize)> = Vec::new();
    for n in found {
        let (from, to) = (n.saturating_sub(before), (n + behind + 1).min(lines.len()));
        match stretches.last_mut() {
            Some(last) if from <= last.1 => last.1 = to,
            _ => stretches.push((from, to)),
        }
    }
    let stretches = stretches.into_iter();
    stretches
        .map(|(from, to)| lines[from..to].to_vec())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64, what: What) -> Event {
        Event {
            at: Duration::from_millis(ms),
            what,
        }
    }

    #[test]
    fn what_many_did_in_a_second_is_one_row() {
        let mut events = vec![at(0, What::Node(Life::Starts))];
        for n in 0..14 {
            let lsn = Some(220 + n);
            events.push(at(1_000 + n, What::Write(Answered::Acknowledged { lsn })));
            events.push(at(1_000 + n, What::Disk { syncs: n < 3 }));
        }
        let refused = Answered::Refused { status: 503 };
        events.extend([
            at(1_500, What::Write(refused)),
            at(1_600, What::Write(refused)),
            at(1_700, What::Write(Answered::Unknown)),
            at(1_800, What::Asked),
            at(2_000, What::Disk { syncs: false }),
        ]);
        let told = Timeline::of(&events, Duration::from_millis(2_500));
        let texts: Vec<_> = told.rows.iter().map(|r| r.text.as_str()).collect();
        assert_eq!(
            texts,
            [
                "starts",
                "14 writes acknowledged up to LSN 233, 2 refused (503), 1 unknown, 1 other request, 14 disk operations, 3 syncs",
                "1 disk operation",
            ]
        );
        assert_eq!(told.acknowledged, [0, 14, 0]);
    }

    #[test]
    fn a_fault_lasts_until_its_own_kind_is_healed() {
        let fault = |kind: &str, heals| What::Fault {
            kind: kind.to_owned(),
            heals,
        };
        let events = [
            at(100, fault("sync EIO", Some(Heal::Disk(0)))),
            at(200, fault("disk full", Some(Heal::Full(0)))),
            at(300, fault("kill", None)),
            at(400, What::Healed(Heal::Disk(0))),
            at(500, What::Healed(Heal::Disk(0))),
        ];
        let told = Timeline::of(&events, Duration::from_secs(1));
        let until: Vec<_> = told.rows.iter().map(|r| r.until).collect();
        assert_eq!(until, [Some(Duration::from_millis(400)), None, None]);
    }

    #[test]
    fn the_node_lives_from_its_start_to_its_end() {
        let events = [
            at(0, What::Node(Life::Starts)),
            at(50, What::Node(Life::Ready)),
            at(700, What::Node(Life::Gone("power lost"))),
            at(900, What::Node(Life::Starts)),
        ];
        let told = Timeline::of(&events, Duration::from_secs(2));
        let spans: Vec<_> = told.lives.iter().map(|l| (l.from, l.to, l.ready)).collect();
        let ms = Duration::from_millis;
        assert_eq!(
            spans,
            [(ms(0), ms(700), Some(ms(50))), (ms(900), ms(2_000), None)]
        );
    }

    #[test]
    fn the_lines_around_a_finding_are_those_of_no_disk() {
        let line = |who: &str, n: u64| format!("{:>9.3}s {who:<10} {n}", 1.0);
        let lines = [
            line("client-0", 1),
            line("client-0", 2),
            line("disk", 3),
            line("FINDING", 4),
            line("node", 5),
            line("node", 6),
            line("node", 7),
        ];
        let found = around(&lines, 1, 1);
        assert_eq!(found, [[&lines[1], &lines[3], &lines[4]]]);
        assert!(around(&lines[..2], 1, 1).is_empty());
    }
}
