//! What is counted: requests by endpoint and status, their durations, those in flight, and the process.
//!
//! Without `metrics_listen` no recorder is installed and every handle here does nothing.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use http::{HeaderValue, Method};
use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram, gauge,
    histogram,
};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use parking_lot::RwLock;
use tracing::warn;
use warren_engine::Engine;
use warren_engine::view::federation::{DestinationStatus, Destinations};

use crate::config::Access;
use crate::http::{Answer, ApiError, Call, Outcome, endpoints};

/// Bounds of the duration histogram in seconds: from a cached read to the longest long poll.
const DURATION_BOUNDS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];

/// The process-wide metrics.
pub struct Metrics {
    recorder: Option<PrometheusHandle>,
    in_flight: AtomicI64,
    in_flight_gauge: Gauge,
}

impl Metrics {
    /// Installs the recorder if metrics are served. Must come before the router, whose meters bind to it.
    ///
    /// Errors: a recorder was installed before in this process.
    pub fn install(served: bool) -> Result<Metrics, String> {
        let recorder = if served { Some(recorder()?) } else { None };
        describe();
        let in_flight_gauge = gauge!("warren_requests_in_flight");
        Ok(Metrics { recorder, in_flight: AtomicI64::new(0), in_flight_gauge })
    }

    /// Counts a request as in flight until the guard is dropped, also if its client goes away.
    pub fn enter(&self) -> InFlight<'_> {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(self)
    }

    /// Requests being handled now.
    pub fn in_flight(&self) -> i64 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// The page that Prometheus reads; `None` if metrics are not served.
    pub fn render(&self, engine: &Engine, access: &Access) -> Option<String> {
        let recorder = self.recorder.as_ref()?;
        self.in_flight_gauge.set(self.in_flight() as f64);
        if let Some(bytes) = resident_bytes() {
            gauge!("process_resident_memory_bytes").set(bytes as f64);
        }
        for (name, figure) in engine.figures() {
            match kind_of(name) {
                Kind::Counted => counter!(Kind::Counted.name(name)).absolute(figure),
                Kind::Now => gauge!(Kind::Now.name(name)).set(figure as f64),
            }
        }
        let mut page = recorder.render();
        // What waits for others waits for the operator; and their rooms would be looked for each time.
        let is_admitted = |name: &str| access.admits(name);
        match tokio::task::block_in_place(|| engine.read(&Destinations(&is_admitted))) {
            Ok(destinations) => write_destinations(&mut page, destinations),
            Err(error) => warn!(%error, "it cannot be told how deliveries fare"),
        }
        Some(page)
    }

    /// Folds what was recorded since the last call; without it histograms grow until they are read.
    pub fn upkeep(&self) {
        if let Some(recorder) = &self.recorder {
            recorder.run_upkeep();
        }
    }
}

/// Says of every metric what it is; those of a destination are written by hand.
fn describe() {
    describe_counter!("warren_requests_total", "Requests answered, by endpoint and status");
    describe_histogram!("warren_request_seconds", "Time from a request's head to its answer, by endpoint");
    describe_counter!(
        "warren_federation_refusals_total",
        "What other servers asked, answered or published that was not taken, by reason"
    );
    describe_counter!(
        "warren_federation_events_total",
        "Events of other servers by what became of them; the reason is a check, or an authorisation rule's number"
    );
    describe_counter!(
        "warren_federation_edus_dropped_total",
        "What other servers told outside of rooms and was passed over, by reason"
    );
    describe_counter!(
        "warren_federation_questions_left_out_total",
        "Events and other things that servers were not asked for because of what another one had sent, by reason"
    );
    describe_counter!("warren_federation_requests_total", "Requests to other servers, by outcome");
    describe_counter!(
        "warren_federation_transactions_sent_total",
        "Transactions to other servers, by outcome"
    );
    describe_counter!(
        "warren_federation_deliveries_broken_off_total",
        "Deliveries to other servers that lost their place to others, by reason"
    );
    describe_gauge!("warren_federation_deliveries_in_flight", "Servers that are being sent something");
    describe_counter!(
        "warren_policy_signatures_total",
        "Events that policy servers were to sign, by what came of it"
    );
    describe_counter!(
        "warren_policy_opinions_total",
        "Events that this server was to sign as a policy server, by what came of it and which rule kept it from that"
    );
    describe_counter!("warren_tasks_fallen_total", "Tasks that ended with a fault of the server's own");
    describe_gauge!("warren_requests_in_flight", "Requests being handled, long polls among them");
    describe_counter!(
        "warren_connections_refused_total",
        "Connections to other hosts that this server would not make, by reason"
    );
    describe_counter!(
        "warren_handshakes_failed_total",
        "TLS handshakes of clients, servers and proxies that came to nothing, by reason"
    );
    describe_counter!(
        "warren_connections_ended_total",
        "Connections that this server ended because nobody used them, or took what was to be sent, by reason"
    );
    describe_gauge!("warren_connections_open", "Connections of clients, servers and proxies that are open");
    describe_gauge!("process_resident_memory_bytes", "Memory of the process that is resident");
    for (figure, kind, meaning) in ENGINE_FIGURES {
        match kind {
            Kind::Counted => describe_counter!(kind.name(figure), meaning),
            Kind::Now => describe_gauge!(kind.name(figure), meaning),
        }
    }
}

