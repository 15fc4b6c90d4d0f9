//! A server that was delivered that another has left the room, refused it, and goes on as if its user were there.

use super::*;
use crate::{
    intake::{Answer, Intake, Next, Question},
    reception::{Body, Reception},
    view::federation::MissingEvents,
};

const ACL: &str = "m.room.server_acl";
const SECOND_MS: u64 = 1_000;
const HOUR_MS: u64 = 3_600 * SECOND_MS;

/// Bob is in Alice's room, and both servers have heard of everything.
fn together() -> (World, World) {
    let (here, there) = worlds();
    let event = make(&here, &there, Handshake::Join, BOB).unwrap();
    let (join, _) = accepted(&here, Handshake::Join, &event);
    enter(&here, &there, &event, join, false);
    exchange(&here, &there);
    exchange(&there, &here);
    (here, there)
}

/// Bob's server is shut out, and he speaks and leaves, all of which is refused, some time ago.
fn left_unheard() -> (World, World) {
    let (here, there) = together();
    set_list(&here, json!(["there.example"]));
    exchange(&here, &there);
    there.message(ROOM, BOB, "unheard");
    there.leave(ROOM, BOB);
    assert_eq!(exchange(&there, &here), ["unheard refused", "leave refused"]);
    assert_eq!(membership(&here, BOB), Some(Membership::Join));
    there.pass_ms(10 * SECOND_MS);
    (here, there)
}

fn set_list(here: &World, deny: Value) {
    here.state(ROOM, ALICE, ACL, "", json!({"allow": ["*"], "deny": deny}));
}

/// What one server has for the other arrives there, in transactions as the server drives them: what it is, and whether it is
/// refused.
fn exchange(from: &World, to: &World) -> Vec<String> {
    let mut told = Vec::new();
    for transaction in from.deliver(to.engine.server_name()) {
        let results = receive(from, to, &transaction.id, &transaction.body(from.engine.server_name()));
        for pdu in &transaction.pdus {
            let event_id = Pdu::parse(version(), pdu).unwrap().event_id;
            let is_refused = results[&*event_id]["error"].is_string();
            told.push(said(pdu) + if is_refused { " refused" } else { "" });
        }
    }
    told
}

/// Gives a server a transaction of another. Answers what is answered of each event.
fn receive(from: &World, to: &World, id: &str, body: &Bytes) -> Value {
    let body: Body<'_> = serde_json::from_slice(body).unwrap();
    let origin = from.engine.server_name().to_owned();
    let mut reception = Reception::new(origin, id.to_owned(), &body).unwrap();
    for mut room in reception.rooms() {
        if let Some(intake) = room.begin(&to.engine).unwrap() {
            let intake = drive(from, to, intake);
            assert!(room.judged(&intake).is_none());
        }
        assert!(room.turned_away().is_empty());
        if let Some(reminder) = room.reminder() {
            to.engine.write(reminder).wait().unwrap();
        }
        reception.took_in(room);
    }
    let note = reception.answer(None);
    let answer: Value = serde_json::from_slice(&note.answer).unwrap();
    to.engine.write(note).wait().unwrap();
    answer["pdus"].clone()
}

/// Takes the steps of an intake. Only what lies between is asked for, and given if the server that sends may have it given.
fn drive(from: &World, to: &World, mut intake: Intake) -> Intake {
    loop {
        match intake.next_step() {
            Next::Check(pdus) => {
                let view = CheckPdus { version: intake.version(), pdus: &pdus };
                intake.checked(to.engine.read(&view).unwrap());
            }
            Next::Write(receive) => intake.received(to.engine.write(*receive).wait().unwrap()),
            Next::Ask(question) => {
                let answer = match &question {
                    Question::MissingEvents { latest } => Answer::Events(between(from, to, latest)),
                    other => panic!("{other:?}"),
                };
                intake.answered(question, answer);
            }
            Next::Done => return intake,
        }
    }
}

