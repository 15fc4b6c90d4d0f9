//! Users say how present they are, their devices show it by syncing, time passes, and this server comes into rooms of users of
//! whom it was told before. But for what users say about it, and that they came or went, nothing is written: how present they are
//! is known in memory only.
//!
//! Specification: client-server API, "Presence".

use crate::{
    account::{presence, users},
    command::{Command, Lanes},
    error::Result,
    store::{Tx, schema::PresenceState},
    stream::{EarlyPresence, PresenceChange},
};

/// `PUT /presence/{userId}/status`.
pub struct SetPresence {
    /// The user's id.
    pub user: String,
    /// The device that says so.
    pub device: Option<String>,
    /// How present.
    pub state: PresenceState,
    /// What the user says about it; empty for nothing.
    pub status_msg: String,
}

impl Command for SetPresence {
    type Output = ();

    fn lanes(&self) -> Lanes {
        Lanes::default().user(&self.user)
    }

    fn run(&self, tx: &mut Tx) -> Result<()> {
        let (user, _) = users::active(tx, &self.user)?;
        let claim = presence::claim(tx, self.device.as_deref(), self.state, 0);
        presence::say(tx, user, claim, self.status_msg.clone())
    }
}

/// A device syncs, by which its user is present. To be run when the view `IsPresent` says that this is news.
pub struct ShowPresence {
    /// The user's id.
    pub user_id: String,
    /// The device.
    pub device: Option<String>,
    /// How present the device says that its user is.
    pub state: PresenceState,
    /// How long the sync may last, in milliseconds.
    pub hold_ms: u64,
}

impl Command for ShowPresence {
    type Output = ();

    fn lanes(&self) -> Lanes {
        Lanes::default().user(&self.user_id)
    }

    fn run(&self, tx: &mut Tx) -> Result<()> {
        let Some(user) = tx.user_num(&self.user_id)? else { return Ok(()) };
        let claim = presence::claim(tx, self.device.as_deref(), self.state, self.hold_ms);
        presence::touch(tx, user, PresenceChange::Synced(claim))
    }
}

/// How many of those who were there before a restart are taken up at once: each costs a look at their rooms.
const RESTORED_MAX: usize = 500;

/// Ends the presence of those whose time is over, so that the others are told; and tells other servers again of those who stay
/// as they are, which they forget else. After a restart those who were there have half a minute to come back. To be run every two
/// seconds.
pub struct EndPresence;

impl Command for EndPresence {
    type Output = ();

    fn lanes(&self) -> Lanes {
        // It removes no row: whoever comes back meanwhile has theirs.
        Lanes::none()
    }

    fn run(&self, tx: &mut Tx) -> Result<()> {
        presence::restore(tx, RESTORED_MAX)?;
        let now_ms = tx.shared.clock.now_ms();
        for user in tx.shared.watch.presences.overdue(now_ms) {
            presence::touch(tx, user, PresenceChange::Passed)?;
        }
        let unrepeated = tx.shared.watch.presences.unrepeated(now_ms);
        if !unrepeated.is_empty() {
            // One for all of them: without any, nothing would be noted.
            tx.next_position();
        }
        for user in unrepeated {
            presence::repeat(tx, user);
        }
        Ok(())
    }
}

/// A user went whom [`crate::view::GonePresences`] names: it is not stored any longer that they are there, unless they come back.
pub struct ForgetPresence {
    /// The user's id.
    pub user_id: String,
}

impl Command for ForgetPresence {
    type Output = ();

    fn lanes(&self) -> Lanes {
        Lanes::default().user(&self.user_id)
    }

    fn run(&self, tx: &mut Tx) -> Result<()> {
        if let Some(user) = tx.user_num(&self.user_id)? {
            presence::forget(tx, user);
        }
        Ok(())
    }
}

/// Shows how present users of other servers are, of whom these told before it was known that they share a room with this one.
pub struct SettlePresence {
    /// What they told ([`crate::view::federation::TakeEarlyPresence`]).
    pub early: Vec<EarlyPresence>,
}

impl Command for SettlePresence {
    type Output = ();

    fn lanes(&self) -> Lanes {
        self.early.iter().fold(Lanes::default(), |lanes, early| lanes.user(&early.user_id))
    }