/// What a figure of the engine says.
#[derive(Clone, Copy)]
enum Kind {
    /// How often something has happened since the start, or how much of it.
    Counted,
    /// How it is now.
    Now,
}

impl Kind {
    /// The metric's name; those that only grow end as Prometheus has it.
    fn name(self, figure: &str) -> String {
        match self {
            Kind::Counted => format!("warren_engine_{figure}_total"),
            Kind::Now => format!("warren_engine_{figure}"),
        }
    }
}

/// All figures of the engine, and what is said of them.
const ENGINE_FIGURES: [(&str, Kind, &str); 10] = [
    ("block_cache_bytes", Kind::Now, "Memory that the store's cache takes"),
    ("memtable_bytes", Kind::Now, "Memory that the store's unwritten tables take"),
    ("bytes_written", Kind::Counted, "Bytes of what was committed since the start"),
    ("commits", Kind::Counted, "Commits since the start, each of one write or of several together"),
    ("running_compactions", Kind::Now, "Compactions of the store that are under way"),
    ("commits_failed", Kind::Counted, "Commits that failed since the start, as on a full disk"),
    ("stream_position", Kind::Now, "The last position of the stream that is published"),
    ("destinations_waiting", Kind::Now, "Servers for which something waits"),
    ("destinations_backing_off", Kind::Now, "Servers that are left alone for a while after failures"),
    ("rooms_with_partial_state", Kind::Now, "Rooms whose members are still being fetched"),
];

fn kind_of(figure: &str) -> Kind {
    let row = ENGINE_FIGURES.iter().find(|(name, ..)| *name == figure);
    row.map_or(Kind::Now, |(_, kind, _)| *kind)
}

/// Servers that are told of one by one: more than most know or than fail at once in a usual outage, with some hundred bytes for each
/// figure. What a page of metrics tells has to be stored by whoever reads it, again and again.
const DESTINATIONS_MAX: usize = 1_000;

/// What is told of a server.
type Figure = (&'static str, &'static str, fn(&DestinationStatus) -> u64);

const FIGURES: [Figure; 5] = [
    ("failures", "Deliveries that failed since the last success", |status| u64::from(status.failures)),
    ("last_success_seconds", "When it last took something, in seconds since 1970", |status| {
        status.succeeded_ms / 1000
    }),
    ("next_try_seconds", "When it is tried next, in seconds since 1970", |status| status.retry_ms / 1000),
    ("rooms_waiting", "Rooms of which it has not been sent everything", |status| status.rooms_waiting as u64),
    ("messages_waiting", "Messages to devices, and the like, that wait for it", |status| {
        u64::from(status.messages_waiting)
    }),
];

/// How deliveries fare to other servers. They are written by hand, as the recorder would go on telling of those that are known no more.
fn write_destinations(page: &mut String, mut destinations: Vec<DestinationStatus>) {
    let failing = destinations.iter().filter(|status| status.failures > 0).count();
    // Those that fail are what an operator looks for, then those for which something waits. Of those that are well it is always the same.
    let is_idle = |status: &DestinationStatus| status.rooms_waiting == 0 && status.messages_waiting == 0;
    destinations.sort_by_key(|status| (status.failures == 0, is_idle(status)));
    for (name, meaning, count) in [
        (
            "known",
            "Servers that ever were in a room with this one, or were sent anything",
            destinations.len(),
        ),
        ("failing", "Servers to which the last delivery failed", failing),
    ] {
        page.push_str(&format!("# HELP warren_federation_destinations_{name} {meaning}\n"));
        page.push_str(&format!("# TYPE warren_federation_destinations_{name} gauge\n"));
        page.push_str(&format!("warren_federation_destinations_{name} {count}\n\n"));
    }
    for (name, meaning, figure) in FIGURES {
        page.push_str(&format!("# HELP warren_federation_destination_{name} {meaning}\n"));
        page.push_str(&format!("# TYPE warren_federation_destination_{name} gauge\n"));
        for status in destinations.iter().take(DESTINATIONS_MAX) {
            let destination = status.destination.escape_default();
            let figure = figure(status);
            page.push_str(&format!(
                "warren_federation_destination_{name}{{destination=\"{destination}\"}} {figure}\n"
            ));
        }
        page.push('\n');
    }
}

