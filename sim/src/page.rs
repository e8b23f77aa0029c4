//! [`page`]: a run on one page that needs nothing else: no script, no outside file. Every text in it is
//! escaped, since names, errors and answers come from the run.

use std::fmt::Write as _;
use std::time::Duration;

use crate::report::Report;
use crate::timeline::{Lane, Row, Timeline, around};

/// Width of the picture, and where its time begins.
const WIDTH: f64 = 1_160.0;
const LEFT: f64 = 100.0;
/// Height of a bar, and of a lane with room around it.
const BAR: f64 = 12.0;
const LANE: f64 = 18.0;
/// Height of the bar chart.
const CHART: f64 = 60.0;

const STYLE: &str = "\
body{font:14px/1.45 system-ui,sans-serif;margin:2em auto;max-width:1200px;padding:0 1em;color:#1c2430}\
h1{font-size:1.4em}h2{font-size:1.1em;margin-top:2em}\
dl{display:grid;grid-template-columns:max-content 1fr;gap:.2em 1.5em}dt{color:#66707c}dd{margin:0}\
svg{width:100%;height:auto;border:1px solid #d9dee4;background:#fff}svg text{font:11px system-ui,sans-serif;fill:#66707c}\
table{border-collapse:collapse;width:100%}td{padding:.15em .6em;vertical-align:top;border-top:1px solid #edf0f3}\
td.t{white-space:nowrap;text-align:right;font-variant-numeric:tabular-nums;color:#66707c}\
tr.s td{color:#66707c}tr.finding td{background:#fdecea;font-weight:600}tr.fault td.k{color:#b4560f}\
tr.node td.k{color:#1f6f43}tr.restore td.k,tr.backup td.k{color:#2857a4}\
.bad{color:#a61b1b}pre{background:#f6f8fa;padding:.8em;overflow-x:auto;font-size:12px}";

/// `text` as it may stand anywhere in a page, in an attribute too.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// A run as a page.
pub fn page(report: &Report, profile: &str, told: &Timeline) -> String {
    let title = format!("UnisonDB simulator: seed {}", report.seed);
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{0}</title><style>{STYLE}</style></head><body>\n<h1>{0}</h1>\n<dl>",
        escape(&title)
    );
    let facts = [
        ("profile", profile.to_owned()),
        ("simulated", format!("{:.1} s", told.end.as_secs_f64())),
        ("records", report.records.to_string()),
        (
            "restores",
            format!(
                "{} compared, {} inside a segment, {} across a fork",
                report.restores, report.inside_segment, report.across_fork
            ),
        ),
        ("findings", report.findings.len().to_string()),
    ];
    for (name, value) in facts {
        add(
            &mut out,
            &format!("<dt>{}</dt><dd>{}</dd>", escape(name), escape(&value)),
        );
    }
    add(&mut out, "</dl>\n");
    add(&mut out, &picture(told));
    add(&mut out, &findings(report));
    add(&mut out, "<h2>Timeline</h2>\n<table>\n");
    told.rows.iter().for_each(|r| add(&mut out, &row(r)));
    add(&mut out, "</table>\n</body></html>\n");
    out
}

fn add(out: &mut String, text: &str) {
    out.push_str(text);
}

fn findings(report: &Report) -> String {
    if report.findings.is_empty() {
        return "<h2>Findings</h2>\n<p>Nothing was found.</p>\n".to_owned();
    }
    let mut out = String::from("<h2>Findings</h2>\n<ul class=\"bad\">");
    for finding in &report.findings {
        add(&mut out, &format!("<li>{}</li>", escape(finding)));
    }
    add(&mut out, "</ul>\n");
    for stretch in around(&report.lines, 8, 3) {
        add(&mut out, "<pre>");
        add(&mut out, &escape(&stretch.join("\n")));
        add(&mut out, "</pre>\n");
    }
    out
}

