//! [`ask`]: what planner, verifier and restore say of a disk; [`Judge`]: whether that obeys the rule:
//! the same state, or the damage named.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use serde::Serialize;
use unisondb_engine::restore::verify::{Wrong, verify};
use unisondb_engine::restore::{self, BaseFrom, Existing, Problem};
use unisondb_platform::memory::{MemoryClock, MemoryDisk, platform_on};
use unisondb_types::{Digest, Lsn, Namespace, Stamp, Target};

use super::damage::{Damage, Kind, short};
use super::folder::ROOT;

/// How a restore ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", tag = "end")]
pub enum End {
    /// It gave a state.
    Whole {
        lsn: Lsn,
        time: Stamp,
        digest: Digest,
    },
    /// The plan says that something is missing.
    Hole { problem: Problem },
    /// It was refused.
    Refused { why: String },
}

/// All that the product says of a disk.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Said {
    #[serde(flatten)]
    pub end: End,
    /// The plan, as `udbctl restore --dry-run` prints it.
    #[serde(skip)]
    pub plan: String,
    /// What plan, restore and verifier name, a sentence each.
    pub sentences: Vec<String>,
    /// Segments that the verifier misses.
    #[serde(skip)]
    missing: BTreeSet<String>,
}

/// Asks for the state of `namespace` at `target`, and what the files are worth.
pub fn ask(disk: &MemoryDisk, namespace: &Namespace, target: Target) -> Said {
    let asked = catch_unwind(AssertUnwindSafe(|| unguarded(disk, namespace, target)));
    asked.unwrap_or_else(|_| Said {
        end: End::Refused {
            why: "it panicked".to_owned(),
        },
        plan: String::new(),
        sentences: Vec::new(),
        missing: BTreeSet::new(),
    })
}

fn unguarded(disk: &MemoryDisk, namespace: &Namespace, target: Target) -> Said {
    let platform = platform_on(disk, &MemoryClock::default(), 1);
    let request = restore::Request {
        data_dir: PathBuf::from("/restored"),
        namespace: namespace.clone(),
        base: BaseFrom::Folders(vec![PathBuf::from(ROOT)]),
        wal: Vec::new(),
        target,
        lineage: None,
        first_segment: None,
        existing: Existing::Refuse,
    };
    let mut sentences = Vec::new();
    let mut printed = String::new();
    let end = match restore::plan(platform.disk.as_ref(), &request, &|_| ()) {
        Err(e) => End::Refused { why: e.to_string() },
        Ok(plan) => {
            printed = plan.to_string();
            sentences.extend(plan.warnings.iter().map(|w| format!("plan: {w}")));
            match &plan.problem {
                Some(problem) => End::Hole {
                    problem: problem.clone(),
                },
                None => match restore::run(&platform, &request, &plan, &|_| ()) {
                    Ok(done) => End::Whole {
                        lsn: done.lsn,
                        time: done.time,
                        digest: done.digest,
                    },
                    Err(e) => End::Refused { why: e.to_string() },
                },
            }
        }
    };
    match &end {
        End::Whole { .. } => {}
        End::Hole { problem } => sentences.push(format!("plan: {problem}")),
        End::Refused { why } => sentences.push(format!("restore: {why}")),
    }
    let mut missing = BTreeSet::new();
    match verify(platform.disk.as_ref(), &[PathBuf::from(ROOT)], &|_| ()) {
        Ok(report) => {
            for problem in report.problems {
                if problem.kind == Wrong::Missing {
                    missing.insert(problem.why.clone());
                }
                let file = problem.file.map(|f| format!("{f}: ")).unwrap_or_default();
                sentences.push(format!("verify: {file}{}", problem.why));
            }
            sentences.extend(report.notes.iter().map(|n| format!("verify: {n}")));
        }
        Err(e) => sentences.push(format!("verify: {e}")),
    }
    Said {
        end,
        plan: printed,
        sentences,
        missing,
    }
}

/// Whether a damage was dealt with as promised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", tag = "verdict")]
pub enum Verdict {
    /// The state is the one that the sound folder gives, whether the damage is named or not.
    Same { named: bool },
    /// The product names the damage.
    Named,
    /// A missing file shows by how far one gets; up to there the state is right.
    Shorter { lsn: Lsn },
    /// Neither: less, or another state, or an error that does not say where to look.
    NotNamed { because: String },
}

impl Verdict {
    /// In a word or two.
    pub fn in_words(&self) -> String {
        match self {
            Verdict::Same { named: true } => "same state, named".to_owned(),
            Verdict::Same { named: false } => "same state".to_owned(),
            Verdict::Named => "named".to_owned(),
            Verdict::Shorter { lsn } => format!("named by its reach, LSN {lsn}"),
            Verdict::NotNamed { because } => format!("NOT NAMED: {because}"),
        }
    }
}

