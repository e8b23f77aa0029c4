//! [`Ask`]: what one node asks of another, and [`Told`], what it is told. What lies behind either in a
//! message is said at each. (Layout in `docs/formats/peer.md`.)

use bincode::{Decode, Encode};
use unisondb_types::{ClusterId, LineageId, Lsn, Namespace};

use crate::{WriteError, Written};

/// The version of all that is in this file. Nodes of different ones do not talk.
pub const PROTOCOL: u32 = 1;
/// Longest message, in bytes: an append of 1 MiB and one more record of the longest.
pub const MESSAGE_BYTES: usize = 8 << 20;

/// A question, and by whom it is asked.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Asked {
    /// [`PROTOCOL`] of who asks.
    pub protocol: u32,
    /// Its cluster, if it belongs to one: another's is refused.
    pub cluster: Option<ClusterId>,
    /// What is asked.
    pub ask: Ask,
}

/// What is asked of a node. Variants are only appended.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Ask {
    /// Who are you? Changes nothing, and is answered whatever the cluster.
    Who,
    /// Belong to the cluster that asks. Behind it: the record that its `_cluster` begins with.
    Join,
    /// A message of a raft group, behind it.
    Raft {
        /// The group.
        group: GroupId,
        /// Raft id of whom it is for.
        to: u64,
    },
    /// Of a group's leader: commit this. Behind it: the payload of the record to be.
    Write(GroupId),
    /// Of a group's leader: end the active segment, if it holds user data.
    Seal(GroupId),
    /// Of a group's leader: a position at or above every write acknowledged anywhere.
    Barrier(GroupId),
    /// Of the leader of `_cluster`: make this namespace.
    Create(Namespace),
    /// Of the leader of `_cluster`: delete this namespace.
    Delete(Namespace),
    /// Messages of raft groups, each as [`Ask::Raft`] and what lies behind it; they are the
    /// [`parts`](super::parts) behind this.
    Several,
}

/// One history of one namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct GroupId {
    /// The namespace.
    pub namespace: Namespace,
    /// The history.
    pub lineage: LineageId,
}

/// What is told. Variants are only appended.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Told {
    /// Who it is.
    Card(Card),
    /// It belongs to the cluster, under this id.
    Joined(u64),
    /// The answer of the raft group, behind it.
    Raft,
    /// Committed and applied there.
    Written(Written),
    /// Every write that was acknowledged before lies at or below this, and, where it was to end a segment,
    /// in segments that have ended.
    Position(Lsn),
    /// It is done.
    Done,
    /// It was not done, or it is not known.
    Not(WriteError),
    /// It is not for this node, for this reason; nothing was done.
    Refused(String),
    /// What is told to each of several, in their order; behind it, as [`parts`](super::parts).
    Several,
}

/// Who a node is.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Card {
    /// Its id in its cluster, if it belongs to one.
    pub node: Option<u64>,
    /// Its cluster, if it belongs to one.
    pub cluster: Option<ClusterId>,
    /// The name that its operator gave it.
    pub name: String,
    /// Whether there is any namespace in its data directory.
    pub has_data: bool,
    /// Where it says that others reach it (`host:port`).
    pub address: String,
    /// Version of its program.
    pub version: String,
    /// Drawn at its start: two addresses with the same lead to the same process.
    pub process: u64,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::peer::envelope;
    use bincode::{Decode, Encode};
    use bytes::Bytes;
    use proptest::prelude::*;
    use unisondb_types::Outcome;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    fn group() -> GroupId {
        GroupId {
            namespace: "users".parse().unwrap(),
            lineage: LineageId::from_bytes([0xab; 16]),
        }
    }

    fn header(value: &(impl Encode + Decode<()> + PartialEq + std::fmt::Debug)) -> String {
        let message = envelope::encode(value, |out| out.extend_from_slice(b"rest"));
        let (back, rest) = envelope::decode(message.clone()).unwrap();
        assert!(*value == back && rest == "rest", "{value:?}");
        hex(&message[8..message.len() - 4])
    }

    /// Keeps `docs/formats/peer.md`.
    #[test]
    fn golden_questions_and_answers() {
        let text = |text: &str| format!("{:02x}00000000000000{}", text.len(), hex(text.as_bytes()));
        let of_group = format!("{}{}", text("users"), "ab".repeat(16));
        let name = || "users".parse().unwrap();
        let questions = [
            (Ask::Who, "00000000".to_owned()),
            (Ask::Join, "01000000".to_owned()),
            (
                Ask::Raft {
                    group: group(),
                    to: 7,
                },
                format!("02000000{of_group}0700000000000000"),
            ),
            (Ask::Write(group()), format!("03000000{of_group}")),
            (Ask::Seal(group()), format!("04000000{of_group}")),
            (Ask::Barrier(group()), format!("05000000{of_group}")),
            (Ask::Create(name()), format!("06000000{}", text("users"))),
            (Ask::Delete(name()), format!("07000000{}", text("users"))),
            (Ask::Several, "08000000".to_owned()),
        ];
        for (ask, fields) in questions {
            let asked = Asked {
                protocol: PROTOCOL,
                cluster: Some(ClusterId::from_bytes([0xcd; 16])),
                ask,
            };
            assert_eq!(
                header(&asked),
                format!("0100000001{}{fields}", "cd".repeat(16))
            );
        }
        let card = Card {
            node: Some(5),
            cluster: None,
            name: "n1".to_owned(),
            has_data: true,
            address: "h:1".to_owned(),
            version: "0.1.0".to_owned(),
            process: 9,
        };
        let (n1, at, version) = (text("n1"), text("h:1"), text("0.1.0"));
        let written = Written {
            lsn: Lsn::new(3),
            outcome: Outcome::Written { processed: 1 },
        };
        let answers = [
            (
                Told::Card(card),
                format!("0000000001050000000000000000{n1}01{at}{version}0900000000000000"),
            ),
            (Told::Joined(5), "010000000500000000000000".to_owned()),
            (Told::Raft, "02000000".to_owned()),
            (
                Told::Written(written),
                "0300000003000000000000000000000001000000".to_owned(),
            ),
            (
                Told::Position(Lsn::new(4)),
                "040000000400000000000000".to_owned(),
            ),
            (Told::Done, "05000000".to_owned()),
            (Told::Not(WriteError::Full), "0600000005000000".to_owned()),
            (
                Told::Not(WriteError::Unknown("x".to_owned())),
                format!("0600000007000000{}", text("x")),
            ),
            (
                Told::Refused("no".to_owned()),
                format!("07000000{}", text("no")),
            ),
            (Told::Several, "08000000".to_owned()),
        ];
        for (told, bytes) in answers {
            assert_eq!(header(&told), bytes);
        }
    }

    #[test]
    fn a_flipped_bit_anywhere_is_found() {
        let good = envelope::encode(&Told::Joined(7), |out| out.extend_from_slice(b"behind"));
        for bit in 0..good.len() * 8 {
            let mut bad = good.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(envelope::decode::<Told>(bad.into()).is_err(), "bit {bit}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_question_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200), sound: bool) {
            // As they come, and past the checksum with a header that is there.
            let (header, rest) = bytes.split_at(bytes.len() / 2);
            let bytes = match sound {
                true => envelope::enclose(header, |out| out.extend_from_slice(rest)),
                false => Bytes::from(bytes),
            };
            drop(envelope::decode::<Asked>(bytes.clone()));
            drop(envelope::decode::<Told>(bytes));
        }
    }
}
