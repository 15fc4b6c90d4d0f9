//! Raw limits of the machine, measured in the same run as the servers: what no server on it can beat.

use std::fs::File;
use std::hint::black_box;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde_json::Value;

use crate::client::{Address, Connection};
use crate::error::{Error, Result};
use crate::histogram::{Histogram, milliseconds};
use crate::load::{Bounds, Worker, closed};

/// Each limit is measured for this long.
const TIME: Duration = Duration::from_secs(1);
/// What one append writes.
const APPEND_BYTES: usize = 4_096;
/// Connections of the HTTP limit.
const CONNECTIONS: usize = 64;
/// An event as it goes between servers, of ordinary size.
const EVENT: &str = r#"{"auth_events":["$6Q8q5bq1hYqYzF1nC1yqkq0o1eO0lN7m4vQm5mJr8aE","$Hf3r5Q2bqXw1yB9d0nC7eL4mT6uV8sA1kJ3hG5fD7wQ","$pL9oK8iJ7uH6yG5tF4rD3eS2wA1qZ0xC9vB8nM7lK6j"],"content":{"body":"The quick brown fox jumps over the lazy dog, and the dog does not mind at all.","msgtype":"m.text"},"depth":1234,"hashes":{"sha256":"x1Jm3yJ6b3w0pQm2oT9uV4cR7aE5kL8hG1fD6sZ0iNc"},"origin_server_ts":1700000000000,"prev_events":["$aB1cD2eF3gH4iJ5kL6mN7oP8qR9sT0uV1wX2yZ3aB4c"],"room_id":"!aBcDeFgHiJkLmNoPqR:localhost","sender":"@alice:localhost","type":"m.room.message","unsigned":{"age":12},"signatures":{"localhost":{"ed25519:1":"q8Qm5mJr8aEx1Jm3yJ6b3w0pQm2oT9uV4cR7aE5kL8hG1fD6sZ0iNcHf3r5Q2bqXw1yB9d0nC7eL4mT6uV8sA"}}}"#;

/// The limits.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// Processors.
    pub processors: usize,
    /// Their model.
    pub model: String,
    /// p50 of a 4 KiB append with `fdatasync`, in milliseconds, on the disk that the servers use.
    pub append_sync_ms: f64,
    /// Requests per second of an HTTP server that says hello, 64 connections, generator on the same processors.
    pub hello_per_s: f64,
    /// Ed25519 signatures of one event per second, one thread.
    pub sign_per_s: f64,
    /// SHA-256 hashes of one event per second, one thread.
    pub hash_per_s: f64,
    /// Events parsed from JSON per second, one thread.
    pub parse_per_s: f64,
}

/// Measures all of them; `folder` is on the disk that the servers use.
pub async fn measure(folder: &Path) -> Result<Machine> {
    let key = ring::signature::Ed25519KeyPair::from_seed_unchecked(&[7; 32])
        .map_err(|_| Error::Implausible("a fixed seed was refused as a signing key".to_owned()))?;
    Ok(Machine {
        processors: std::thread::available_parallelism().map_or(1, usize::from),
        model: model(),
        append_sync_ms: append_sync(folder, Duration::ZERO)?,
        hello_per_s: hello().await?,
        sign_per_s: per_second(|| {
            black_box(key.sign(black_box(EVENT.as_bytes())));
        }),
        hash_per_s: per_second(|| {
            black_box(ring::digest::digest(&ring::digest::SHA256, black_box(EVENT.as_bytes())));
        }),
        parse_per_s: per_second(|| drop(black_box(serde_json::from_str::<Value>(black_box(EVENT))))),
    })
}

/// p50 in milliseconds of a 4 KiB append with `fdatasync` in `folder`, each after a pause: a disk and a processor that had
/// nothing to do take several times as long as busy ones.
pub fn append_sync(folder: &Path, pause: Duration) -> Result<f64> {
    let path = folder.join("append-sync");
    let failed = || Error::system(format!("append to {}", path.display()));
    let mut file = File::create(&path).map_err(failed())?;
    let block = [0x5a; APPEND_BYTES];
    let mut latencies = Histogram::default();
    let begun = Instant::now();
    while begun.elapsed() < TIME {
        std::thread::sleep(pause);
        let appended = Instant::now();
        file.write_all(&block).and_then(|()| file.sync_data()).map_err(failed())?;
        latencies.record(appended.elapsed());
    }
    drop(file);
    std::fs::remove_file(&path).map_err(failed())?;
    Ok(milliseconds(latencies.percentile(0.5)))
}

/// How often per second one thread does something.
fn per_second(mut task: impl FnMut()) -> f64 {
    let begun = Instant::now();
    let mut times = 0_u64;
    while begun.elapsed() < TIME {
        for _ in 0..100 {
            task();
        }
        times += 100;
    }
    times as f64 / begun.elapsed().as_secs_f64()
}

struct Greeter(Connection);

impl Worker for Greeter {
    async fn step(&mut self) -> Result<()> {
        self.0.request(http::Method::GET, "/", bytes::Bytes::new()).await.map(drop)
    }
}

async fn hello() -> Result<f64> {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.map_err(Error::system("listen"))?;
    let address = listener.local_addr().map_err(Error::system("listen"))?;
    let accepting = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let greet = service_fn(|_| async {
                Ok::<_, std::convert::Infallible>(http::Response::new(Full::new(bytes::Bytes::from_static(
                    b"hello",
                ))))
            });
            tokio::spawn(
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), greet),
            );
        }
    });
    let address = Address::parse(&format!("http://{address}"))?;
    let greeters = (0..CONNECTIONS).map(|_| Greeter(Connection::new(&address, None))).collect();
    let (greeters, _) = closed(greeters, Bounds { count: u64::MAX, time: TIME / 4 }).await?;
    let (_, outcome) = closed(greeters, Bounds { count: u64::MAX, time: TIME }).await?;
    accepting.abort();
    Ok(outcome.rate())
}

fn model() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    line.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, model)| model.trim().to_owned())
}
