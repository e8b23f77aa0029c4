//! How a command ends: [`Code`], and [`Failure`], which carries one with what to say.

use std::io;
use std::path::Path;

use unisondb_api::ClientError;
use unisondb_engine::restore::RestoreError;
use unisondb_engine::start::StartError;

/// The process's exit code. The numbers are a contract with scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// Anything not named below.
    Failed = 1,
    /// The command line cannot be meant so.
    Usage = 2,
    /// The node did not answer.
    Unreachable = 3,
    /// What was named is not there.
    NotFound = 4,
    /// Something is in the way, or missing between other things.
    Conflict = 5,
    /// Something is not what it must be.
    Verification = 6,
}

impl Code {
    /// For the operating system.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }
}

/// Why a command did not do what was asked.
#[derive(Debug)]
pub struct Failure {
    /// How the process ends.
    pub code: Code,
    /// What went wrong, and what to do next.
    pub text: String,
    /// For `--json`: further fields beside `error` and `exitCode`.
    pub more: serde_json::Map<String, serde_json::Value>,
}

impl Failure {
    /// Without further fields.
    pub fn new(code: Code, text: impl Into<String>) -> Failure {
        Failure {
            code,
            text: text.into(),
            more: serde_json::Map::new(),
        }
    }

    /// With one more field.
    #[must_use]
    pub fn with(mut self, field: &str, value: impl serde::Serialize) -> Failure {
        let value = serde_json::to_value(value).expect("facts are plain data");
        self.more.insert(field.to_owned(), value);
        self
    }

    /// Of the file system.
    pub fn io(path: &Path, e: &io::Error) -> Failure {
        let path = path.display();
        match e.kind() {
            io::ErrorKind::NotFound => {
                Failure::new(Code::NotFound, format!("no such file or folder: {path}"))
            }
            io::ErrorKind::ReadOnlyFilesystem => Failure::new(
                Code::Failed,
                format!("permission denied: {path}; the file system is mounted read-only"),
            ),
            io::ErrorKind::PermissionDenied => Failure::new(
                Code::Failed,
                format!("permission denied: {path}; run as the user who owns it"),
            ),
            _ => Failure::new(Code::Failed, format!("{path}: {e}")),
        }
    }
}

impl From<RestoreError> for Failure {
    fn from(e: RestoreError) -> Failure {
        use RestoreError as E;
        let code = match &e {
            E::NotFound(_) | E::Nothing | E::OtherNamespaces { .. } | E::NoLineage { .. } => {
                Code::NotFound
            }
            E::Ambiguous { .. }
            | E::BasePastTarget { .. }
            | E::Differs { .. }
            | E::Plan(_)
            | E::Exists(_)
            | E::Flat(_)
            | E::Running(_) => Code::Conflict,
            E::BadBase { .. } | E::Damaged { .. } | E::Broken { .. } | E::OtherEnd { .. } => {
                Code::Verification
            }
            E::Start(e) => start(e),
            E::NoSpace { .. } | E::Io { .. } | E::Wal(_) | E::Engine(_) => Code::Failed,
        };
        Failure::new(code, e.to_string())
    }
}

fn start(e: &StartError) -> Code {
    match e {
        StartError::Gap { .. } => Code::Conflict,
        StartError::Corrupted { .. }
        | StartError::DamagedSegment { .. }
        | StartError::Engine(unisondb_engine::Error::Diverged { .. }) => Code::Verification,
        _ => Code::Failed,
    }
}

impl From<ClientError> for Failure {
    fn from(e: ClientError) -> Failure {
        let text = e.to_string();
        match e {
            ClientError::Config(_) => Failure::new(Code::Usage, text),
            ClientError::Unreachable { .. } => Failure::new(
                Code::Unreachable,
                format!("{text}; is the node running? --url names another one"),
            ),
            ClientError::Lost { .. } => Failure::new(
                Code::Unreachable,
                format!("{text}; the node may have done it all the same: ask again"),
            ),
            ClientError::Refused { status, body, .. } => {
                let code = match status.as_u16() {
                    404 => Code::NotFound,
                    409 => Code::Conflict,
                    400 | 405 | 413 => Code::Usage,
                    _ => Code::Failed,
                };
                Failure::new(code, text)
                    .with("status", status.as_u16())
                    .with("answer", body)
            }
            ClientError::Unexpected(_) => Failure::new(Code::Failed, text),
        }
    }
}
