//! No answer to a send before a sync to disk that began after its request came: seen from outside, in the server's own
//! system calls, as `strace` writes them down.
//!
//! The trace is read in its order: a request counts as come when the call that read it has returned, a sync as begun
//! when its call is entered and as done when it has returned, an answer as given when the call that writes it is entered.
//! That is the weakest claim that must hold of every acknowledgement. Tracing slows the server, so nothing is timed here.

use std::collections::HashMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::sends::{Sender, lone_sender, senders_with_rooms};
use crate::context::{Context, Figure};
use crate::error::{Error, Result};
use crate::load::{Bounds, closed};
use crate::peers::signal;

/// The calls by which a server reads requests, writes answers and syncs files.
const CALLS: &str =
    "trace=read,readv,recvfrom,recvmsg,write,writev,sendto,sendmsg,fsync,fdatasync,sync_file_range,msync";
/// Sends under each trace: enough for every interleaving to occur, few enough for a trace of some megabytes.
const SENDS: u64 = 2_000;
/// The tracer writes its file when it has attached; it must have by then.
const ATTACH_MAX: Duration = Duration::from_secs(10);

/// What a trace shows.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    sends: u64,
    early: u64,
    syncs: u64,
}

/// Takes the counts under one sender and under 64.
pub async fn run(ctx: &mut Context) -> Result<()> {
    let lone = traced(ctx, vec![lone_sender(ctx).await?]).await?;
    ctx.take(Figure::new("early-answers-1", lone.early as f64).noting(lone.note()));
    let many = senders_with_rooms(ctx).await?;
    let many = traced(ctx, many).await?;
    ctx.take(Figure::new("early-answers-64", many.early as f64).noting(many.note()));
    ctx.take(Figure::new("sends-per-sync", many.sends as f64 / many.syncs.max(1) as f64));
    Ok(())
}

async fn traced(ctx: &Context, senders: Vec<Sender>) -> Result<Seen> {
    let running = ctx.running.as_ref().ok_or(Error::Needs("a server that the generator starts itself"))?;
    let file = running.data().with_file_name("system-calls.txt");
    let mut tracer = attach(running.pid(), &file).await?;
    let loaded = closed(senders, Bounds { count: SENDS, time: ctx.time * 10 }).await;
    signal(tracer.id(), "INT")?;
    tracer.wait().map_err(Error::system("wait for strace"))?;
    let (_, outcome) = loaded?;
    let trace = std::fs::read_to_string(&file).map_err(Error::system(format!("read {}", file.display())))?;
    let seen = examine(&trace);
    if outcome.done == 0 || seen.sends < outcome.done {
        let (seen, done) = (seen.sends, outcome.done);
        return Err(Error::Implausible(format!("the trace shows only {seen} sends of {done}")));
    }
    Ok(seen)
}

