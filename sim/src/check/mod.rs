//! [`check`]: an operator's own backups, damaged on purpose in a copy that lies in memory: whatever is
//! done to one file, a restore must either give the state that the sound folder gives, or the product
//! must name the damage. The folder itself is only read.
//!
//! | part | what it does |
//! | --- | --- |
//! | [`folder`] | reads the backups, by namespace |
//! | [`damage`] | draws one damage of a seed, and lays the copy out with it |
//! | [`judge`] | asks planner, verifier and restore, and holds the answer against the rule |

pub mod damage;
pub mod folder;
pub mod judge;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

use serde::Serialize;
use unisondb_types::{Namespace, Target};

use self::damage::Damage;
use self::folder::Folder;
use self::judge::{End, Judge, Said, Verdict};

/// What one namespace's backups came to.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Checked {
    pub namespace: Namespace,
    /// What the product says of the folder as it is.
    #[serde(flatten)]
    pub now: Said,
    /// One for each damage; none when nothing can be restored to compare with.
    pub tried: Vec<Tried>,
}

/// One damage, and what came of it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Tried {
    pub seed: u64,
    #[serde(flatten)]
    pub damage: Damage,
    pub said: String,
    #[serde(flatten)]
    pub verdict: Verdict,
}

impl Checked {
    /// How many damages were not named.
    pub fn not_named(&self) -> usize {
        let tried = self.tried.iter();
        tried
            .filter(|t| matches!(t.verdict, Verdict::NotNamed { .. }))
            .count()
    }

    /// Whether the folder as it is leads to its newest record.
    pub fn is_whole(&self) -> bool {
        matches!(self.now.end, End::Whole { .. })
    }
}

/// Damages the backups of `namespace` once for each of `seeds` seeds, and asks the product each time.
pub fn check(folder: &Folder, namespace: &Namespace, seeds: u64) -> Checked {
    let ask = |damage: Option<&Damage>, target| {
        let disk = damage::lay_out(folder, namespace, damage);
        judge::ask(&disk, namespace, target)
    };
    let now = ask(None, Target::Latest);
    let mut tried = Vec::new();
    if !matches!(now.end, End::Refused { .. }) {
        let mut judge = Judge::new(&now, |lsn| ask(None, Target::Lsn(lsn)).end);
        for seed in 1..=seeds {
            let damage = damage::draw(folder, namespace, seed);
            let said = ask(Some(&damage), Target::Latest);
            let verdict = judge.verdict(&damage, &said);
            tried.push(Tried {
                seed,
                said: judge.gist(&damage, &said),
                verdict,
                damage,
            });
        }
    }
    Checked {
        namespace: namespace.clone(),
        now,
        tried,
    }
}