fn row(row: &Row) -> String {
    let class = match row.lane {
        Lane::Second => "s",
        Lane::Finding => "finding",
        lane => lane.name(),
    };
    let until = row.until.map(|t| format!("until {}", clock(t)));
    let failed = match row.lane {
        Lane::FailedBackup => " class=\"bad\"",
        _ => "",
    };
    format!(
        "<tr class=\"{class}\"><td class=\"t\">{}</td><td class=\"t\">{}</td><td class=\"k\">{}</td><td{failed}>{}</td></tr>\n",
        clock(row.at),
        until.unwrap_or_default(),
        escape(row.lane.name()),
        escape(&row.text)
    )
}

fn clock(at: Duration) -> String {
    format!("{:.3} s", at.as_secs_f64())
}

/// The lanes over time.
struct Canvas {
    end: f64,
    y: f64,
    body: String,
}

impl Canvas {
    fn x(&self, at: Duration) -> f64 {
        LEFT + (at.as_secs_f64() / self.end).min(1.0) * (WIDTH - LEFT - 10.0)
    }

    fn label(&mut self, text: &str) {
        let (y, text) = (self.y + BAR - 2.0, escape(text));
        self.draw(&format!("<text x=\"6\" y=\"{y:.1}\">{text}</text>"));
    }

    fn bar(&mut self, from: Duration, to: Duration, colour: &str, text: &str) {
        let (x, wide, y) = (self.x(from), (self.x(to) - self.x(from)).max(2.0), self.y);
        let text = escape(text);
        self.draw(&format!("<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{wide:.1}\" height=\"{BAR}\" rx=\"2\" fill=\"{colour}\"><title>{text}</title></rect>"));
    }

    fn mark(&mut self, at: Duration, colour: &str, text: &str) {
        let (x, y, text) = (self.x(at), self.y + BAR / 2.0, escape(text));
        self.draw(&format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"{colour}\"><title>{text}</title></circle>"));
    }

    fn draw(&mut self, text: &str) {
        writeln!(self.body, "{text}").expect("a String takes all");
    }
}

fn picture(told: &Timeline) -> String {
    let mut canvas = Canvas {
        end: told.end.as_secs_f64().max(0.001),
        y: 8.0,
        body: String::new(),
    };
    canvas.label("node");
    canvas.bar(Duration::ZERO, told.end, "#e9c6c6", "down");
    for life in &told.lives {
        let ready = life.ready.unwrap_or(life.to);
        let when = format!("{} to {} {}", clock(life.from), clock(life.to), life.text);
        canvas.bar(life.from, ready, "#e6b450", &format!("starting {when}"));
        if life.ready.is_some() {
            canvas.bar(ready, life.to, "#3a9d5d", &format!("up {when}"));
        }
    }
    canvas.y += LANE;
    faults(&mut canvas, told);
    let lanes: [(&str, &[(Lane, &str)]); 3] = [
        (
            "backups",
            &[(Lane::Backup, "#2857a4"), (Lane::FailedBackup, "#c98b8b")],
        ),
        ("restores", &[(Lane::Restore, "#7a3fa0")]),
        ("findings", &[(Lane::Finding, "#a61b1b")]),
    ];
    for (name, marks) in lanes {
        canvas.label(name);
        for row in &told.rows {
            if let Some((_, colour)) = marks.iter().find(|m| m.0 == row.lane) {
                let text = format!("{} {}", clock(row.at), row.text);
                canvas.mark(row.at, colour, &text);
            }
        }
        canvas.y += LANE;
    }
    chart(&mut canvas, told);
    let height = canvas.y + 8.0;
    format!(
        "<svg viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\" aria-label=\"What happened over time\">\n{}</svg>\n",
        canvas.body
    )
}