fn between(from: &World, to: &World, latest: &[Arc<str>]) -> Vec<Bytes> {
    let ends: Vec<String> = to.ask(|reader| {
        let room = RoomCtx::load(reader, ROOM)?;
        Ok(room.head.extremities.iter().map(|(_, event_id)| event_id.clone()).collect())
    });
    let asked = MissingEvents {
        room_id: ROOM.into(),
        earliest_events: ends,
        latest_events: latest.iter().map(ToString::to_string).collect(),
        limit: 20,
        min_depth: 0,
        server: to.engine.server_name().to_owned(),
    };
    from.engine.read(&asked).unwrap()
}

fn version() -> &'static RoomVersion {
    RoomVersion::get("10").unwrap()
}

fn said(pdu: &Bytes) -> String {
    let pdu: Value = serde_json::from_slice(pdu).unwrap();
    let content = &pdu["content"];
    let text = content["body"].as_str().or(content["membership"].as_str()).or(pdu["type"].as_str());
    text.unwrap().to_owned()
}

/// Alice's server sends Bob's an event of the room, whatever it has for it.
fn make_up(here: &World, there: &World, event_id: &str) {
    let pdu = here.ask(|reader| {
        let num = reader.event_num(event_id)?.unwrap();
        Ok(reader.event(num)?.json.clone())
    });
    let pdu: Value = serde_json::from_slice(&pdu).unwrap();
    let body = Bytes::from(json!({ "pdus": [pdu] }).to_string());
    assert_eq!(receive(here, there, event_id, &body), json!({}));
}

#[test]
fn it_is_told_once_it_lets_that_server_in_again() {
    let (here, there) = left_unheard();
    set_list(&here, json!([]));
    assert_eq!(exchange(&here, &there), [ACL]);
    // It fetches what was said before.
    assert_eq!(exchange(&there, &here), ["leave"]);
    assert_eq!(membership(&here, BOB), Some(Membership::Leave));
    let heard = here.ask(|reader| {
        let room = RoomCtx::load(reader, ROOM)?;
        let mut before_ends = Vec::new();
        for (num, _) in &room.head.extremities {
            for before in &reader.event(*num)?.header.prev {
                before_ends.push(said(&reader.event(*before)?.json));
            }
        }
        Ok(before_ends)
    });
    assert!(heard.contains(&"unheard".to_owned()), "{heard:?}");
    // It sends nothing more.
    here.message(ROOM, ALICE, "where is Bob?");
    assert!(exchange(&here, &there).is_empty());
    is_clean(&here);
    is_clean(&there);
}

#[test]
fn while_it_refuses_that_it_is_told_once_an_hour() {
    let (here, there) = left_unheard();
    let speak = |body: &str| {
        here.message(ROOM, ALICE, body);
        assert_eq!(exchange(&here, &there), [body]);
        exchange(&there, &here)
    };
    assert_eq!(speak("one"), ["leave refused"]);
    there.pass_ms(HOUR_MS - SECOND_MS);
    assert!(speak("two").is_empty());
    there.pass_ms(SECOND_MS);
    assert_eq!(speak("three"), ["leave refused"]);
    // A list that lets it in is news, but one that does not, or comes at once.
    set_list(&here, json!([]));
    assert_eq!(exchange(&here, &there), [ACL]);
    assert!(exchange(&there, &here).is_empty());
    there.pass_ms(10 * SECOND_MS);
    set_list(&here, json!(["*"]));
    assert_eq!(exchange(&here, &there), [ACL]);
    assert!(exchange(&there, &here).is_empty());
    set_list(&here, json!(["other.example"]));
    assert_eq!(exchange(&here, &there), [ACL]);
    assert_eq!(exchange(&there, &here), ["leave"]);
}

#[test]
fn it_waits_for_a_server_once() {
    let (here, there) = left_unheard();
    for body in ["one", "two", "three"] {
        here.message(ROOM, ALICE, body);
        assert_eq!(exchange(&here, &there), [body]);
        there.pass_ms(HOUR_MS);
    }
    assert_eq!(exchange(&there, &here), ["leave refused"]);
}