    fn run(&self, tx: &mut Tx) -> Result<()> {
        for EarlyPresence { user_id, claim, activity, text, .. } in &self.early {
            let Some(user) = tx.user_num(user_id)? else { continue };
            if tx.is_neighbour(user, None)? && !tx.shared.watch.presences.is_told_since(user, *claim) {
                presence::tell(tx, user, *claim, *activity, text.clone())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    };

    use super::*;
    use crate::{
        fixture::{
            World,
            observed::{Observed, Observer},
        },
        housekeeping::{CHORES, Housekeeping},
        store::{Backend, Change, Durability, Memory, StorageError, schema, schema::Account},
        view::GonePresences,
    };

    const ALICE: &str = "@alice:here.example";
    const BOB: &str = "@bob:here.example";

    /// Refuses what is to be stored while it is set.
    #[derive(Default)]
    struct Full(AtomicBool);

    impl Observer for Full {
        fn commit(
            &self,
            store: &dyn Backend,
            changes: &[Change],
            durability: Durability,
        ) -> Result<(), StorageError> {
            match self.0.load(Ordering::Relaxed) {
                true => Err(StorageError::Io("there is no room".into())),
                false => store.commit(changes, durability),
            }
        }
    }

    /// Alice and Bob in a room.
    fn neighbours(world: World) -> World {
        for user_id in [ALICE, BOB] {
            let have_account = |tx: &mut Tx| {
                let user = tx.intern_user(user_id)?;
                users::put(tx, user, &Account::default());
                Ok(())
            };
            world.act(have_account).unwrap();
        }
        world.room("!both:here.example", ALICE, None);
        world.join("!both:here.example", BOB);
        world
    }

    fn set(world: &World, state: PresenceState) {
        let set = SetPresence { user: ALICE.into(), device: None, state, status_msg: String::new() };
        world.engine.write(set).wait().unwrap();
    }

    /// Whether it is stored that Alice is there.
    fn is_kept(world: &World) -> bool {
        world.ask(|reader| {
            let alice = reader.user_num(ALICE)?.unwrap();
            Ok(reader.has(&schema::PRESENT_USERS, &alice)?)
        })
    }

    /// What is done about presence every two seconds.
    fn keep_house(world: &World) {
        let chore = CHORES.iter().find(|chore| chore.name == "presence").unwrap();
        Housekeeping::default().run(&world.engine, chore).unwrap();
    }

    fn alice_is(state: &str) -> Vec<(String, String)> {
        vec![(ALICE.to_owned(), state.to_owned())]
    }

    #[test]
    fn who_does_not_come_back_after_a_restart_is_told_to_be_gone() {
        let backend = Arc::new(Memory::default());
        let before = neighbours(World::on(backend.clone()));
        set(&before, PresenceState::Online);
        let (told, token) = before.presences_told_to(BOB, None);
        assert_eq!(told, alice_is("online"));
        drop(before);
        let world = World::on(backend);
        let end = || keep_house(&world);
        end();
        let (told, token) = world.presences_told_to(BOB, Some(token));
        assert_eq!(told, [], "she may be about to come back");
        assert_eq!(world.presences_told_to(BOB, None).0, alice_is("online"));
        world.pass_ms(29_999);
        end();
        assert_eq!(world.presences_told_to(BOB, Some(token)).0, []);
        world.pass_ms(1);
        end();
        assert_eq!(world.presences_told_to(BOB, Some(token)).0, alice_is("offline"));
        // Only while somebody is there is that known to the next start.
        assert!(!is_kept(&world));
        set(&world, PresenceState::Online);
        assert!(is_kept(&world));
        set(&world, PresenceState::Offline);
        end();
        assert!(!is_kept(&world));
    }

    #[test]
    fn who_comes_back_while_it_is_noted_that_they_went_is_known_to_the_next_start() {
        let world = neighbours(World::new());
        let forget = || world.engine.write(ForgetPresence { user_id: ALICE.into() }).wait().unwrap();
        set(&world, PresenceState::Online);
        world.pass_ms(30_000);
        world.engine.write(EndPresence).wait().unwrap();
        let gone = || world.engine.read(&GonePresences).unwrap();
        assert_eq!(gone(), [ALICE]);
        // It is decided that she is back, and known to nobody yet.
        let come_back = |tx: &mut Tx| {
            let alice = tx.user_num(ALICE)?.unwrap();
            let claim = presence::claim(tx, None, PresenceState::Online, 0);
            presence::touch(tx, alice, PresenceChange::Synced(claim))?;
            forget();
            Ok(())
        };
        world.act(come_back).unwrap();
        assert_eq!(world.presences_told_to(BOB, None).0, alice_is("online"));
        assert!(is_kept(&world));
        forget();
        assert!(is_kept(&world), "she is there");
        assert!(gone().is_empty());
        world.pass_ms(30_000);
        keep_house(&world);
        assert!(!is_kept(&world) && gone().is_empty());
    }

    #[test]
    fn that_somebody_went_is_noted_once_the_disk_takes_it() {
        let store = Arc::new(Observed { store: Arc::new(Memory::default()), observer: Full::default() });
        let world = neighbours(World::on(store.clone()));
        set(&world, PresenceState::Online);
        world.pass_ms(30_000);
        world.engine.write(EndPresence).wait().unwrap();
        store.observer.0.store(true, Ordering::Relaxed);
        let forget = || world.engine.write(ForgetPresence { user_id: ALICE.into() }).wait();
        assert!(forget().is_err());
        store.observer.0.store(false, Ordering::Relaxed);
        let gone = || world.engine.read(&GonePresences).unwrap();
        assert_eq!((gone(), is_kept(&world)), (vec![ALICE.to_owned()], true));
        keep_house(&world);
        assert!(!is_kept(&world) && gone().is_empty());
        // Of whom nothing is stored it is noted as well.
        set(&world, PresenceState::Offline);
        assert_eq!(gone(), [ALICE]);
        keep_house(&world);
        assert!(gone().is_empty());
    }

    #[test]
    fn who_comes_back_after_a_restart_was_never_gone() {
        let backend = Arc::new(Memory::default());
        let before = neighbours(World::on(backend.clone()));
        set(&before, PresenceState::Online);
        let (_, token) = before.presences_told_to(BOB, None);
        drop(before);
        let world = World::on(backend);
        world.engine.write(EndPresence).wait().unwrap();
        let (state, hold_ms) = (PresenceState::Online, 60_000);
        let show = ShowPresence { user_id: ALICE.into(), device: Some("A".into()), state, hold_ms };
        world.engine.write(show).wait().unwrap();
        world.pass_ms(60_000);
        world.engine.write(EndPresence).wait().unwrap();
        assert_eq!(world.presences_told_to(BOB, Some(token)).0, []);
        assert_eq!(world.presences_told_to(BOB, None).0, alice_is("online"));
    }
}
