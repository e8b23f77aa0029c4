//! Medians, spreads, ratios, and how they are printed: a table for people, JSON for programs.

use serde_json::{Value, json};

/// The value below which so many thousandths of an ascending list lie (nearest rank).
pub fn percentile(ascending: &[f64], thousandths: usize) -> f64 {
    let rank = (thousandths * ascending.len()).div_ceil(1_000);
    ascending.get(rank.max(1) - 1).copied().unwrap_or(f64::NAN)
}

/// One number a round.
#[derive(Debug, Clone, Default)]
pub struct Series(Vec<f64>);

impl Series {
    /// Adds a round.
    pub fn push(&mut self, value: f64) {
        self.0.push(value);
    }
    /// The last round.
    pub fn last(&self) -> f64 {
        self.0.last().copied().unwrap_or(f64::NAN)
    }
    /// Whether no round was added.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    /// The middle value, or the mean of the two in the middle.
    pub fn median(&self) -> f64 {
        let mut ascending = self.0.clone();
        ascending.sort_unstable_by(f64::total_cmp);
        let n = ascending.len();
        match n {
            0 => f64::NAN,
            _ if n % 2 == 1 => ascending[n / 2],
            _ => f64::midpoint(ascending[n / 2 - 1], ascending[n / 2]),
        }
    }
    /// The smallest.
    pub fn min(&self) -> f64 {
        self.0.iter().copied().fold(f64::NAN, f64::min)
    }
    /// The largest.
    pub fn max(&self) -> f64 {
        self.0.iter().copied().fold(f64::NAN, f64::max)
    }
    /// Round by round, this over the other.
    pub fn over(&self, other: &Series) -> Series {
        Series(self.0.iter().zip(&other.0).map(|(a, b)| a / b).collect())
    }
}

/// What a ratio should be.
#[derive(Debug, Clone, Copy)]
pub enum Goal {
    /// At least this.
    AtLeast(f64),
    /// At most this.
    AtMost(f64),
    /// Printed, not judged.
    None,
}

impl Goal {
    fn text(self) -> String {
        match self {
            Goal::AtLeast(x) => format!(">= {x}"),
            Goal::AtMost(x) => format!("<= {x}"),
            Goal::None => String::new(),
        }
    }
    fn met(self, value: f64) -> Option<bool> {
        match self {
            Goal::AtLeast(x) => Some(value >= x),
            Goal::AtMost(x) => Some(value <= x),
            Goal::None => None,
        }
    }
}

#[derive(Debug)]
struct Line {
    name: String,
    unit: &'static str,
    series: Series,
    goal: Goal,
}

/// What one scenario found.
#[derive(Debug)]
pub struct Report {
    scenario: &'static str,
    lines: Vec<Line>,
    notes: Vec<String>,
}

impl Report {
    /// An empty report.
    pub fn new(scenario: &'static str) -> Report {
        Report {
            scenario,
            lines: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Adds a measurement; one without rounds (its peer is missing) is left out.
    pub fn add(&mut self, name: impl Into<String>, unit: &'static str, series: Series) {
        self.judge(name, unit, series, Goal::None);
    }

    /// Adds a measurement that has a goal.
    pub fn judge(&mut self, name: impl Into<String>, unit: &'static str, s: Series, goal: Goal) {
        if !s.is_empty() {
            self.lines.push(Line {
                name: name.into(),
                unit,
                series: s,
                goal,
            });
        }
    }

    /// Adds a sentence.
    pub fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    /// The table.
    pub fn table(&self) -> String {
        let mut text = format!("\n## {}\n\n", self.scenario);
        let width = self.lines.iter().map(|l| l.name.len()).max().unwrap_or(0);
        text += &format!(
            "| {:width$} |   median | spread              | goal    |\n",
            "what"
        );
        text += &format!(
            "| {:-<width$} | -------: | ------------------- | ------- |\n",
            ""
        );
        for line in &self.lines {
            let spread = format!(
                "{} - {}",
                short(line.series.min()),
                short(line.series.max())
            );
            let median = line.series.median();
            let goal = match line.goal.met(median) {
                Some(true) => format!("{} met", line.goal.text()),
                Some(false) => format!("{} MISSED", line.goal.text()),
                None => String::new(),
            };
            text += &format!(
                "| {:width$} | {:>8} | {:19} | {goal:7} |\n",
                line.name,
                short(median),
                format!("{spread} {}", line.unit)
            );
        }
        for note in &self.notes {
            text += &format!("\n{note}\n");
        }
        text
    }

    /// The same for programs.
    pub fn json(&self) -> Value {
        let line = |l: &Line| {
            json!({
                "name": l.name, "unit": l.unit, "rounds": l.series.0,
                "median": l.series.median(), "min": l.series.min(), "max": l.series.max(),
                "goal": l.goal.text(), "met": l.goal.met(l.series.median()),
            })
        };
        json!({
            "scenario": self.scenario,
            "measurements": self.lines.iter().map(line).collect::<Vec<_>>(),
            "notes": self.notes,
        })
    }
}

fn short(value: f64) -> String {
    match value.abs() {
        x if x >= 100.0 => format!("{value:.0}"),
        x if x >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_percentiles_are_of_the_ranks() {
        let series = Series(vec![5.0, 1.0, 3.0]);
        assert_eq!(
            (series.median(), series.min(), series.max()),
            (3.0, 1.0, 5.0)
        );
        let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(percentile(&hundred, 500), 50.0);
        assert_eq!(percentile(&hundred, 990), 99.0);
        assert_eq!(percentile(&hundred, 1000), 100.0);
        assert_eq!(percentile(&hundred, 0), 1.0);
    }

    #[test]
    fn a_ratio_is_taken_round_by_round_and_judged_by_its_median() {
        let ratio = Series(vec![2.0, 9.0, 4.0]).over(&Series(vec![1.0, 3.0, 4.0]));
        assert_eq!(ratio.median(), 2.0);
        assert_eq!(Goal::AtLeast(2.0).met(ratio.median()), Some(true));
        assert_eq!(Goal::AtMost(1.9).met(ratio.median()), Some(false));
    }
}
