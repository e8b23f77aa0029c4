//! [`Tokens`]: bearer tokens, known by their hashes only, and what each may do.
//!
//! The file has one token a line; `#` begins a comment:
//!
//! ```text
//! # name       sha256 of the token                     what it may do, and where
//! backup-job   9f86d081884c7d65…(64 digits)            read,backup@users
//! operator     60303ae22b998861…                       admin@*
//! ```
//!
//! A hash is made by `printf %s TOKEN | sha256sum`. Tokens are compared by their hashes, in the
//! same time whichever matches: neither the file nor the answer's delay gives one away.

use std::fmt;

use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};
use unisondb_types::{Namespace, Sha256Sum};

/// What a token may do. `Admin` includes the others; none of them includes another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Read data, positions and listings.
    Read,
    /// Write data.
    Write,
    /// Make and pull backups, seal.
    Backup,
    /// Everything, namespaces included.
    Admin,
}

/// All tokens of a node.
#[derive(Clone, Default)]
pub struct Tokens(Vec<Token>);

/// Why a text is no list of tokens.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the tokens: {why}; wanted is NAME SHA256 ROLE[,ROLE]@NAMESPACE ...")]
pub struct TokenError {
    line: usize,
    why: String,
}

#[derive(Clone)]
pub(crate) struct Token {
    pub(crate) name: String,
    hash: [u8; 32],
    grants: Vec<Grant>,
}

#[derive(Debug, Clone)]
struct Grant {
    roles: Vec<Role>,
    /// `None`: all.
    namespace: Option<Namespace>,
}

impl Tokens {
    /// Reads the text of a tokens file.
    ///
    /// # Errors
    /// [`TokenError`], naming the line; a hash is never repeated in it.
    pub fn parse(text: &str) -> Result<Tokens, TokenError> {
        let mut tokens: Vec<Token> = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default();
            let mut words = line.split_whitespace();
            let Some(name) = words.next() else {
                continue;
            };
            let error = |why: String| TokenError {
                line: number + 1,
                why,
            };
            let hash: Sha256Sum = words
                .next()
                .and_then(|w| w.parse().ok())
                .ok_or_else(|| error("the second word is not 64 hexadecimal digits".into()))?;
            let grants = words
                .map(|word| {
                    grant(word).ok_or_else(|| error(format!("{word:?} grants nothing known")))
                })
                .collect::<Result<Vec<_>, _>>()?;
            if grants.is_empty() {
                return Err(error("nothing is granted".into()));
            }
            if tokens.iter().any(|t| t.name == name) {
                return Err(error(format!("the name {name} is there twice")));
            }
            tokens.push(Token {
                name: name.to_owned(),
                hash: *hash.as_bytes(),
                grants,
            });
        }
        Ok(Tokens(tokens))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none: then nobody may do anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whose token `secret` is.
    pub(crate) fn find(&self, secret: &[u8]) -> Option<&Token> {
        let hash: [u8; 32] = Sha256::digest(secret).into();
        let mut found = u32::MAX;
        for (i, token) in (0u32..).zip(&self.0) {
            let same: Choice = token.hash.ct_eq(&hash);
            found.conditional_assign(&i, same);
        }
        self.0.get(usize::try_from(found).ok()?)
    }
}

impl Token {
    /// Whether it may do this in that namespace.
    pub(crate) fn may(&self, role: Role, namespace: &str) -> bool {
        self.grants
            .iter()
            .any(|g| g.covers(namespace) && g.has(role))
    }

    /// Whether it may do that in all namespaces.
    pub(crate) fn may_everywhere(&self, role: Role) -> bool {
        let mut grants = self.grants.iter();
        grants.any(|g| g.namespace.is_none() && g.has(role))
    }

    /// Whether it may do anything at all in that namespace.
    pub(crate) fn knows(&self, namespace: &str) -> bool {
        self.grants.iter().any(|g| g.covers(namespace))
    }
}

impl Grant {
    fn covers(&self, namespace: &str) -> bool {
        self.namespace
            .as_ref()
            .is_none_or(|n| n.as_str() == namespace)
    }
    fn has(&self, role: Role) -> bool {
        self.roles.iter().any(|&r| r == role || r == Role::Admin)
    }
}

fn grant(word: &str) -> Option<Grant> {
    let (roles, namespace) = word.split_once('@')?;
    let namespace = match namespace {
        "*" => None,
        name => Some(name.parse().ok()?),
    };
    let roles = roles.split(',').map(|role| match role {
        "read" => Some(Role::Read),
        "write" => Some(Role::Write),
        "backup" => Some(Role::Backup),
        "admin" => Some(Role::Admin),
        _ => None,
    });
    Some(Grant {
        roles: roles.collect::<Option<_>>()?,
        namespace,
    })
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.0.iter().map(|t| &t.name))
            .finish()
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Read => "read",
            Role::Write => "write",
            Role::Backup => "backup",
            Role::Admin => "admin",
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn hex(secret: &str) -> String {
        Sha256Sum::from_bytes(Sha256::digest(secret).into()).to_string()
    }

    #[test]
    fn a_token_may_what_its_grants_say_and_where() {
        let text = format!(
            "# comment\n\njob {} read,backup@users write@orders # tail\nboss {} admin@*\n",
            hex("s3cret"),
            hex("b0ss")
        );
        let tokens = Tokens::parse(&text).unwrap();
        assert_eq!(tokens.len(), 2);
        let job = tokens.find(b"s3cret").unwrap();
        assert_eq!(job.name, "job");
        assert!(job.may(Role::Read, "users") && job.may(Role::Backup, "users"));
        assert!(!job.may(Role::Write, "users") && !job.may(Role::Read, "orders"));
        assert!(job.may(Role::Write, "orders") && job.knows("orders") && !job.knows("other"));
        let boss = tokens.find(b"b0ss").unwrap();
        assert!(boss.may(Role::Write, "anything") && boss.may(Role::Admin, "users"));
        assert!(tokens.find(b"").is_none() && tokens.find(b"S3cret").is_none());
        assert!(Tokens::default().find(b"x").is_none());
        assert!(!format!("{tokens:?}").contains(&hex("b0ss")));
    }

    #[test]
    fn a_bad_line_is_named() {
        let good = hex("x");
        for bad in [
            "name".to_owned(),
            "name abc read@*".to_owned(),
            format!("name {good}"),
            format!("name {good} rule@*"),
            format!("name {good} read@UPPER"),
            format!("name {good} read"),
        ] {
            let e = Tokens::parse(&format!("\n{bad}\n")).unwrap_err();
            assert!(e.to_string().starts_with("line 2 "), "{e}");
        }
        let twice = format!("n {good} read@*\nn {good} read@*");
        assert!(Tokens::parse(&twice).is_err());
    }
}
