//! The picture: one self-contained page, no script, nothing fetched. Every measure is a small SVG of bars on a
//! logarithmic scale, for the servers differ by factors of a hundred and more.

use std::fmt::Write;

use super::Report;
use super::text::{bar, ratio, with_unit};
use crate::measures::{Better, MEASURES, Measure};
use warren_bench::statistics::shown;

/// The page's style.
const STYLE: &str = include_str!("style.css");
/// Where the bars begin and how long the longest is, in the SVG's units; figures stand to the right of their bars.
const BARS_LEFT: f64 = 116.0;
const BARS_WIDTH: f64 = 300.0;
const ROW_HEIGHT: f64 = 22.0;
const BAR_HEIGHT: f64 = 13.0;
const PICTURE_WIDTH: f64 = 540.0;
/// The shortest bar, so that the best latency is still seen.
const BAR_WIDTH_MIN: f64 = 6.0;

/// One bar of a picture.
struct Row {
    name: String,
    class: &'static str,
    value: f64,
    events: Option<u64>,
}

/// The whole page.
pub fn page(report: &Report) -> String {
    let ours = report.servers.first().map_or("", |taken| taken.server.as_str());
    let mut body = String::new();
    let _ = write!(body, "<header><h1>{}</h1>", escaped(&title(report)));
    let _ = write!(body, "<p>Measured in one run on {}, {}.", report.date, escaped(&machine(report)));
    body.push_str(" Scales are logarithmic; red marks are Warren's bars. Pale bars were measured elsewhere in November 2026");
    body.push_str(
        " and are shown for orientation: their servers do not sync to disk before they acknowledge.</p>",
    );
    body.push_str(&headline(report));
    body.push_str("</header>");
    for (section, better, units) in [
        ("Throughput", Better::Higher, &["/s", "events/s"][..]),
        ("Time to answer", Better::Lower, &["ms"][..]),
        ("Cost", Better::Lower, &["s", "MB", "MiB", "×", ""][..]),
    ] {
        let measures = MEASURES.iter().filter(|measure| units.contains(&measure.unit));
        let cards: String = measures.filter_map(|measure| card(report, measure)).collect();
        if !cards.is_empty() {
            let hint = if better == Better::Higher { "longer is better" } else { "shorter is better" };
            let _ =
                write!(body, "<h2>{section} <small>{hint}</small></h2><div class=\"cards\">{cards}</div>");
        }
    }
    body.push_str(&limits(report));
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>{} – benchmark</title>\
         <style>{STYLE}</style></head><body><main>{body}</main></body></html>\n",
        escaped(ours)
    )
}

fn title(report: &Report) -> String {
    let names = report.servers.iter().map(|taken| format!("{} {}", taken.server, taken.version));
    names.map(|name| name.trim().to_owned()).collect::<Vec<_>>().join(" and ")
}

fn machine(report: &Report) -> String {
    format!("{} × {}, shared by server and generator", report.machine.processors, report.machine.model)
}

/// The largest ratios, large.
fn headline(report: &Report) -> String {
    let Some(peer) = report.servers.get(1) else { return String::new() };
    let shown_first = ["send-64-rooms", "send-room-64", "deliver-100", "initial-sync-500"];
    let mut text = String::new();
    for measure in MEASURES.iter().filter(|measure| shown_first.contains(&measure.name)) {
        let Some(ratio) = ratio(report, measure, peer) else { continue };
        let _ = write!(
            text,
            "<div><strong>{}×</strong><span>{}</span></div>",
            shown(ratio),
            escaped(measure.title)
        );
    }
    match text.is_empty() {
        true => text,
        false => format!(
            "<p class=\"over\">Better than {} by</p><div class=\"headline\">{text}</div>",
            escaped(&peer.server)
        ),
    }
}

/// One measure: its title, its ratio, its bars.
fn card(report: &Report, measure: &Measure) -> Option<String> {
    let classes = ["ours", "theirs"];
    let mut rows: Vec<Row> = report
        .servers
        .iter()
        .enumerate()
        .filter_map(|(index, taken)| {
            let class = classes.get(index).copied().unwrap_or("theirs");
            taken.figure(measure.name).map(|figure| Row {
                name: taken.server.clone(),
                class,
                value: figure.value,
                events: figure.events,
            })
        })
        .collect();
    if rows.is_empty() {
        return None;
    }
    for (name, value) in
        [("Tuwunel", measure.published.tuwunel), ("continuwuity", measure.published.continuwuity)]
    {
        rows.extend(value.map(|value| Row {
            name: name.to_owned(),
            class: "elsewhere",
            value,
            events: None,
        }));
    }
    let pill = report.servers.get(1).and_then(|peer| ratio(report, measure, peer)).map_or_else(
        String::new,
        |ratio| {
            let class = if ratio >= 1.0 { "pill" } else { "pill behind" };
            format!("<span class=\"{class}\">{}×</span>", shown(ratio))
        },
    );
    let bar = bar(report, measure);
    Some(format!(
        "<figure><figcaption>{}{pill}</figcaption>{}</figure>",
        escaped(measure.title),
        picture(measure, &rows, bar)
    ))
}

