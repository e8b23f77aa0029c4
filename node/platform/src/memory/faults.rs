//! What a disk is told to do wrong: [`Rule`]s that name an operation, or a [`Policy`] that is asked
//! about each.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The calls of a disk and its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum OpKind {
    /// `open` of a file that is there.
    Open,
    /// `open` with `CreateNew`.
    CreateFile,
    /// `create_folder`.
    CreateFolder,
    /// `list`.
    List,
    /// `meta`.
    Meta,
    /// `rename`.
    Rename,
    /// `exchange`.
    Exchange,
    /// `remove_file`.
    RemoveFile,
    /// `remove_folder`.
    RemoveFolder,
    /// `sync_folder`.
    SyncFolder,
    /// `space`.
    Space,
    /// `volume`.
    Volume,
    /// `lock`.
    Lock,
    /// `native`.
    Native,
    /// `read_at`.
    Read,
    /// `write_at`.
    Write,
    /// `sync` of a file.
    Sync,
    /// `set_len`.
    SetLen,
    /// `len`.
    Len,
}

impl OpKind {
    /// Whether it changes what is on the disk, so that a crash before or after it differs. These
    /// are counted.
    #[must_use]
    pub fn is_mutating(self) -> bool {
        match self {
            OpKind::CreateFile
            | OpKind::CreateFolder
            | OpKind::Rename
            | OpKind::Exchange
            | OpKind::RemoveFile
            | OpKind::RemoveFolder
            | OpKind::SyncFolder
            | OpKind::Lock
            | OpKind::Write
            | OpKind::Sync
            | OpKind::SetLen => true,
            OpKind::Open
            | OpKind::List
            | OpKind::Meta
            | OpKind::Space
            | OpKind::Volume
            | OpKind::Native
            | OpKind::Read
            | OpKind::Len => false,
        }
    }
}

/// One call, as rules, policies and the log of a disk see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// How many mutating calls came before it.
    pub number: u64,
    /// Which call.
    pub kind: OpKind,
    /// The file or folder; of an open file, the name it was opened by.
    pub path: PathBuf,
    /// The new name, of a rename; the other one, of an exchange.
    pub to: Option<PathBuf>,
    /// Where in the file; the new length, of `set_len`.
    pub offset: u64,
    /// How many bytes.
    pub len: usize,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "#{} {:?} {}",
            self.number,
            self.kind,
            self.path.display()
        )?;
        match (&self.to, self.kind) {
            (Some(to), _) => write!(f, " -> {}", to.display()),
            (None, OpKind::Read | OpKind::Write) => write!(f, " @{}+{}", self.offset, self.len),
            (None, OpKind::SetLen) => write!(f, " {}", self.offset),
            _ => Ok(()),
        }
    }
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// EIO. A sync that fails, by this or any other error, has lost some of what was not durable.
    Eio,
    /// ENOSPC.
    Full,
    /// EDQUOT.
    Quota,
    /// EACCES.
    Denied,
    /// EROFS: the volume is mounted read-only.
    ReadOnly,
    /// EOPNOTSUPP: this file system cannot.
    Unsupported,
    /// EMFILE: this process has no descriptor left. Only calls that open something give it.
    Descriptors,
    /// EINTR: nothing done, may be called again.
    Interrupted,
    /// A read or write of at most so many bytes, one at least.
    Short(usize),
    /// A write that reads back well, but lies at this offset of the file after a crash.
    Misdirect(u64),
}

impl Effect {
    /// The error it is, if it is one.
    #[must_use]
    pub fn error(self) -> Option<io::Error> {
        match self {
            Effect::Eio => Some(eio()),
            Effect::Full => Some(io::ErrorKind::StorageFull.into()),
            Effect::Quota => Some(io::ErrorKind::QuotaExceeded.into()),
            Effect::Denied => Some(io::ErrorKind::PermissionDenied.into()),
            Effect::ReadOnly => Some(io::ErrorKind::ReadOnlyFilesystem.into()),
            Effect::Unsupported => Some(io::ErrorKind::Unsupported.into()),
            Effect::Descriptors => Some(io::Error::from_raw_os_error(24)),
            Effect::Interrupted => Some(io::ErrorKind::Interrupted.into()),
            Effect::Short(_) | Effect::Misdirect(_) => None,
        }
    }
}

