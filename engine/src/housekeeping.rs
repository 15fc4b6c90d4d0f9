//! What has to be done again and again while an engine is open: the table of chores, and whoever does those that are due.
//!
//! Invariant: nothing happens by itself. A host that has a thread to spare calls [`Housekeeping::tick`] on it; one that has
//! timers of its own drives each [`Chore`] with [`Housekeeping::run`], as Warren's server does.
//! Not here: what takes another server, or the host's own files. `docs/embedding.md` names it beside these.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use crate::{
    command::{
        DoubtDeviceLists, EndPresence, EndTyping, ForgetPresence, Prune, PruneProgress, SettlePresence,
        ShowSignedInvite, StepPurge, TryStore,
    },
    engine::Engine,
    error::{Denied, Error, Result},
    view::{
        GonePresences, OverdueInvite, OverdueInvites, Purges,
        federation::{DoubtfulDeviceLists, TakeEarlyPresence},
    },
};

/// How long a purge goes on at a time, so that those who use the rooms hardly notice it.
const PURGE_ROUND: Duration = Duration::from_millis(100);

/// As often as the embedded store itself looks whether a full disk has room again.
const LOOK_FOR_ROOM: Duration = Duration::from_secs(5);

/// Something that has to be done again and again.
pub struct Chore {
    /// What it is called in logs.
    pub name: &'static str,
    /// How long after the beginning of one round the next is due.
    pub every: Duration,
    round: fn(&Engine, &Remembered) -> Result<()>,
}

/// All chores.
pub const CHORES: &[Chore] = &[
    Chore { name: "typing", every: Duration::from_secs(1), round: end_typing },
    Chore { name: "presence", every: Duration::from_secs(2), round: settle_presence },
    Chore { name: "signed invites", every: Duration::from_secs(5), round: show_invites },
    Chore { name: "refused writes", every: LOOK_FOR_ROOM, round: try_store },
    Chore { name: "pruning", every: Duration::from_secs(5), round: prune },
    Chore { name: "purges", every: Duration::from_secs(1), round: purge },
    Chore { name: "restored lists", every: Duration::from_secs(1), round: doubt_lists },
];

/// What is remembered between the rounds: to be kept for as long as the engine is open.
#[derive(Default)]
pub struct Housekeeping {
    remembered: Remembered,
    /// When each is due; `None` at the beginning, when all are.
    due: [Option<Instant>; CHORES.len()],
}

/// What chores remember.
#[derive(Default)]
struct Remembered {
    pruning: Arc<PruneProgress>,
    /// The invites that are next to be shown: those that cannot be yet keep no others from it.
    invites: Mutex<OverdueInvites>,
    /// The lists that are doubted next.
    doubtful: Mutex<DoubtfulDeviceLists>,
}

impl Housekeeping {
    /// Does what is due, and answers how long nothing is due then. Each round takes some milliseconds, with a purge under way a
    /// tenth of a second; where nothing is to do, it costs nothing worth the name. What fails is logged, and tried again
    /// when it is due next.
    pub fn tick(&mut self, engine: &Engine) -> Duration {
        self.tick_at(engine, Instant::now())
    }

    fn tick_at(&mut self, engine: &Engine, now: Instant) -> Duration {
        let mut pause = Duration::MAX;
        for (chore, due) in CHORES.iter().zip(&mut self.due) {
            let mut next = due.unwrap_or(now);
            if next <= now {
                next = now + chore.every;
                // Before it is begun: should one fall, the others have their turn all the same.
                *due = Some(next);
                if let Err(error) = (chore.round)(engine, &self.remembered) {
                    tracing::warn!(chore = chore.name, %error, "a chore could not be done");
                }
            }
            pause = pause.min(next.saturating_duration_since(now));
        }
        pause
    }

    /// Does one round of a chore. What is only written is not waited for, and whether it is refused is nobody's concern.
    ///
    /// Errors: those of the store.
    pub fn run(&self, engine: &Engine, chore: &Chore) -> Result<()> {
        (chore.round)(engine, &self.remembered)
    }
}

fn end_typing(engine: &Engine, _: &Remembered) -> Result<()> {
    drop(engine.write(EndTyping));
    Ok(())
}

fn settle_presence(engine: &Engine, _: &Remembered) -> Result<()> {
    drop(engine.write(EndPresence));
    for user_id in engine.read(&GonePresences)? {
        drop(engine.write(ForgetPresence { user_id }));
    }
    let early = engine.read(&TakeEarlyPresence)?;
    if !early.is_empty() {
        drop(engine.write(SettlePresence { early }));
    }
    Ok(())
}