/// Holds what is said of a damaged folder against what is said of the sound one.
pub struct Judge<'s, F> {
    sound: &'s Said,
    at: F,
    known: BTreeMap<Lsn, Option<Digest>>,
}

impl<'s, F: FnMut(Lsn) -> End> Judge<'s, F> {
    /// `at` restores the sound folder to an LSN.
    pub fn new(sound: &'s Said, at: F) -> Judge<'s, F> {
        Judge {
            sound,
            at,
            known: BTreeMap::new(),
        }
    }

    /// Whether what was `said` of a folder with this `damage` is right.
    pub fn verdict(&mut self, damage: &Damage, said: &Said) -> Verdict {
        let is_named = self.naming(damage, said).is_some();
        let not = |because: &str| Verdict::NotNamed {
            because: because.to_owned(),
        };
        match &said.end {
            end if *end == self.sound.end => Verdict::Same { named: is_named },
            End::Whole { lsn, digest, .. } => match self.digest(*lsn) {
                // Naming does not make up for a wrong state.
                Some(right) if right != *digest => not("another state at that LSN"),
                None => not("a state that the sound folder does not give"),
                Some(_) if is_named => Verdict::Named,
                Some(_) if damage.kind == Kind::Missing => Verdict::Shorter { lsn: *lsn },
                Some(_) => not("silently less"),
            },
            End::Hole { .. } | End::Refused { .. } if is_named => Verdict::Named,
            // What it says is where the log begins, or how far it gets.
            End::Hole { .. } if damage.kind == Kind::Missing => Verdict::Named,
            _ => not("refused, without the name of the file"),
        }
    }

    /// The sentence that names the damage.
    fn naming<'a>(&self, damage: &Damage, said: &'a Said) -> Option<&'a String> {
        let new = |s: &&String| !self.sound.sentences.contains(s);
        let mut sentences = said.sentences.iter().filter(new);
        sentences.find(|s| {
            let by_file = damage.files.iter().any(|f| names(s, f));
            let as_missing = damage.kind == Kind::Missing
                && (said.missing.iter().any(|m| s.ends_with(m.as_str()))
                    || s.contains("neither a segment nor a snapshot was found"));
            by_file || as_missing
        })
    }

    /// What the product said, in a line: what names the damage, or else what is new.
    pub fn gist(&self, damage: &Damage, said: &Said) -> String {
        let new = |s: &&String| !self.sound.sentences.contains(s);
        let sentence = self
            .naming(damage, said)
            .or_else(|| said.sentences.iter().rfind(new));
        let text = match (sentence, &said.end) {
            (Some(sentence), _) => sentence.replace(&format!("{ROOT}/"), ""),
            (None, End::Whole { lsn, .. }) => format!("restored to LSN {lsn}"),
            (None, End::Hole { problem }) => problem.to_string(),
            (None, End::Refused { why }) => why.clone(),
        };
        text.chars().take(160).collect()
    }

    /// The digest that the sound folder gives at `lsn`.
    fn digest(&mut self, lsn: Lsn) -> Option<Digest> {
        if let End::Whole {
            lsn: full, digest, ..
        } = &self.sound.end
            && *full == lsn
        {
            return Some(*digest);
        }
        let at = &mut self.at;
        *self.known.entry(lsn).or_insert_with(|| match at(lsn) {
            End::Whole {
                lsn: found, digest, ..
            } if found == lsn => Some(digest),
            _ => None,
        })
    }
}

/// Whether `text` has the whole name of `file`, not one that goes on.
fn names(text: &str, file: &Path) -> bool {
    let name = format!("{ROOT}/{}", short(file));
    text.match_indices(&name).any(|(at, _)| {
        let mut rest = text[at + name.len()..].chars();
        match (rest.next(), rest.next()) {
            (Some('.'), next) => next.is_none_or(char::is_whitespace),
            (Some(c), _) => !c.is_alphanumeric() && !"-_/~".contains(c),
            (None, _) => true,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_not_named_by_one_whose_name_goes_on() {
        let file = Path::new("/backup/wal/1.wal");
        assert!(names("verify: /backup/wal/1.wal: it is cut", file));
        assert!(names("look at /backup/wal/1.wal", file));
        assert!(names("it is /backup/wal/1.wal.", file));
        assert!(!names("verify: /backup/wal/1.wal.gz: it is cut", file));
        assert!(!names("verify: /backup/wal/1.wal2: it is cut", file));
    }
}