fn picture(measure: &Measure, rows: &[Row], bar: Option<f64>) -> String {
    let position = scale(rows.iter().map(|row| row.value).chain(bar));
    let height = ROW_HEIGHT * rows.len() as f64 + 4.0;
    let mut svg = format!("<svg viewBox=\"0 0 {PICTURE_WIDTH} {height}\" role=\"img\">");
    for (index, row) in rows.iter().enumerate() {
        let top = ROW_HEIGHT * index as f64 + 4.0;
        let middle = top + BAR_HEIGHT - 2.5;
        let width = position(row.value);
        let _ = write!(
            svg,
            "<text class=\"name\" x=\"{}\" y=\"{middle}\">{}</text>\
             <rect class=\"{}\" x=\"{BARS_LEFT}\" y=\"{top}\" width=\"{width:.1}\" height=\"{BAR_HEIGHT}\" rx=\"3\"/>\
             <text class=\"value\" x=\"{:.1}\" y=\"{middle}\">{}</text>",
            BARS_LEFT - 8.0,
            escaped(&row.name),
            row.class,
            BARS_LEFT + width + 8.0,
            escaped(&label(measure, row)),
        );
    }
    if let Some(bar) = bar {
        let x = BARS_LEFT + position(bar);
        let label = escaped(&with_unit(&shown(bar), measure.unit));
        let _ = write!(
            svg,
            "<line class=\"bar\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"1\" y2=\"{:.1}\"><title>bar: {} {label}</title></line>",
            ROW_HEIGHT - 1.0,
            measure.better.sign(),
        );
    }
    svg.push_str("</svg>");
    svg
}

/// A bar's figure; a load other than the title says is named.
fn label(measure: &Measure, row: &Row) -> String {
    let figure = with_unit(&shown(row.value), measure.unit);
    let load = row
        .events
        .map(|events| shown(events as f64))
        .filter(|events| !measure.title.contains(events.as_str()));
    load.map_or(figure.clone(), |events| format!("{figure} after {events} events"))
}

/// Where a value stands on a logarithmic scale on which the given values fill the width.
fn scale(values: impl Iterator<Item = f64>) -> impl Fn(f64) -> f64 {
    let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
    for value in values.filter(|value| *value > 0.0) {
        low = low.min(value);
        high = high.max(value);
    }
    // Half a decade below the smallest, so that it has a bar to compare.
    let (low, high) = (low.log10() - 0.5, high.log10());
    move |value| match value > 0.0 && high > low {
        true => ((value.log10() - low) / (high - low) * BARS_WIDTH).max(BAR_WIDTH_MIN),
        false => BAR_WIDTH_MIN,
    }
}

fn limits(report: &Report) -> String {
    let machine = &report.machine;
    let mut rows = String::new();
    for (name, figure) in [
        ("4 KiB append + fdatasync, p50", format!("{} ms", shown(machine.append_sync_ms))),
        (
            "HTTP hello, 64 connections, generator on the same processors",
            format!("{}/s", shown(machine.hello_per_s)),
        ),
        ("Ed25519 signatures of an event, one thread", format!("{}/s", shown(machine.sign_per_s))),
        ("SHA-256 of an event, one thread", format!("{}/s", shown(machine.hash_per_s))),
        ("JSON parsed, an event, one thread", format!("{}/s", shown(machine.parse_per_s))),
    ] {
        let _ = write!(rows, "<tr><td>{name}</td><td>{figure}</td></tr>");
    }
    format!("<h2>Raw limits of the machine <small>same run</small></h2><table>{rows}</table>")
}

/// Text for HTML, in elements and attributes alike.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scale_is_logarithmic_and_bounded() {
        let position = scale([1.0, 10.0, 100.0].into_iter());
        assert!((position(100.0) - BARS_WIDTH).abs() < 1e-9);
        assert!(((position(100.0) - position(10.0)) - (position(10.0) - position(1.0))).abs() < 1e-9);
        assert_eq!(position(0.0), BAR_WIDTH_MIN);
        assert_eq!(scale(std::iter::empty())(5.0), BAR_WIDTH_MIN);
    }

    #[test]
    fn text_is_escaped() {
        assert_eq!(escaped(r#"<a href="x">&"#), "&lt;a href=&quot;x&quot;&gt;&amp;");
    }
}
