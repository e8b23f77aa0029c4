//! [`HandedOut`]: the snapshots that were handed out lately, and the segments that they need. Whoever
//! took one wants what was written since; the log keeps that for an hour, whatever retention says
//! (D10). While a snapshot is made or read, a hold on the log keeps it.

use serde::{Deserialize, Serialize};
use unisondb_types::{SegmentId, Stamp};

/// How long a snapshot that was handed out keeps the segments that it needs.
const KEPT_MICROS: u64 = 3_600 * 1_000_000;
/// Snapshots remembered at most: with more in an hour, neighbours become one that needs as much.
const REMEMBERED: usize = 256;

/// What was handed out, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct HandedOut(Vec<Snapshot>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Snapshot {
    /// Replay needs only segments above this one.
    segment: SegmentId,
    /// When its last byte was handed out.
    micros: u64,
}

impl HandedOut {
    /// A snapshot that needs the segments above `segment` was handed out at `now`.
    pub(super) fn add(&mut self, segment: SegmentId, now: Stamp) {
        self.0.retain(|s| s.is_young(now) && s.segment != segment);
        let micros = now.micros();
        self.0.push(Snapshot { segment, micros });
        while self.0.len() > REMEMBERED {
            let first = self.0.remove(0);
            self.0[0].segment = self.0[0].segment.min(first.segment);
        }
    }

    /// The segments above this one are needed, if any snapshot is younger than an hour at `now`.
    pub(super) fn need(&self, now: Stamp) -> Option<SegmentId> {
        let young = self.0.iter().filter(|s| s.is_young(now));
        young.map(|s| s.segment).min()
    }
}

impl Snapshot {
    fn is_young(&self, now: Stamp) -> bool {
        now.micros_since(Stamp::from_micros(self.micros)) < KEPT_MICROS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Stamp {
        Stamp::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn the_oldest_snapshot_of_the_last_hour_decides() {
        let mut handed = HandedOut::default();
        assert_eq!(handed.need(at(0)), None);
        for (segment, second) in [(3, 100), (5, 200), (7, 300)] {
            handed.add(SegmentId::new(segment), at(second));
        }
        let need = |second| handed.need(at(second)).map(SegmentId::get);
        assert_eq!(need(300), Some(3));
        assert_eq!(need(3_700), Some(5));
        assert_eq!(need(3_899), Some(7));
        assert_eq!(need(3_900), None);
        assert_eq!(need(0), Some(3), "a clock that went back frees nothing");
    }

    #[test]
    fn many_snapshots_take_bounded_room_and_need_no_less() {
        let mut handed = HandedOut::default();
        for n in 1..=1_000 {
            handed.add(SegmentId::new(n), at(n));
        }
        assert_eq!(handed.0.len(), REMEMBERED);
        assert_eq!(handed.need(at(1_000)), Some(SegmentId::new(1)));
        handed.add(SegmentId::new(1_000), at(2_000));
        assert_eq!(handed.0.len(), REMEMBERED, "the same one again");
    }
}
