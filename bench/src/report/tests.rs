//! Reports of made-up figures, read back: verdicts, ratios, escaping, and what the picture may not hold.

use super::*;
use crate::context::Figure;
use crate::measures::find;
use crate::run::Failure;
use warren_bench::statistics::shown;

fn report() -> Report {
    let machine = Machine {
        processors: 2,
        model: "A <fast> one".to_owned(),
        append_sync_ms: 0.25,
        hello_per_s: 90_000.0,
        sign_per_s: 30_000.0,
        hash_per_s: 1_000_000.0,
        parse_per_s: 300_000.0,
    };
    let taken = |server: &str, figures: &[(&'static str, f64)]| Taken {
        server: server.to_owned(),
        version: "1.0".to_owned(),
        figures: figures.iter().map(|(name, value)| Figure::new(name, *value)).collect(),
        failures: vec![Failure { measure: "join-1000", reason: "two\tlines\nof it".to_owned() }],
    };
    let ours = [("send-64-rooms", 7_000.0), ("send-one", 0.8), ("send-room-8", 4_000.0), ("disk-empty", 3.0)];
    let theirs = [("send-64-rooms", 70.0), ("send-one", 24.0), ("disk-empty", 2.0)];
    Report::new(machine, vec![taken("Warren", &ours), taken("Synapse", &theirs)])
}

fn line(name: &str) -> String {
    let lines = text::bars(&report());
    lines.iter().find(|line| line.name == name).map(ToString::to_string).unwrap_or_default()
}

#[test]
fn a_bar_line_has_four_columns() {
    assert_eq!(line("send-64-rooms"), "send-64-rooms\t7,000/s\t≥ 6,000/s\tok");
    assert_eq!(line("send-room-8"), "send-room-8\t4,000/s\t≥ 5,000/s\tshort");
}

#[test]
fn a_bar_over_the_disk_uses_the_disk_of_the_same_run() {
    assert_eq!(line("send-one"), "send-one\t0.800 ms\t≤ 0.750 ms\tshort");
}

#[test]
fn a_disk_that_changed_its_speed_is_believed() {
    let mut report = report();
    let figure = report.servers.first_mut().and_then(|taken| taken.figures.get_mut(1)).expect("send-one");
    *figure = figure.clone().on_disk(0.3, 0.5);
    let lines = text::bars(&report);
    let line = lines.iter().find(|line| line.name == "send-one").expect("its line");
    assert_eq!(line.to_string(), "send-one\t0.800 ms\t≤ 0.900 ms\tok");
}

#[test]
fn figures_after_different_loads_are_not_compared() {
    let with_loads = |ours: u64, theirs: u64| {
        let mut report = report();
        for (taken, events) in report.servers.iter_mut().zip([ours, theirs]) {
            taken.figures.push(Figure::new("memory-loaded", 100.0).after(events));
        }
        let ratio = text::bars(&report).into_iter().find(|line| line.name == "memory-loaded/synapse");
        (ratio.map(|line| line.figure), html::page(&report))
    };
    let (ratio, page) = with_loads(50_000, 2_000);
    assert_eq!(ratio, None);
    assert!(page.contains("100 MB after 2,000 events") && !page.contains("after 50,000 events</text>"));
    assert_eq!(with_loads(50_000, 50_000).0.as_deref(), Some("1.00 ×"));
}

#[test]
fn ratios_are_held_against_the_published_ratio() {
    // 6,000/s over Synapse's 58/s is 103; this run shows 100.
    assert_eq!(line("send-64-rooms/synapse"), "send-64-rooms/synapse\t100 ×\t≥ 103 ×\tshort");
    // Synapse has the smaller empty disk: 2 MB to our bar of 5.
    assert_eq!(line("disk-empty/synapse"), "disk-empty/synapse\t0.667 ×\t≥ 0.400 ×\tok");
    assert_eq!(line("send-room-8/synapse"), "");
}

#[test]
fn a_measure_that_failed_is_short_and_says_why() {
    assert_eq!(line("join-1000"), "join-1000\tfailed: two lines of it\t≤ 6.00 ms\tshort");
    assert_eq!(line("join-1000/synapse"), "join-1000/synapse\tno figure of both\t≥ 8.00 ×\tshort");
}

#[test]
fn the_table_has_every_measure_once_with_its_ratio() {
    let table = text::table(&report());
    let title = find("send-64-rooms").expect("a row").title;
    let row = table.lines().find(|line| line.starts_with(title)).expect("its line");
    assert!(row.contains("7,000/s") && row.contains("70.0/s") && row.ends_with("100×"), "{row}");
    assert!(table.contains("fdatasync p50 0.250 ms"));
}

#[test]
fn the_page_is_whole_escaped_and_fetches_nothing() {
    let page = html::page(&report());
    assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n"));
    assert!(page.contains("A &lt;fast&gt; one") && !page.contains("<fast>"));
    for forbidden in ["http://", "https://", "<script", "NaN", "inf"] {
        assert!(!page.contains(forbidden), "{forbidden}");
    }
    for tag in ["figure", "svg", "div", "main", "table"] {
        let opened = page.matches(&format!("<{tag}>")).count() + page.matches(&format!("<{tag} ")).count();
        assert_eq!(opened, page.matches(&format!("</{tag}>")).count(), "{tag}");
    }
    assert!(page.contains(&format!("{}/s", shown(7_000.0))));
}

#[test]
fn json_has_all_figures() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("report.json");
    report().write_json(&path).expect("written");
    let read: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).expect("read")).expect("JSON");
    let figure = read.pointer("/servers/0/figures/0/value").and_then(serde_json::Value::as_f64);
    assert_eq!(figure, Some(7_000.0));
    assert_eq!(read.pointer("/machine/append_sync_ms").and_then(serde_json::Value::as_f64), Some(0.25));
}

#[test]
fn days_are_dates() {
    // `date -u -d @$((days * 86400)) +%F` says the same.
    for (days, date) in [
        (0, "1970-01-01"),
        (59, "1970-03-01"),
        (11_016, "2000-02-29"),
        (20_779, "2026-11-22"),
        (47_540, "2100-02-28"),
    ] {
        assert_eq!(date_of_day(days), date);
    }
}