fn show_invites(engine: &Engine, remembered: &Remembered) -> Result<()> {
    let overdue = *remembered.invites.lock();
    let overdue = engine.read(&overdue)?;
    *remembered.invites.lock() = overdue.next;
    // Of whose invites a user has too many waiting, no other can be shown either.
    let mut refused = HashSet::new();
    for OverdueInvite { room_id, user_id, sender } in overdue.invites {
        let pair = (user_id.clone(), sender);
        if refused.contains(&pair) {
            continue;
        }
        let shown = engine.write(ShowSignedInvite { room_id, user_id });
        if matches!(shown.refusal(), Some(Error::Denied(Denied::TooManyInvites))) {
            refused.insert(pair);
        }
    }
    Ok(())
}

/// Nobody might write who would find out.
fn try_store(engine: &Engine, _: &Remembered) -> Result<()> {
    if !engine.takes_writes() {
        drop(engine.write(TryStore));
    }
    Ok(())
}

fn prune(engine: &Engine, remembered: &Remembered) -> Result<()> {
    drop(engine.write(Prune { progress: remembered.pruning.clone() }));
    Ok(())
}

/// Goes on with purges that were begun and interrupted.
fn purge(engine: &Engine, _: &Remembered) -> Result<()> {
    let running = engine.read(&Purges)?;
    let mut done = Ok(());
    if !running.is_empty() {
        engine.run_apart(&mut || {
            done = running.iter().try_for_each(|(room_id, _)| purge_for_a_while(engine, room_id));
        });
    }
    done
}

fn purge_for_a_while(engine: &Engine, room_id: &str) -> Result<()> {
    let start = Instant::now();
    let mut last = None;
    while start.elapsed() < PURGE_ROUND {
        let progress = engine.write(StepPurge::after(room_id, last.as_ref())).wait()?;
        if let Some(freed) = &progress.freed {
            engine.free_disk(freed)?;
            tracing::info!(%room_id, events = progress.done, "a purge that was interrupted is over");
            break;
        }
        last = Some(progress);
    }
    Ok(())
}

/// Has the devices of other servers' users asked for anew where clients say that the database was restored from a copy.
fn doubt_lists(engine: &Engine, remembered: &Remembered) -> Result<()> {
    // What is refused now is done when the disk has room again.
    if !engine.takes_writes() {
        return Ok(());
    }
    let doubtful = *remembered.doubtful.lock();
    let found = engine.read(&doubtful)?;
    if !found.user_ids.is_empty() {
        let doubt = DoubtDeviceLists { user_ids: found.user_ids };
        let mut done = Ok(());
        engine.run_apart(&mut || done = engine.write(doubt.clone()).wait());
        done?;
    }
    *remembered.doubtful.lock() = found.next;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        command::{PurgeRoom, SetTyping},
        core::num::StreamPos,
        fixture::World,
        room::typing,
    };

    const ROOM: &str = "!room:here.example";
    const ALICE: &str = "@alice:here.example";

    #[test]
    fn what_is_due_is_done_and_nothing_else() {
        let (world, start) = (World::new(), Instant::now());
        let mut house = Housekeeping::default();
        let shortest = CHORES.iter().map(|chore| chore.every).min().unwrap();
        assert_eq!(house.tick_at(&world.engine, start), shortest);
        assert!(CHORES.iter().zip(house.due).all(|(chore, due)| due == Some(start + chore.every)));
        let half = shortest / 2;
        assert_eq!(house.tick_at(&world.engine, start + half), shortest - half);
        let second = start + shortest;
        house.tick_at(&world.engine, second);
        for (chore, due) in CHORES.iter().zip(house.due) {
            let begun = if chore.every == shortest { second } else { start };
            assert_eq!(due, Some(begun + chore.every), "{}", chore.name);
        }
    }

    #[test]
    fn typing_ends_and_a_purge_that_was_begun_comes_to_its_end() {
        let world = World::new();
        world.room(ROOM, ALICE, None);
        let set = SetTyping { room_id: ROOM.into(), user: ALICE.into(), typing: true, timeout_ms: Some(1) };
        world.engine.write(set).wait().unwrap();
        let types = || {
            let told = world
                .ask(|reader| Ok(typing::since(reader, reader.room_num(ROOM)?.unwrap(), StreamPos::ZERO)?));
            told.is_some()
        };
        assert!(types());
        world.pass_ms(1);
        let mut house = Housekeeping::default();
        house.tick(&world.engine);
        assert!(!types());
        world.engine.write(PurgeRoom { room_id: ROOM.into(), force: true }).wait().unwrap();
        assert_eq!(world.engine.read(&Purges).unwrap().len(), 1);
        let purges = CHORES.iter().find(|chore| chore.name == "purges").unwrap();
        while !world.engine.read(&Purges).unwrap().is_empty() {
            house.run(&world.engine, purges).unwrap();
        }
    }
}
