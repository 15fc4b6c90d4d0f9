//! The real binary over real sockets: what every request meets before it reaches a handler, and how the process
//! starts and stops. Endpoints have their tests elsewhere.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};

/// A running server on a port that the system chose.
struct Server {
    process: Child,
    log: BufReader<std::process::ChildStderr>,
    addresses: Vec<String>,
}

impl Server {
    /// Starts `warren serve` and reads its log until it listens on `listeners` addresses.
    fn start(data_dir: &Path, listeners: usize, arguments: &[&str]) -> Server {
        let mut process =
            warren(data_dir, arguments).stderr(Stdio::piped()).spawn().expect("the binary starts");
        let log = BufReader::new(process.stderr.take().expect("its log is piped"));
        let mut server = Server { process, log, addresses: Vec::new() };
        while server.addresses.len() < listeners {
            let mut line = String::new();
            let read = server.log.read_line(&mut line).expect("the log is text");
            assert!(read > 0, "the server ended at once");
            if let Some((_, address)) = line.split_once("listening address=") {
                server.addresses.push(address.trim().to_owned());
            }
        }
        server
    }

    fn connect(&self, listener: usize) -> TcpStream {
        let address = self.addresses[listener].trim_start_matches("http://").trim_start_matches("https://");
        TcpStream::connect(address).expect("it listens")
    }

    /// Sends a request and returns the whole answer, head and body.
    fn ask(&self, request: &str) -> String {
        ask(self.connect(0), request)
    }

    /// SIGTERM, and how the process ended.
    fn stop(mut self) -> (Option<i32>, Duration, String) {
        let start = Instant::now();
        let killed = Command::new("kill").arg(self.process.id().to_string()).status().expect("kill runs");
        assert!(killed.success());
        let status = self.process.wait().expect("it ends");
        let mut log = String::new();
        self.log.read_to_string(&mut log).expect("the log is text");
        (status.code(), start.elapsed(), log)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Already ended in tests that stop it themselves.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn warren(data_dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_warren"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("WARREN_")) {
        command.env_remove(name);
    }
    command.args(["serve", "--listen", "http://127.0.0.1:0", "--data-dir"]).arg(data_dir).args(arguments);
    command
}

fn ask(mut stream: impl Read + Write, request: &str) -> String {
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers and closes");
    answer
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or_default()
}

fn refused_start(data_dir: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let Output { status, stderr, .. } = warren(data_dir, arguments).output().expect("the binary runs");
    (status.code(), String::from_utf8(stderr).expect("text"))
}

#[test]
fn answers_with_codes_and_cross_origin_headers() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(folder.path(), 1, &[]);
    let versions = server.ask(&get("/_matrix/client/versions"));
    assert_eq!(status(&versions), "200");
    assert!(versions.contains("\"v1.19\""));
    let cases = [
        (get("/_matrix/client/v3/nothing"), "404", "M_UNRECOGNIZED"),
        (get("/_matrix/client/versions").replacen("GET", "POST", 1), "405", "M_UNRECOGNIZED"),
        (get("/_matrix/client/v3/capabilities"), "401", "M_MISSING_TOKEN"),
        (get("/_matrix/client/r0/capabilities?access_token=x"), "401", "M_UNKNOWN_TOKEN"),
        (get("/_matrix/client/v3/capabilities?access_token="), "401", "M_UNKNOWN_TOKEN"),
        (get("/_matrix/client/v3/capabilities?access_token=%ff"), "400", "M_INVALID_PARAM"),
        (get("/.well-known/matrix/server"), "404", "M_NOT_FOUND"),
    ];
    for (request, expected, errcode) in cases {
        let answer = server.ask(&request);
        assert_eq!(status(&answer), expected, "{request}");
        assert!(answer.contains(&format!("\"errcode\":\"{errcode}\"")), "{answer}");
        assert!(answer.contains("\r\naccess-control-allow-origin: *\r\n"), "{answer}");
    }
    let options = server.ask(&get("/_matrix/client/v3/anything").replacen("GET", "OPTIONS", 1));
    assert_eq!(status(&options), "204");
    assert!(options.contains("access-control-allow-methods: ") && options.contains("Authorization"));
}