/// Starts the tracer and waits until the server is traced.
async fn attach(pid: u32, file: &Path) -> Result<Child> {
    let tracer = Command::new("strace")
        .args(["-f", "-qq", "-s", "24", "-y", "-e", CALLS, "-p"])
        .arg(pid.to_string())
        .arg("-o")
        .arg(file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(Error::system("start strace (Debian: apt-get install strace)"))?;
    let begun = Instant::now();
    while begun.elapsed() < ATTACH_MAX {
        if every_thread_traced(pid) {
            return Ok(tracer);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Err(Error::Implausible("strace could not attach to the server".to_owned()))
}

fn every_thread_traced(pid: u32) -> bool {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    threads.flatten().all(|thread| {
        let status = std::fs::read_to_string(thread.path().join("status")).unwrap_or_default();
        // A thread that has just ended has no status, and nothing to trace.
        status.is_empty()
            || status.lines().any(|line| line.starts_with("TracerPid:") && !line.ends_with("\t0"))
    })
}

/// Reads a trace; see the module.
fn examine(trace: &str) -> Seen {
    let mut seen = Seen::default();
    // Calls entered and not yet returned: thread → (call, its first argument, when entered).
    let mut entered: HashMap<&str, (&str, &str, usize)> = HashMap::new();
    // Sends whose answer is due: socket → when the request had come.
    let mut due: HashMap<&str, usize> = HashMap::new();
    let mut last_sync_begun = None;
    for (moment, line) in trace.lines().enumerate() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let rest = rest.trim_start();
        let returned = !rest.ends_with("<unfinished ...>");
        let (call, descriptor, begun, is_entry) = match rest.strip_prefix("<... ") {
            Some(resumed) => {
                let call = resumed.split(' ').next().unwrap_or_default();
                let Some((_, descriptor, begun)) = entered.remove(thread) else { continue };
                (call, descriptor, begun, false)
            }
            None => {
                let Some((call, arguments)) = rest.split_once('(') else { continue };
                let end = arguments.find([',', ')']).unwrap_or(arguments.len());
                let descriptor =
                    arguments.get(..end).unwrap_or_default().trim_end_matches(" <unfinished ...>");
                (call, descriptor, moment, true)
            }
        };
        if !returned {
            entered.insert(thread, (call, descriptor, begun));
        }
        match call {
            "fsync" | "fdatasync" | "sync_file_range" | "msync" if returned => {
                seen.syncs += 1;
                last_sync_begun = last_sync_begun.max(Some(begun));
            }
            "read" | "readv" | "recvfrom" | "recvmsg" if returned && rest.contains("\"PUT /_matrix/") => {
                due.insert(descriptor, moment);
            }
            "write" | "writev" | "sendto" | "sendmsg" if is_entry && rest.contains("\"HTTP/1.1 200") => {
                if let Some(come) = due.remove(descriptor) {
                    seen.sends += 1;
                    seen.early += u64::from(last_sync_begun.is_none_or(|begun| begun < come));
                }
            }
            _ => {}
        }
    }
    seen
}

impl Seen {
    fn note(&self) -> String {
        format!("{} sends, {} syncs to disk", self.sends, self.syncs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(trace: &[&str], sends: u64, early: u64, syncs: u64) {
        assert_eq!(examine(&trace.join("\n")), Seen { sends, early, syncs });
    }

    const ASKED: &str =
        r#"11 recvfrom(9<socket:[5]>, "PUT /_matrix/client/v3/r"..., 8192, 0, NULL, NULL) = 300"#;
    const SYNCED: &str = "12 fdatasync(7</data/000004.log>) = 0";
    const ANSWERED: &str =
        r#"11 writev(9<socket:[5]>, [{iov_base="HTTP/1.1 200 OK\r\nconten"..., iov_len=120}], 1) = 120"#;

    #[test]
    fn a_sync_between_request_and_answer_is_in_time() {
        check(&[ASKED, SYNCED, ANSWERED], 1, 0, 1);
    }

    #[test]
    fn a_sync_before_the_request_or_after_the_answer_is_none() {
        check(&[SYNCED, ASKED, ANSWERED], 1, 1, 1);
        check(&[ASKED, ANSWERED, SYNCED], 1, 1, 1);
    }

    #[test]
    fn a_sync_must_begin_after_the_request_and_end_before_the_answer() {
        let begins = "12 fdatasync(7</data/000004.log> <unfinished ...>";
        let ends = "12 <... fdatasync resumed>) = 0";
        check(&[begins, ASKED, ends, ANSWERED], 1, 1, 1);
        check(&[ASKED, begins, ANSWERED, ends], 1, 1, 1);
        check(&[ASKED, begins, ends, ANSWERED], 1, 0, 1);
    }

    #[test]
    fn calls_that_were_interrupted_keep_their_socket() {
        let asks = "11 recvfrom(9<socket:[5]>,  <unfinished ...>";
        let asked = r#"11 <... recvfrom resumed>"PUT /_matrix/client/v3/r"..., 8192, 0, NULL, NULL) = 300"#;
        let answers =
            r#"11 sendto(9<socket:[5]>, "HTTP/1.1 200 OK\r\nconten"..., 120, 0, NULL, 0 <unfinished ...>"#;
        let answered = "11 <... sendto resumed>) = 120";
        check(&[asks, asked, SYNCED, answers, answered], 1, 0, 1);
        check(&[asks, SYNCED, asked, answers, answered], 1, 1, 1);
    }

    #[test]
    fn one_sync_may_serve_many() {
        let other_asked = ASKED.replace("9<socket:[5]>", "10<socket:[6]>");
        let other_answered = ANSWERED.replace("9<socket:[5]>", "10<socket:[6]>");
        check(&[ASKED, &other_asked, SYNCED, ANSWERED, &other_answered], 2, 0, 1);
        check(&[ASKED, SYNCED, &other_asked, ANSWERED, &other_answered], 2, 1, 1);
    }

    #[test]
    fn other_traffic_is_passed_over() {
        let got = ASKED.replace("PUT", "GET");
        check(&[&got, ANSWERED], 0, 0, 0);
        check(&["", "11", "11 +++ exited with 0 +++", "11 <... read resumed>) = 0"], 0, 0, 0);
    }
}