/// An input or output error, as the operating system gives it.
pub(super) fn eio() -> io::Error {
    io::Error::from_raw_os_error(5)
}

/// Decides about every operation. Asked with the disk locked: it must not call it.
pub trait Policy: Send + Sync {
    /// What goes wrong with `operation`, if anything.
    fn decide(&self, operation: &Operation) -> Option<Effect>;

    /// A file has lost its name; `bytes` gives what was in it. By default nobody asks.
    fn removed(&self, _path: &Path, _bytes: &dyn Fn() -> Vec<u8>) {}
}

/// One effect on one kind of operation at one place: at the first that fits, unless told otherwise.
#[derive(Debug, Clone)]
pub struct Rule {
    kind: OpKind,
    below: PathBuf,
    skip: u64,
    sticky: bool,
    effect: Effect,
}

impl Rule {
    /// `effect` on the next `kind` at `path` or anywhere below it (`/`: everywhere), once.
    #[must_use]
    pub fn once(kind: OpKind, path: impl Into<PathBuf>, effect: Effect) -> Rule {
        Rule {
            kind,
            below: path.into(),
            skip: 0,
            sticky: false,
            effect,
        }
    }

    /// The same, from then on until healed.
    #[must_use]
    pub fn always(kind: OpKind, path: impl Into<PathBuf>, effect: Effect) -> Rule {
        Rule {
            sticky: true,
            ..Rule::once(kind, path, effect)
        }
    }

    /// Lets the first `skip` that fit pass.
    #[must_use]
    pub fn after(self, skip: u64) -> Rule {
        Rule { skip, ..self }
    }

    fn fits(&self, operation: &Operation) -> bool {
        let here = |path: &Path| path.starts_with(&self.below);
        self.kind == operation.kind
            && (here(&operation.path) || operation.to.as_deref().is_some_and(here))
    }
}

/// The rules in force.
#[derive(Clone, Default)]
pub(super) struct Faults {
    pub(super) rules: Vec<Rule>,
    pub(super) policy: Option<Arc<dyn Policy>>,
}

impl Faults {
    pub(super) fn decide(&mut self, operation: &Operation) -> Option<Effect> {
        let mut found = None;
        for (n, rule) in self.rules.iter_mut().enumerate() {
            if !rule.fits(operation) {
                continue;
            }
            if rule.skip > 0 {
                rule.skip -= 1;
            } else {
                found = Some(n);
                break;
            }
        }
        let Some(n) = found else {
            return self.policy.as_ref()?.decide(operation);
        };
        let effect = self.rules[n].effect;
        if !self.rules[n].sticky {
            self.rules.remove(n);
        }
        Some(effect)
    }
}

/// Counts the mutating operations, and stops everything at the one it was told.
#[derive(Default)]
pub(super) struct Gate {
    pub(super) ops: u64,
    pub(super) freeze_at: Option<u64>,
    pub(super) frozen: bool,
    log: VecDeque<Operation>,
}

/// What the log keeps: enough to see what led to a failure.
const LOG: usize = 4096;

impl Gate {
    /// Whether `kind` finds the disk frozen, or freezes it.
    pub(super) fn stops(&self, kind: OpKind) -> bool {
        self.frozen || (kind.is_mutating() && self.freeze_at.is_some_and(|n| self.ops >= n))
    }

    pub(super) fn count(&mut self, operation: &Operation) {
        if operation.kind.is_mutating() {
            self.ops += 1;
            if self.log.len() == LOG {
                self.log.pop_front();
            }
            self.log.push_back(operation.clone());
        }
    }

    pub(super) fn log(&self) -> Vec<Operation> {
        self.log.iter().cloned().collect()
    }
}
