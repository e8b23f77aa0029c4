//! `explain`: one run told second by second, on the terminal and as a page.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;

use super::{Found, one};
use crate::page::page;
use crate::plan::Profile;
use crate::report::Report;
use crate::run;
use crate::timeline::{Row, Timeline, around};

pub fn explain(what: &str, profile: Profile, html: Option<&Path>) -> anyhow::Result<Found> {
    let plan = one::plan_of(what, profile)?;
    let report = run::run(&plan, true);
    let told = Timeline::of(&report.events, Duration::from_millis(report.simulated_ms));
    print!("{}", in_words(&report, &told));
    if let Some(path) = html {
        let name = match what.parse::<u64>() {
            Ok(_) => clap::ValueEnum::to_possible_value(&profile)
                .expect("every profile has a name")
                .get_name()
                .to_owned(),
            Err(_) => "a plan from a file".to_owned(),
        };
        std::fs::write(path, page(&report, &name, &told))
            .with_context(|| path.display().to_string())?;
    }
    Ok(one::found(&report))
}

fn in_words(report: &Report, told: &Timeline) -> String {
    let mut out: String = told.rows.iter().map(line).collect();
    out.push_str(&format!(
        "\nseed {}, {:.1} s simulated, {} records, {} restores compared\n",
        report.seed,
        told.end.as_secs_f64(),
        report.records,
        report.restores
    ));
    if report.findings.is_empty() {
        out.push_str("nothing found: every promise was kept\n");
        return out;
    }
    for finding in &report.findings {
        out.push_str(&format!("FOUND {finding}\n"));
    }
    for stretch in around(&report.lines, 8, 3) {
        out.push_str("\naround it:\n");
        stretch
            .iter()
            .for_each(|l| out.push_str(&format!("  {l}\n")));
    }
    out
}

fn line(row: &Row) -> String {
    let until = row
        .until
        .map(|t| format!(" (until {:.3} s)", t.as_secs_f64()));
    format!(
        "{:>9.3} s {:<9} {}{}\n",
        row.at.as_secs_f64(),
        row.lane.name(),
        row.text,
        until.unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::{Event, Heal, What};

    fn told(report: &Report) -> String {
        let at = Duration::from_millis;
        let kind = "sync EIO in wal".to_owned();
        let fault = What::Fault {
            kind,
            heals: Some(Heal::Disk(0)),
        };
        let events = [
            Event {
                at: at(250),
                what: fault,
            },
            Event {
                at: at(800),
                what: What::Healed(Heal::Disk(0)),
            },
        ];
        in_words(report, &Timeline::of(&events, at(1_000)))
    }

    #[test]
    fn a_run_without_a_finding_says_so() {
        let text = told(&Report::default());
        assert!(
            text.contains("0.250 s fault     sync EIO in wal (until 0.800 s)"),
            "{text}"
        );
        assert!(
            text.ends_with("nothing found: every promise was kept\n"),
            "{text}"
        );
    }

    #[test]
    fn a_finding_stands_at_the_end_with_the_lines_around_it() {
        let report = Report {
            findings: vec!["P1: lost".to_owned()],
            lines: vec![
                "    0.100s node       starts".to_owned(),
                "    0.200s FINDING    P1: lost".to_owned(),
            ],
            ..Report::default()
        };
        let text = told(&report);
        assert!(text.contains("FOUND P1: lost\n"), "{text}");
        assert!(
            text.ends_with(
                "around it:\n      0.100s node       starts\n      0.200s FINDING    P1: lost\n"
            ),
            "{text}"
        );
    }
}
