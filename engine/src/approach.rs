//! A user of this server comes into a room, knocks at it, or goes out of it, by way of servers that are in it: which is asked
//! next, what is made of its template, and what the user is told when none is of help.
//!
//! Invariant: what is handed in was made from the template of the very server that gets it, and is what the user asked for
//! ([`crate::room::handshake`]). It does nothing itself: whoever drives it asks, hands in, and tells what came of it.
//! Specification: server-server API, "Joining Rooms", "Knocking upon a room", "Leaving Rooms".

use std::collections::VecDeque;

use serde::Deserialize;

use crate::{
    core::event::JsonObject,
    engine::Engine,
    error::Result,
    room::handshake::Handshake,
    view::federation::{SignTemplate, SignedEvent},
};

/// Servers that are tried, one after the other.
pub const SERVERS_TRIED_MAX: usize = 10;

/// A change of a local user's own membership.
#[derive(Clone, Debug)]
pub struct Change {
    /// The room's id.
    pub room_id: String,
    /// Our user.
    pub user_id: String,
    /// Why, for others to read.
    pub reason: Option<String>,
}

/// The answer of `GET /make_join`, `/make_knock`, `/make_leave`.
#[derive(Debug, Deserialize)]
pub struct Template {
    /// The room's version, where it is told.
    pub room_version: Option<String>,
    /// The event, without hashes and signatures.
    pub event: JsonObject,
}

/// Why a server was of no help.
pub trait Failure {
    /// Whether it is the room itself that says no, so that another server would say the same.
    fn is_final(&self) -> bool;
    /// How much it says.
    fn tells(&self) -> Tells;
}

/// How much a failure says of the room, the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tells {
    /// That a server could not be reached.
    Nothing,
    /// That a server does not know the room, or not well enough to say.
    Unknown,
    /// What the room says.
    Refusal,
}

/// What is to be done next.
#[derive(Debug)]
pub enum Next {
    /// Ask this server for a template, and tell by [`Approach::templated`]; or, if there is none or it is not signed, by
    /// [`Approach::failed`].
    Ask(String),
    /// Hand the event in to this server. If that, or what follows from it, fails, tell by [`Approach::failed`].
    HandIn(String, SignedEvent),
    /// None is of help: [`Approach::into_failure`].
    Nobody,
}

/// A change of a membership on its way.
pub struct Approach<F> {
    change: Change,
    handshake: Handshake,
    /// The servers that are left; the first is being asked.
    servers: VecDeque<String>,
    event: Option<SignedEvent>,
    failure: Option<F>,
}

impl<F: Failure> Approach<F> {
    /// Begins with the first of the servers.
    pub fn new(change: Change, handshake: Handshake, servers: &[String]) -> Self {
        let servers = servers.iter().take(SERVERS_TRIED_MAX).cloned().collect();
        Self { change, handshake, servers, event: None, failure: None }
    }

    /// What is to be done next; the same again until it is told what came of it.
    pub fn next_step(&self) -> Next {
        match (self.servers.front(), &self.event) {
            (None, _) => Next::Nobody,
            (Some(server), None) => Next::Ask(server.clone()),
            (Some(server), Some(event)) => Next::HandIn(server.clone(), event.clone()),
        }
    }

    /// Whether there is nobody to ask after the one that is being asked.
    pub fn is_last(&self) -> bool {
        self.servers.len() <= 1
    }

    /// What is asked for.
    pub fn change(&self) -> (&Change, Handshake) {
        (&self.change, self.handshake)
    }

    /// The server that is asked has given a template.
    ///
    /// Errors: those of [`SignTemplate`], when it is not signed. The server is of no help then, which is to be told as ever.
    pub fn templated(&mut self, engine: &Engine, template: &Template) -> Result<()> {
        let Some(server) = self.servers.front() else { return Ok(()) };
        let sign = SignTemplate {
            room_id: &self.change.room_id,
            user_id: &self.change.user_id,
            handshake: self.handshake,
            resident: server,
            room_version: template.room_version.as_deref(),
            template: &template.event,
            reason: self.change.reason.as_deref(),
        };
        self.event = Some(engine.read(&sign)?);
        Ok(())
    }

    /// What the template was made from has changed: the same server is asked for another.
    pub fn ask_again(&mut self) {
        self.event = None;
    }

    /// The server is of no help: the next one is asked, unless that would be in vain.
    pub fn failed(&mut self, failure: F) {
        self.event = None;
        // Who wants to go asks everybody: the user is rid of the room in any case.
        if failure.is_final() && self.handshake != Handshake::Leave {
            self.servers.clear();
            self.failure = Some(failure);
            return;
        }
        self.servers.pop_front();
        // Of those that say something the first counts, which the user trusts most; of the others the last.
        let told = self.failure.as_ref().map_or(Tells::Nothing, F::tells);
        if told == Tells::Nothing || failure.tells() > told {
            self.failure = Some(failure);
        }
    }