#[test]
fn head_is_get_without_the_body() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(folder.path(), 1, &[]);
    let answer = server.ask(&get("/health").replacen("GET", "HEAD", 1));
    assert_eq!(status(&answer), "200");
    assert!(answer.ends_with("\r\n\r\n"));
}

#[test]
fn an_endless_head_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(folder.path(), 1, &[]);
    let mut stream = server.connect(0);
    let request = get("/health").replace("connection: close", &format!("x: {}", "y".repeat(60_000)));
    let mut answer = Vec::new();
    // The server closes without reading the rest, which may break off the writing, and the reading behind the answer.
    let _ = stream.write_all(request.as_bytes());
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer);
    assert_eq!(status(&answer), "431", "{answer}");
    assert_eq!(status(&server.ask(&get("/health"))), "200");
}

#[test]
fn a_listener_serves_what_it_names() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("socket");
    let row = format!("unix:{}#admin", socket.display());
    let server = Server::start(&folder.path().join("data"), 2, &["--listen", &row]);
    let by_socket = |path: &str| ask(UnixStream::connect(&socket).expect("it listens"), &get(path));
    assert_eq!(status(&by_socket("/health")), "200");
    assert_eq!(status(&by_socket("/_matrix/client/versions")), "404");
    assert_eq!(status(&server.ask(&get("/_matrix/client/versions"))), "200");
    let (code, _, log) = server.stop();
    assert_eq!(code, Some(0), "{log}");
    assert!(!socket.exists());
}

#[test]
fn https_with_the_configured_certificate() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| format!("{}/tests/tls/{name}", env!("CARGO_MANIFEST_DIR"));
    let (cert, key) = (file("one.cert.pem"), file("one.key.pem"));
    let arguments = ["--listen", "https://127.0.0.1:0", "--tls-cert", &cert, "--tls-key", &key];
    let server = Server::start(folder.path(), 2, &arguments);
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&cert).expect("a certificate")).expect("added");
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let listener =
        server.addresses.iter().position(|address| address.starts_with("https:")).expect("it listens");
    let name = ServerName::try_from("localhost").expect("a name");
    let session = rustls::ClientConnection::new(config.into(), name).expect("a session");
    let stream = rustls::StreamOwned::new(session, server.connect(listener));
    assert_eq!(status(&ask(stream, &get("/_matrix/client/versions"))), "200");
}

#[test]
fn stops_at_once_although_connections_are_open() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(folder.path(), 1, &[]);
    let mut kept_alive = server.connect(0);
    kept_alive.write_all(get("/health").replace("connection: close", "x: y").as_bytes()).expect("it reads");
    let mut first = [0; 12];
    kept_alive.read_exact(&mut first).expect("it answers");
    let silent = server.connect(0);
    let (code, took, log) = server.stop();
    assert_eq!(code, Some(0), "{log}");
    assert!(took < Duration::from_secs(5), "{took:?}");
    drop(silent);
}

#[test]
fn one_server_per_data_folder_and_port() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(folder.path(), 1, &[]);
    let (code, message) = refused_start(folder.path(), &[]);
    assert_eq!(code, Some(1));
    assert!(message.contains("another warren"), "{message}");
    let other = tempfile::tempdir().expect("a folder");
    let (code, message) = refused_start(other.path(), &["--listen", &server.addresses[0]]);
    assert_eq!(code, Some(1));
    assert!(message.contains("something else is listening"), "{message}");
}

#[test]
fn a_wrong_configuration_is_refused_with_its_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("warren.toml");
    std::fs::write(&file, "guests = \"off\"\nregistratoin = \"open\"\n").expect("written");
    let (code, message) = refused_start(folder.path(), &["--config", &file.to_string_lossy()]);
    assert_eq!(code, Some(1));
    assert!(
        message.contains("warren.toml, line 2") && message.contains("did you mean registration?"),
        "{message}"
    );
}

#[test]
fn metrics_are_served_where_they_are_asked_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(folder.path(), 2, &["--metrics-listen", "http://127.0.0.1:0"]);
    let pages: Vec<String> = (0..2).map(|listener| ask(server.connect(listener), &get("/metrics"))).collect();
    let page = pages.iter().find(|page| status(page) == "200").expect("one of the listeners");
    assert!(page.contains("process_resident_memory_bytes"));
    assert!(pages.iter().any(|page| status(page) == "404"), "not on the public listener");
}