/// Faults, each in the first line that is free.
fn faults(canvas: &mut Canvas, told: &Timeline) {
    canvas.label("faults");
    let top = canvas.y;
    let mut busy: Vec<f64> = Vec::new();
    for row in told.rows.iter().filter(|r| r.lane == Lane::Fault) {
        let to = row.until.unwrap_or(row.at);
        let from = canvas.x(row.at);
        let free = busy.iter().position(|end| *end < from);
        let line = free.unwrap_or(busy.len());
        busy.resize(busy.len().max(line + 1), 0.0);
        busy[line] = canvas.x(to).max(from + 2.0) + 1.0;
        canvas.y = top + LANE * line as f64;
        let until = row.until.map(|t| format!(" until {}", clock(t)));
        let text = format!(
            "{}{} {}",
            clock(row.at),
            until.unwrap_or_default(),
            row.text
        );
        canvas.bar(row.at, to, "#d9822b", &text);
    }
    canvas.y = top + LANE * busy.len().max(1) as f64;
}

fn chart(canvas: &mut Canvas, told: &Timeline) {
    canvas.label("writes/s");
    let most = told.acknowledged.iter().max().copied().unwrap_or(0).max(1);
    let (bottom, step) = (canvas.y + CHART, Duration::from_secs(1));
    let mut at = Duration::ZERO;
    for n in &told.acknowledged {
        let tall = CHART * *n as f64 / most as f64;
        let (x, y) = (canvas.x(at), bottom - tall);
        let wide = (canvas.x(at + step) - x - 0.5).max(0.5);
        let second = at.as_secs();
        if *n > 0 {
            canvas.draw(&format!("<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{wide:.1}\" height=\"{tall:.1}\" fill=\"#6b93c7\"><title>second {second}: {n} writes acknowledged</title></rect>"));
        }
        at += step;
    }
    canvas.y = bottom + BAR + 2.0;
    for part in 0..=4u32 {
        let at = told.end * part / 4;
        let left = if part == 4 { 20.0 } else { 12.0 };
        let (x, y, text) = (canvas.x(at) - left, canvas.y, at.as_secs());
        canvas.draw(&format!("<text x=\"{x:.1}\" y=\"{y:.1}\">{text} s</text>"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::{Event, Heal, Life, What};

    #[test]
    fn what_has_a_meaning_in_html_is_escaped() {
        assert_eq!(
            escape("<a href=\"x\">'&amp;'"),
            "&lt;a href=&quot;x&quot;&gt;&#39;&amp;amp;&#39;"
        );
        assert_eq!(escape("ümlaut, plain"), "ümlaut, plain");
    }

    #[test]
    fn no_text_of_a_run_gets_into_a_page_unescaped_and_nothing_is_loaded() {
        let evil = "<script>alert('x')</script>\"";
        let texts = [
            What::Node(Life::Starts),
            What::Node(Life::Failed(evil.to_owned())),
            What::Fault {
                kind: evil.to_owned(),
                heals: Some(Heal::Disk(0)),
            },
            What::Backup {
                text: evil.to_owned(),
                done: true,
            },
            What::Member {
                name: evil.to_owned(),
                life: Life::Starts,
            },
            What::Restore(evil.to_owned()),
            What::Operator(evil.to_owned()),
            What::Finding(evil.to_owned()),
        ];
        let at = Duration::from_millis(1_500);
        let events: Vec<_> = texts.into_iter().map(|what| Event { at, what }).collect();
        let told = Timeline::of(&events, Duration::from_secs(3));
        let report = Report {
            findings: vec![evil.to_owned()],
            lines: vec![format!("    1.500s FINDING    {evil}")],
            ..Report::default()
        };
        let page = page(&report, evil, &told);
        assert!(page.contains("&lt;script&gt;alert(&#39;x&#39;)"));
        for bad in ["<script", "src=", "href=", "url(", "@import"] {
            assert!(!page.contains(bad), "{bad}");
        }
        assert!(page.contains("<svg") && page.ends_with("</html>\n"));
    }
}
