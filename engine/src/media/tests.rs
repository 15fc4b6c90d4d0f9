//! Media ids through the engine's door: made once, filled once, expiring, counted.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use super::{PENDING_MS_MAX, PENDING_PER_USER_MAX};
use crate::{
    Clock, Committer, Conflict, Denied, Engine, Error, Options, What,
    command::{CreateMedia, NoteMediaAccess, StoreMedia},
    store::{Memory, schema::MediaFile},
    view::{Media, PendingMedia},
};

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// A clock that the test moves.
struct Hand(AtomicU64);

impl Clock for Hand {
    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

struct Server {
    engine: Engine,
    clock: Arc<Hand>,
}

impl Server {
    fn new() -> Server {
        let clock = Arc::new(Hand(AtomicU64::new(1_700_000_000_000)));
        let mut options = Options::new("example.org");
        options.clock = clock.clone();
        options.committer = Committer::Inline;
        let engine = Engine::open(Arc::new(Memory::default()), options).unwrap();
        Server { engine, clock }
    }

    fn create(&self, user_id: &str) -> Result<String, Error> {
        let created = self.engine.write(CreateMedia { user_id: user_id.into() }).wait()?;
        assert_eq!(created.unused_expires_at, self.clock.now_ms() + PENDING_MS_MAX);
        Ok(created.media_id)
    }

    fn store(&self, user_id: &str, media_id: Option<&str>) -> Result<String, Error> {
        let media_id = media_id.map(str::to_owned);
        self.engine.write(StoreMedia { user_id: user_id.into(), media_id, file: file() }).wait()
    }

    fn pending(&self, user_id: &str, media_id: &str) -> Result<(), Error> {
        self.engine.read(&PendingMedia { media_id: media_id.into(), user_id: user_id.into() })
    }

    fn found(&self, media_id: &str) -> Result<(Option<MediaFile>, bool), Error> {
        let found = self.engine.read(&Media { media_id: media_id.into() })?;
        Ok((found.file, found.is_first_access_today))
    }

    fn pass(&self, ms: u64) {
        self.clock.0.fetch_add(ms, Ordering::Relaxed);
    }
}

fn file() -> MediaFile {
    MediaFile {
        sha256: [7; 32],
        size: 3,
        content_type: Some("image/png".into()),
        file_name: Some("a \"b\".png".into()),
        authenticated_only: false,
    }
}

#[test]
fn an_upload_is_found_under_its_id() {
    let server = Server::new();
    let media_id = server.store("@alice:example.org", None).unwrap();
    assert!(media_id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)), "{media_id}");
    assert_eq!(server.found(&media_id).unwrap().0, Some(file()));
    assert_ne!(server.store("@alice:example.org", None).unwrap(), media_id);
    assert!(matches!(server.found("other"), Err(Error::NotFound(What::Media))));
}

#[test]
fn a_created_id_is_filled_once_and_by_its_maker() {
    let server = Server::new();
    let media_id = server.create("@alice:example.org").unwrap();
    assert_eq!(server.found(&media_id).unwrap().0, None);
    assert!(server.pending("@alice:example.org", &media_id).is_ok());
    assert!(matches!(server.pending("@nobody:example.org", &media_id), Err(Error::Denied(Denied::NotYours))));
    let stolen = server.store("@mallory:example.org", Some(&media_id));
    assert!(matches!(stolen, Err(Error::Denied(Denied::NotYours))));
    assert_eq!(server.store("@alice:example.org", Some(&media_id)).unwrap(), media_id);
    assert_eq!(server.found(&media_id).unwrap().0, Some(file()));
    let again = server.store("@alice:example.org", Some(&media_id));
    assert!(matches!(again, Err(Error::Conflict(Conflict::MediaExists))));
    let unknown = server.store("@alice:example.org", Some("never-made"));
    assert!(matches!(unknown, Err(Error::NotFound(What::Media))));
}

#[test]
fn a_created_id_expires() {
    let server = Server::new();
    let media_id = server.create("@alice:example.org").unwrap();
    server.pass(PENDING_MS_MAX - 1);
    assert!(server.pending("@alice:example.org", &media_id).is_ok());
    server.pass(1);
    assert!(matches!(server.found(&media_id), Err(Error::NotFound(What::Media))));
    let late = server.store("@alice:example.org", Some(&media_id));
    assert!(matches!(late, Err(Error::NotFound(What::Media))));
}

#[test]
fn pending_ids_are_limited_and_make_room_when_filled_or_expired() {
    let server = Server::new();
    let ids: Vec<String> =
        (0..PENDING_PER_USER_MAX).map(|_| server.create("@alice:example.org").unwrap()).collect();
    server.pass(1000);
    match server.create("@alice:example.org") {
        Err(Error::Denied(Denied::PendingMedia { retry_after_ms })) => {
            assert_eq!(retry_after_ms, PENDING_MS_MAX - 1000);
        }
        other => panic!("{other:?}"),
    }
    assert!(server.create("@bob:example.org").is_ok(), "others are not concerned");
    server.store("@alice:example.org", Some(&ids[0])).unwrap();
    server.create("@alice:example.org").unwrap();
    assert!(server.create("@alice:example.org").is_err());
    server.pass(PENDING_MS_MAX - 1000);
    server.create("@alice:example.org").unwrap();
    assert_eq!(server.found(&ids[0]).unwrap().0, Some(file()), "what was uploaded does not expire");
}

#[test]
fn access_is_noted_once_a_day() {
    let server = Server::new();
    let pending = server.create("@alice:example.org").unwrap();
    assert!(!server.found(&pending).unwrap().1, "there is nothing to note of an empty id");
    let media_id = server.store("@alice:example.org", None).unwrap();
    assert!(server.found(&media_id).unwrap().1);
    server.engine.write(NoteMediaAccess { media_id: media_id.clone() }).wait().unwrap();
    assert!(!server.found(&media_id).unwrap().1);
    server.pass(DAY_MS);
    assert!(server.found(&media_id).unwrap().1);
}