#[test]
fn what_crosses_with_the_leave_leads_to_nothing() {
    let (here, there) = together();
    let crossing = here.message(ROOM, ALICE, "crossing");
    there.leave(ROOM, BOB);
    // Before it is delivered it is told as ever, and then some time is given to what was on its way.
    there.pass_ms(HOUR_MS);
    make_up(&here, &there, &crossing);
    assert_eq!(exchange(&there, &here), ["leave"]);
    assert!(exchange(&there, &here).is_empty());
    let (here, there) = together();
    there.leave(ROOM, BOB);
    here.message(ROOM, ALICE, "crossing");
    assert_eq!(exchange(&there, &here), ["leave"]);
    there.pass_ms(9 * SECOND_MS);
    assert_eq!(exchange(&here, &there), ["crossing"]);
    assert!(exchange(&there, &here).is_empty());
}

#[test]
fn whoever_was_turned_out_has_nothing_to_tell() {
    let (here, there) = together();
    let last = here.message(ROOM, ALICE, "last");
    here.member(ROOM, ALICE, BOB, "leave").unwrap();
    assert_eq!(exchange(&here, &there), ["last", "leave"]);
    there.pass_ms(HOUR_MS);
    make_up(&here, &there, &last);
    assert!(exchange(&there, &here).is_empty());
}

#[test]
fn a_server_that_was_not_there_is_told_nothing() {
    let (here, there) = left_unheard();
    let third = World::named("third.example");
    let last = here.message(ROOM, ALICE, "last");
    let pdu = here.ask(|reader| {
        let num = reader.event_num(&last)?.unwrap();
        Ok(reader.event(num)?.json.clone())
    });
    let mut pdu: Value = serde_json::from_slice(&pdu).unwrap();
    for room_id in [ROOM, "!made:up.example"] {
        pdu["room_id"] = room_id.into();
        let body = Bytes::from(json!({ "pdus": [pdu] }).to_string());
        assert_eq!(receive(&third, &there, room_id, &body), json!({}));
    }
    assert!(there.deliver("third.example").is_empty());
    assert!(there.deliver("here.example").is_empty());
}

#[test]
fn who_comes_back_waits_until_it_is_taken() {
    let (here, there) = left_unheard();
    set_list(&here, json!([]));
    assert_eq!(exchange(&here, &there), [ACL]);
    let is_untold = || there.engine.read(&IsUntold { room_id: ROOM, server: "here.example" }).unwrap();
    assert!(is_untold());
    assert_eq!(exchange(&there, &here), ["leave"]);
    assert!(!is_untold());
    let event = make(&here, &there, Handshake::Join, BOB).unwrap();
    let (join, _) = accepted(&here, Handshake::Join, &event);
    enter(&here, &there, &event, join, false);
    there.message(ROOM, BOB, "back");
    assert_eq!(exchange(&there, &here).last().map(String::as_str), Some("back"));
    for world in [&here, &there] {
        assert_eq!(membership(world, BOB), Some(Membership::Join));
        is_clean(world);
    }
}

#[test]
fn who_comes_back_before_it_is_taken_stays() {
    let (here, there) = left_unheard();
    set_list(&here, json!([]));
    assert_eq!(exchange(&here, &there), [ACL]);
    // The join is made by a template that does not know of the leave, and is merged with it as it will be there.
    let event = make(&here, &there, Handshake::Join, BOB).unwrap();
    let (join, _) = accepted(&here, Handshake::Join, &event);
    enter(&here, &there, &event, join, false);
    assert_eq!(membership(&there, BOB), Some(Membership::Join));
    assert!(exchange(&there, &here).contains(&"leave".to_owned()));
    there.message(ROOM, BOB, "back");
    assert_eq!(exchange(&there, &here).last().map(String::as_str), Some("back"));
    for world in [&here, &there] {
        assert_eq!(membership(world, BOB), Some(Membership::Join));
        is_clean(world);
    }
}
