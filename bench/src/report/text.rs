//! Lines for a terminal: the table of figures side by side, and one line per bar.

use std::fmt::Write;

use super::Report;
use crate::measures::{Better, MEASURES, Measure};
use crate::run::Taken;
use warren_bench::statistics::shown;

/// Wide enough for the longest title.
const TITLE_WIDTH: usize = 78;
const FIGURE_WIDTH: usize = 16;

/// One line of `bars`.
#[derive(Debug, Clone, PartialEq)]
pub struct BarLine {
    /// The measure, or the measure over Synapse.
    pub name: String,
    /// The figure, or why there is none.
    pub figure: String,
    /// What it must reach.
    pub bar: String,
    /// Whether it does.
    pub reached: bool,
}

impl std::fmt::Display for BarLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let verdict = if self.reached { "ok" } else { "short" };
        write!(f, "{}\t{}\t{}\t{verdict}", self.name, self.figure, self.bar)
    }
}

/// All servers' figures side by side, the latencies behind them, and the machine's limits.
pub fn table(report: &Report) -> String {
    let mut text = String::new();
    let mut line = |cells: &[String]| {
        let (title, figures) =
            cells.split_first().map_or(("", cells), |(title, rest)| (title.as_str(), rest));
        let _ = write!(text, "{title:TITLE_WIDTH$}");
        for figure in figures {
            let _ = write!(text, " {figure:>FIGURE_WIDTH$}");
        }
        text.push('\n');
    };
    let mut heading = vec![String::new()];
    heading.extend(report.servers.iter().map(|taken| taken.server.clone()));
    heading.extend(report.servers.iter().skip(1).map(|taken| format!("over {}", taken.server)));
    line(&heading);
    for measure in MEASURES.iter().filter(|measure| mentioned(report, measure)) {
        let mut cells = vec![measure.title.to_owned()];
        cells.extend(report.servers.iter().map(|taken| cell(measure, taken)));
        cells.extend(report.servers.iter().skip(1).map(|peer| {
            let ratio = ratio(report, measure, peer);
            ratio.map_or_else(String::new, |ratio| format!("{}×", shown(ratio)))
        }));
        line(&cells);
    }
    let machine = &report.machine;
    let _ = writeln!(
        text,
        "\nraw limits: {} × {}; 4 KiB append + fdatasync p50 {} ms; HTTP hello {}/s; sign {}/s; SHA-256 {}/s; JSON {}/s",
        machine.processors,
        machine.model,
        shown(machine.append_sync_ms),
        shown(machine.hello_per_s),
        shown(machine.sign_per_s),
        shown(machine.hash_per_s),
        shown(machine.parse_per_s),
    );
    for taken in &report.servers {
        latencies(&mut text, taken);
    }
    text
}

/// The lines of `bars`: the first server's figures, and their ratios to the second's where there is one.
pub fn bars(report: &Report) -> Vec<BarLine> {
    let Some((ours, others)) = report.servers.split_first() else { return Vec::new() };
    let mut lines = Vec::new();
    for measure in MEASURES.iter().filter(|measure| mentioned(report, measure)) {
        if let Some(bar) = bar(report, measure) {
            lines.push(BarLine {
                name: measure.name.to_owned(),
                figure: cell(measure, ours),
                bar: with_unit(&format!("{} {}", measure.better.sign(), shown(bar)), measure.unit),
                reached: ours
                    .figure(measure.name)
                    .is_some_and(|figure| measure.better.reaches(figure.value, bar)),
            });
        }
        let (Some(peer), Some(ratio_bar)) = (others.first(), measure.ratio_bar()) else { continue };
        let (our_load, their_load) = (load(ours, measure), load(peer, measure));
        if our_load.is_some() && their_load.is_some() && our_load != their_load {
            continue;
        }
        let ratio = ratio(report, measure, peer);
        lines.push(BarLine {
            name: format!("{}/{}", measure.name, peer.server.to_lowercase()),
            figure: ratio
                .map_or_else(|| "no figure of both".to_owned(), |ratio| format!("{} ×", shown(ratio))),
            bar: format!("{} {} ×", Better::Higher.sign(), shown(ratio_bar)),
            reached: ratio.is_some_and(|ratio| Better::Higher.reaches(ratio, ratio_bar)),
        });
    }
    lines
}

/// What the first server must reach. The disk's speed is that of the moment of measuring, where it was looked at.
pub fn bar(report: &Report, measure: &Measure) -> Option<f64> {
    let figure = report.servers.first().and_then(|ours| ours.figure(measure.name));
    let then = figure.and_then(|figure| figure.append_sync_ms);
    measure.bar.value(then.unwrap_or(report.machine.append_sync_ms))
}

/// How many times better the first server is than `peer`; nothing when their loads differed.
pub fn ratio(report: &Report, measure: &Measure, peer: &Taken) -> Option<f64> {
    let ours = report.servers.first()?.figure(measure.name)?;
    let theirs = peer.figure(measure.name)?;
    let ratio = measure.better.ratio(ours.value, theirs.value);
    Some(ratio).filter(|ratio| ours.events == theirs.events && ratio.is_finite())
}

fn load(taken: &Taken, measure: &Measure) -> Option<u64> {
    taken.figure(measure.name)?.events
}

/// A figure with its unit.
pub fn with_unit(figure: &str, unit: &str) -> String {
    match unit {
        "" => figure.to_owned(),
        "/s" => format!("{figure}/s"),
        unit => format!("{figure} {unit}"),
    }
}

fn mentioned(report: &Report, measure: &Measure) -> bool {
    let name = measure.name;
    report.servers.iter().any(|taken| taken.figure(name).is_some() || taken.failure(name).is_some())
}

/// A figure, the reason for having none, or a dash.
fn cell(measure: &Measure, taken: &Taken) -> String {
    match (taken.figure(measure.name), taken.failure(measure.name)) {
        (Some(figure), _) => with_unit(&shown(figure.value), measure.unit),
        (None, Some(reason)) => format!("failed: {}", reason.replace(['\t', '\n', '\r'], " ")),
        (None, None) => "–".to_owned(),
    }
}

fn latencies(text: &mut String, taken: &Taken) {
    let _ = writeln!(text, "\n{} {}", taken.server, taken.version);
    for figure in &taken.figures {
        let _ = write!(text, "  {:18}", figure.measure);
        if let Some(summary) = figure.latencies {
            let _ = write!(
                text,
                " n {} p50 {} p95 {} p99 {} max {} ms",
                summary.count,
                shown(summary.p50_ms),
                shown(summary.p95_ms),
                shown(summary.p99_ms),
                shown(summary.max_ms),
            );
        }
        if let Some(cost) = figure.cost {
            let server = cost.server_cpu_s.map_or_else(|| "?".to_owned(), shown);
            let _ = write!(text, "; CPU server {server} s, generator {} s", shown(cost.generator_cpu_s));
            let _ = write!(text, " of {} s", shown(cost.elapsed_s));
        }
        if let Some(sync) = figure.append_sync_ms {
            let _ = write!(text, "; append + fdatasync then {} ms", shown(sync));
        }
        if let Some(events) = figure.events {
            let _ = write!(text, "; after {events} events");
        }
        if let Some(note) = &figure.note {
            let _ = write!(text, "; {note}");
        }
        text.push('\n');
    }
}