fn recorder() -> Result<PrometheusHandle, String> {
    PrometheusBuilder::new()
        .set_buckets(DURATION_BOUNDS)
        .and_then(PrometheusBuilder::install_recorder)
        .map_err(|error| error.to_string())
}

/// A request in flight.
pub struct InFlight<'a>(&'a Metrics);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What is counted about one endpoint, with its handles looked up once.
pub struct Meter {
    method: String,
    route: &'static str,
    /// Of an endpoint that was asked: it is on the page from then on, with a line for each of its bounds.
    seconds: OnceLock<Histogram>,
    by_status: RwLock<Vec<(u16, Counter)>>,
}

impl Meter {
    pub fn new(method: &Method, route: &'static str) -> Meter {
        Meter { method: method.to_string(), route, seconds: OnceLock::new(), by_status: RwLock::default() }
    }

    /// Records an answered request.
    pub fn record(&self, status: u16, took: Duration) {
        let seconds = self.seconds.get_or_init(
            || histogram!("warren_request_seconds", "method" => self.method.clone(), "route" => self.route),
        );
        seconds.record(took.as_secs_f64());
        let known = self
            .by_status
            .read()
            .iter()
            .find(|(known, _)| *known == status)
            .map(|(_, counter)| counter.clone());
        let counter = known.unwrap_or_else(|| {
            let counter = counter!("warren_requests_total",
                "method" => self.method.clone(), "route" => self.route, "status" => status.to_string());
            self.by_status.write().push((status, counter.clone()));
            counter
        });
        counter.increment(1);
    }
}

/// Resident memory of this process, from the kernel. `None` where there is no `/proc`.
pub fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

endpoints! {
    GET "/metrics" [] None None Nothing get_metrics;
}

/// The only endpoint of the `metrics_listen` listener.
async fn get_metrics(call: Call) -> Outcome {
    let page = call
        .ctx
        .metrics
        .render(&call.ctx.engine, &call.ctx.config.federation_access)
        .ok_or_else(|| ApiError::not_found("Metrics are not served"))?;
    Ok(Answer::bytes(HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"), page.into()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[tokio::test]
    async fn every_figure_of_the_engine_says_what_it_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let ctx = crate::context::Context::of_tests(folder.path());
        let told: BTreeSet<&str> = ctx.engine.figures().into_iter().map(|(name, _)| name).collect();
        let known: BTreeSet<&str> = ENGINE_FIGURES.iter().map(|(name, ..)| *name).collect();
        assert_eq!(told, known);
    }

    fn statuses(word: &str, count: usize, failures: u32, messages_waiting: u32) -> Vec<DestinationStatus> {
        let status = |number: usize| DestinationStatus {
            destination: format!("{word}{number:04}.example").into(),
            delivered_to: Default::default(),
            failures,
            failing_since_ms: 0,
            failed_ms: 0,
            retry_ms: 0,
            succeeded_ms: 0,
            rooms_waiting: 0,
            messages_waiting,
        };
        (0..count).map(status).collect()
    }

    #[test]
    fn all_servers_are_told_of_and_those_that_fail_first() {
        // By their names, as the engine tells them.
        let told = |counts: [usize; 4]| {
            let [waiting, failing, well, both] = counts;
            let all = [
                statuses("a", waiting, 0, 1),
                statuses("b", failing, 1, 0),
                statuses("c", well, 0, 0),
                statuses("d", both, 1, 1),
            ];
            let mut page = String::new();
            write_destinations(&mut page, all.concat());
            assert!(page.contains(&format!("warren_federation_destinations_failing {}\n", failing + both)));
            assert!(page.contains(&format!(
                "warren_federation_destinations_known {}\n",
                counts.iter().sum::<usize>()
            )));
            ["a", "b", "c", "d"].map(|word| {
                let start = format!("warren_federation_destination_failures{{destination=\"{word}");
                page.lines().filter(|line| line.starts_with(&start)).count()
            })
        };
        assert_eq!(told([2, 3, 4, 5]), [2, 3, 4, 5]);
        let most = DESTINATIONS_MAX;
        assert_eq!(told([most, most - 1, 5, 2]), [0, most - 2, 0, 2]);
        assert_eq!(told([most - 4, 1, 5, 2]), [most - 4, 1, 1, 2]);
    }
}
