//! What is counted: requests by endpoint and status, their durations, those in flight, and the process.
//!
//! Without `metrics_listen` no recorder is installed and every handle here does nothing.

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
        describe_counter!("warren_requests_total", "Requests answered, by endpoint and status");
        describe_histogram!(
            "warren_request_seconds",
            "Time from a request's head to its answer, by endpoint"
        );
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
        describe_counter!("warren_federation_requests_total", "Requests to other servers, by outcome");
        describe_counter!(
            "warren_policy_signatures_total",
            "Events that policy servers were to sign, by what came of it"
        );
        describe_counter!("warren_tasks_fallen_total", "Tasks that ended with a fault of the server's own");
        describe_gauge!("warren_requests_in_flight", "Requests being handled, long polls among them");
        describe_gauge!("process_resident_memory_bytes", "Memory of the process that is resident");
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
    pub fn render(&self, engine: &Engine) -> Option<String> {
        let recorder = self.recorder.as_ref()?;
        self.in_flight_gauge.set(self.in_flight() as f64);
        if let Some(bytes) = resident_bytes() {
            gauge!("process_resident_memory_bytes").set(bytes as f64);
        }
        for (name, figure) in engine.figures() {
            gauge!(format!("warren_engine_{name}")).set(figure as f64);
        }
        let mut page = recorder.render();
        match tokio::task::block_in_place(|| engine.read(&Destinations)) {
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

/// Servers that are told of one by one: more than fail at once in a usual outage, with some hundred bytes for each figure.
const DESTINATIONS_MAX: usize = 1_000;

/// What is told of a server.
type Figure = (&'static str, fn(&DestinationStatus) -> u64);

const FIGURES: [Figure; 5] = [
    ("failures", |status| u64::from(status.failures)),
    ("last_success_seconds", |status| status.succeeded_ms / 1000),
    ("next_try_seconds", |status| status.retry_ms / 1000),
    ("rooms_waiting", |status| status.rooms_waiting as u64),
    ("messages_waiting", |status| u64::from(status.messages_waiting)),
];

/// How deliveries fare to servers that fail, or for which something waits; of the others there is nothing to tell. They
/// are written by hand, as the recorder would go on telling of those that are well again.
fn write_destinations(page: &mut String, mut destinations: Vec<DestinationStatus>) {
    destinations
        .retain(|status| status.failures > 0 || status.rooms_waiting > 0 || status.messages_waiting > 0);
    let failing = destinations.iter().filter(|status| status.failures > 0).count();
    // Those that fail are what an operator looks for, and of them those for which something waits.
    let is_idle = |status: &DestinationStatus| status.rooms_waiting == 0 && status.messages_waiting == 0;
    destinations.sort_by_key(|status| (status.failures == 0, is_idle(status)));
    page.push_str("# TYPE warren_federation_destinations_failing gauge\n");
    page.push_str(&format!("warren_federation_destinations_failing {failing}\n\n"));
    for (name, figure) in FIGURES {
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
    seconds: Histogram,
    by_status: RwLock<Vec<(u16, Counter)>>,
}

impl Meter {
    pub fn new(method: &Method, route: &'static str) -> Meter {
        let method = method.to_string();
        let seconds = histogram!("warren_request_seconds", "method" => method.clone(), "route" => route);
        Meter { method, route, seconds, by_status: RwLock::default() }
    }

    /// Records an answered request.
    pub fn record(&self, status: u16, took: Duration) {
        self.seconds.record(took.as_secs_f64());
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
        .render(&call.ctx.engine)
        .ok_or_else(|| ApiError::not_found("Metrics are not served"))?;
    Ok(Answer::bytes(HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"), page.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn of_more_servers_than_are_told_those_are_that_fail() {
        // By their names, as the engine tells them.
        let all = [
            statuses("a", DESTINATIONS_MAX, 0, 1),
            statuses("b", DESTINATIONS_MAX - 1, 1, 0),
            statuses("c", 5, 0, 0),
            statuses("d", 2, 1, 1),
        ];
        let mut page = String::new();
        write_destinations(&mut page, all.concat());
        let told = |word: &str| {
            let start = format!("warren_federation_destination_failures{{destination=\"{word}");
            page.lines().filter(|line| line.starts_with(&start)).count()
        };
        assert_eq!(["a", "b", "c", "d"].map(told), [0, DESTINATIONS_MAX - 2, 0, 2]);
        assert!(page.contains(&format!("warren_federation_destinations_failing {}\n", DESTINATIONS_MAX + 1)));
    }
}
