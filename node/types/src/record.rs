//! [`Record`]: one entry of the log, and [`Kind`], the number on its frame.

use bytes::Bytes;

use crate::codec::{self, DecodeError};
use crate::{Command, Lsn, Stamp, Term};

/// One log entry as it stands in a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its position.
    pub lsn: Lsn,
    /// The term in which it was appended.
    pub term: Term,
    /// Its time, given by the leader that appended it.
    pub stamp: Stamp,
    /// What that leader knew to be committed: vouches for all at or below (D6).
    pub committed: Lsn,
    /// What kind of payload it has.
    pub kind: Kind,
    /// The encoded command, without its kind.
    pub payload: Bytes,
}

/// What a frame holds. The numbers are on disk for ever; new ones are only appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u16)]
pub enum Kind {
    /// The first record of a lineage.
    Lineage = 1,
    /// A client's action: a write, or a step of a transaction.
    User = 2,
    /// The active segment ends here.
    Seal = 3,
    /// What a rolled segment adds up to.
    Check = 4,
    /// Nothing: a new leader's first record.
    Blank = 5,
    /// Who belongs to the group from here on.
    Membership = 6,
}

impl Kind {
    /// The number on the frame.
    pub const fn number(self) -> u16 {
        self as u16
    }
    /// The kind with this number; `None` for one that this release does not know, which stops the
    /// namespace and is never skipped (D20).
    pub const fn from_number(n: u16) -> Option<Kind> {
        match n {
            1 => Some(Kind::Lineage),
            2 => Some(Kind::User),
            3 => Some(Kind::Seal),
            4 => Some(Kind::Check),
            5 => Some(Kind::Blank),
            6 => Some(Kind::Membership),
            _ => None,
        }
    }
    /// Whether a segment that holds such a record holds user data, and so may be sealed on request.
    pub const fn is_user_data(self) -> bool {
        matches!(self, Kind::User)
    }
}

impl Record {
    /// The command in the payload.
    ///
    /// # Errors
    /// [`DecodeError`] when the payload is not a command of its kind.
    pub fn command(&self) -> Result<Command, DecodeError> {
        Ok(match self.kind {
            Kind::Lineage => Command::Lineage(Box::new(codec::decode(&self.payload)?)),
            Kind::User => {
                let (idempotency, action) = codec::decode(&self.payload)?;
                Command::User {
                    idempotency,
                    action,
                }
            }
            Kind::Seal => Command::Seal(codec::decode(&self.payload)?),
            Kind::Check => Command::Check(codec::decode(&self.payload)?),
            Kind::Blank => {
                codec::decode::<()>(&self.payload)?;
                Command::Blank
            }
            Kind::Membership => Command::Membership(codec::decode(&self.payload)?),
        })
    }
}