    /// What says most of why none was of help: what a server refused, rather than that another could not be reached; nothing
    /// if there was nobody to ask.
    pub fn into_failure(self) -> Option<F> {
        self.failure
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        error::{Error, Invalid},
        fixture::World,
    };

    const ROOM: &str = "!room:there.example";
    const ALICE: &str = "@alice:here.example";

    #[derive(Debug, PartialEq)]
    enum No {
        Silent,
        Unknown,
        Says(&'static str),
        Final,
    }

    impl Failure for No {
        fn is_final(&self) -> bool {
            *self == Self::Final
        }

        fn tells(&self) -> Tells {
            match self {
                Self::Silent => Tells::Nothing,
                Self::Unknown => Tells::Unknown,
                Self::Says(_) | Self::Final => Tells::Refusal,
            }
        }
    }

    fn approach(handshake: Handshake, servers: usize) -> Approach<No> {
        let servers: Vec<String> = (0..servers).map(|number| format!("{number}.example")).collect();
        let change = Change { room_id: ROOM.to_owned(), user_id: ALICE.to_owned(), reason: None };
        Approach::new(change, handshake, &servers)
    }

    fn asked(approach: &Approach<No>) -> Option<String> {
        match approach.next_step() {
            Next::Ask(server) => Some(server),
            _ => None,
        }
    }

    fn template(membership: &str) -> Template {
        let event = json!({
            "type": "m.room.member", "room_id": ROOM, "sender": ALICE, "state_key": ALICE, "depth": 5,
            "content": {"membership": membership}, "prev_events": ["$a"], "auth_events": ["$b"],
        });
        let Value::Object(event) = event else { panic!() };
        Template { room_version: Some("10".to_owned()), event }
    }

    #[test]
    fn one_server_is_asked_after_the_other_and_what_says_most_is_told() {
        let mut approach = approach(Handshake::Join, 3);
        for (server, failure) in [("0", No::Silent), ("1", No::Says("a")), ("2", No::Says("b"))] {
            assert_eq!(asked(&approach), Some(format!("{server}.example")));
            approach.failed(failure);
        }
        assert!(matches!(approach.next_step(), Next::Nobody));
        assert_eq!(approach.into_failure(), Some(No::Says("a")));
    }

    /// One that lacks members itself does not know whom it may let in; the next one may.
    #[test]
    fn that_a_server_does_not_know_the_room_says_less_than_a_refusal_and_more_than_silence() {
        for (failures, told) in [
            (vec![No::Unknown, No::Says("banned")], No::Says("banned")),
            (vec![No::Says("banned"), No::Unknown], No::Says("banned")),
            (vec![No::Silent, No::Unknown, No::Silent], No::Unknown),
        ] {
            let mut approach = approach(Handshake::Join, failures.len());
            failures.into_iter().for_each(|failure| approach.failed(failure));
            assert_eq!(approach.into_failure(), Some(told));
        }
    }

    #[test]
    fn what_the_room_says_ends_it_but_for_who_goes() {
        for (handshake, next) in
            [(Handshake::Join, None), (Handshake::Knock, None), (Handshake::Leave, Some("1.example"))]
        {
            let mut approach = approach(handshake, 2);
            approach.failed(No::Says("before"));
            let mut approach =
                Approach { servers: ["0.example", "1.example"].map(str::to_owned).into(), ..approach };
            approach.failed(No::Final);
            assert_eq!(asked(&approach).as_deref(), next, "{handshake:?}");
            let told = if next.is_some() { No::Says("before") } else { No::Final };
            assert_eq!(approach.into_failure(), Some(told));
        }
    }

    #[test]
    fn only_what_was_asked_for_is_handed_in_and_only_to_who_gave_it() {
        let world = World::new();
        let mut approach = approach(Handshake::Knock, 3);
        // It was for something else.
        let refused = approach.templated(&world.engine, &template("join")).unwrap_err();
        assert!(matches!(refused, Error::Invalid(Invalid::Template("content.membership"))), "{refused}");
        assert_eq!(asked(&approach).as_deref(), Some("0.example"));
        approach.failed(No::Silent);
        assert_eq!(asked(&approach).as_deref(), Some("1.example"));
        approach.templated(&world.engine, &template("knock")).unwrap();
        let Next::HandIn(server, event) = approach.next_step() else { panic!() };
        assert_eq!(server, "1.example");
        let event: Value = serde_json::from_slice(&event.json).unwrap();
        assert_eq!((&event["content"]["membership"], &event["sender"]), (&json!("knock"), &json!(ALICE)));
        // What one server did not take is not handed to the next.
        approach.failed(No::Silent);
        assert_eq!(asked(&approach).as_deref(), Some("2.example"));
    }

    #[test]
    fn not_everybody_is_asked() {
        let mut approach = approach(Handshake::Join, 50);
        let mut count = 0;
        while asked(&approach).is_some() {
            approach.failed(No::Silent);
            count += 1;
        }
        assert_eq!(count, SERVERS_TRIED_MAX);
        assert_eq!(self::approach(Handshake::Join, 0).into_failure(), None);
    }
}
