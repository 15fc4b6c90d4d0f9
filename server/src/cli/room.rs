//! `warren room …`: rooms without a running server, straight in the database.
//!
//! A purge is done in many small steps, each of which is on the disk when it is over. So it may be interrupted at any time,
//! by Ctrl-C or a power cut, and the same command goes on with it; so does the server, when it runs.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use warren_engine::command::{PurgeBefore, PurgeHistory, PurgeRoom, StepPurge};
use warren_engine::view::OlderThan;
use warren_engine::{Conflict, Engine, Error, PurgeProgress, What};

use crate::config::Config;

/// How often it is said how far a purge is.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// What to do with a room.
#[derive(Debug, PartialEq, Eq)]
pub enum RoomCommand {
    Purge { room_id: String, force: bool },
    PurgeHistory { room_id: String, before: Before },
}

/// Up to where a history goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Before {
    /// Up to the first event that is not older, in milliseconds since the epoch.
    Time(u64),
    /// Up to this event.
    Event(String),
}

impl std::str::FromStr for Before {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with('$') {
            return Ok(Self::Event(text.to_owned()));
        }
        let time =
            text.parse().map_err(|_| "it must be milliseconds since 1970, or the id of an event ($…)")?;
        Ok(Self::Time(time))
    }
}

/// Does it, and gives what is to be printed. Errors: a sentence; the server is running, for instance.
pub fn run(config: Config, command: RoomCommand) -> Result<String, String> {
    let (_lock, engine) = super::open_existing(&config)?;
    let engine = Arc::new(engine);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let done = runtime.block_on(async {
        let mut purge = Running {
            engine,
            interrupted: Box::pin(async { drop(tokio::signal::ctrl_c().await) }),
            told: Instant::now(),
        };
        match command {
            RoomCommand::Purge { room_id, force } => purge.room(&room_id, force).await,
            RoomCommand::PurgeHistory { room_id, before } => purge.history(&room_id, before).await,
        }
    });
    // What of the disk is still being freed must not hold up the end.
    runtime.shutdown_background();
    done
}

/// A purge under way.
struct Running {
    engine: Arc<Engine>,
    interrupted: Pin<Box<dyn Future<Output = ()>>>,
    /// When it was last said how far it is.
    told: Instant,
}

impl Running {
    async fn room(&mut self, room_id: &str, force: bool) -> Result<String, String> {
        let begin = PurgeRoom { room_id: room_id.to_owned(), force };
        let first = self.engine.write(begin).await.map_err(|error| match error {
            Error::Conflict(Conflict::LocalMembers) => {
                format!("{error}; with --force the room is removed all the same")
            }
            error => said(&error, room_id),
        })?;
        let events = self.finish(room_id, Some(first)).await?;
        Ok(format!("{room_id} is removed, with {events} events\n"))
    }

    async fn history(&mut self, room_id: &str, before: Before) -> Result<String, String> {
        let mut events = 0;
        let first = loop {
            // The place is looked for anew after another purge.
            let before = match &before {
                Before::Event(event_id) => PurgeBefore::Event(event_id.clone()),
                Before::Time(ts) => {
                    let older = OlderThan { room_id: room_id.to_owned(), ts: *ts };
                    let position = self.engine.read(&older).map_err(|error| said(&error, room_id))?;
                    PurgeBefore::Position(position)
                }
            };
            match self.engine.write(PurgeHistory { room_id: room_id.to_owned(), before }).await {
                Ok(first) => break first,
                Err(Error::Conflict(Conflict::PurgeRunning)) => {
                    super::tell("going on with the purge that was begun");
                    events += self.finish(room_id, None).await?;
                }
                Err(error) => return Err(said(&error, room_id)),
            }
        };
        events += self.finish(room_id, Some(first)).await?;
        Ok(format!("{events} events of {room_id} are removed; its state stays\n"))
    }

    /// Goes on to the end. Returns how many events were removed.
    async fn finish(&mut self, room_id: &str, mut last: Option<PurgeProgress>) -> Result<u64, String> {
        self.tell(last.as_ref());
        let freed = loop {
            let step = StepPurge::after(room_id, last.as_ref());
            let progress = tokio::select! {
                biased;
                () = &mut self.interrupted => {
                    return Err("interrupted; the same command goes on, and so does the server when it runs".into());
                }
                progress = self.engine.write(step) => progress.map_err(|error| said(&error, room_id))?,
            };
            if self.told.elapsed() >= PROGRESS_EVERY {
                self.tell(Some(&progress));
            }
            let freed = progress.freed;
            last = Some(progress);
            match freed {
                Some(freed) => break freed,
                // Signals are looked for while nothing else is ready.
                None => tokio::task::yield_now().await,
            }
        };
        super::tell("giving back what it took of the disk");
        let engine = self.engine.clone();
        let freeing = tokio::task::spawn_blocking(move || engine.free_disk(&freed));
        tokio::select! {
            biased;
            () = &mut self.interrupted => {
                return Err("interrupted; all is removed, and the disk is given back by and by".into());
            }
            done = freeing => done.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?,
        }
        Ok(last.map_or(0, |last| last.done))
    }

    fn tell(&mut self, progress: Option<&PurgeProgress>) {
        self.told = Instant::now();
        if let Some(PurgeProgress { done, estimate, .. }) = progress {
            super::tell(&format!("{done} of about {estimate} events"));
        }
    }
}

fn said(error: &Error, room_id: &str) -> String {
    match error {
        Error::NotFound(What::Room) => format!("there is no room {room_id}"),
        error => error.to_string(),
    }
}
