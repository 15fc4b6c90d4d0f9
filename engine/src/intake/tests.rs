//! Intakes without an engine: a test says what comes of each step.

use serde_json::json;

use super::{
    asking::{AUTH_CHAIN_EVENTS_MAX, SIGNATURES_ASKED_MAX},
    *,
};
use crate::room::policy::PolicyServer;

const ROOM: &str = "!room:here.example";

/// An event as JSON, and as it is once it is checked.
fn event(body: &str, auth_events: &[&Arc<str>]) -> (Bytes, Arc<CheckedPdu>) {
    event_of("m.room.topic", body, auth_events)
}

fn event_of(kind: &str, body: &str, auth_events: &[&Arc<str>]) -> (Bytes, Arc<CheckedPdu>) {
    let auth_events: Vec<&str> = auth_events.iter().map(|event_id| &***event_id).collect();
    let json = json!({
        "type": kind, "state_key": "", "sender": "@bob:there.example", "room_id": ROOM, "depth": 5,
        "content": {}, "prev_events": [format!("${body}")], "auth_events": auth_events, "origin_server_ts": 1,
        "hashes": {"sha256": body}, "signatures": {}
    });
    let json = Bytes::from(json.to_string());
    let pdu = Pdu::parse(RoomVersion::get("10").unwrap(), &json).unwrap();
    (json, Arc::new(CheckedPdu { pdu: Arc::new(pdu) }))
}

fn id(event: &(Bytes, Arc<CheckedPdu>)) -> Arc<str> {
    event.1.pdu().event_id.clone()
}

fn waiting(event_id: &Arc<str>, missing: Missing) -> Received {
    Received { outcomes: vec![(event_id.clone(), Outcome::Waiting)], missing, ..Received::default() }
}

/// Plays on until it is over, with `checks` for what is to be checked, and no answer to any question but for a state, `told`.
/// Answers with the states that were written.
fn play(
    intake: &mut Intake,
    live: &Arc<str>,
    told: &[&(Bytes, Arc<CheckedPdu>)],
    checks: &[PduCheck],
) -> Vec<Vec<Arc<str>>> {
    play_with(intake, live, (told, checks), |_| Answer::Nothing)
}

/// The same with answers to what else is asked for.
fn play_with(
    intake: &mut Intake,
    live: &Arc<str>,
    (told, checks): (&[&(Bytes, Arc<CheckedPdu>)], &[PduCheck]),
    answer_to: impl Fn(&Question) -> Answer,
) -> Vec<Vec<Arc<str>>> {
    let ids: Vec<Arc<str>> = told.iter().map(|event| id(event)).collect();
    let mut written = Vec::new();
    loop {
        match intake.next_step() {
            Next::Check(pdus) => {
                let check =
                    |json: &Bytes| checks[told.iter().position(|event| event.0 == *json).unwrap()].clone();
                intake.checked(pdus.iter().map(check).collect());
            }
            Next::Ask(question @ Question::State { .. }) => {
                let pdus = told.iter().map(|event| event.0.clone()).collect();
                let answer = Answer::State { state: ids.clone(), auth_chain: Vec::new(), pdus };
                intake.answered(question, answer);
            }
            Next::Ask(question @ Question::Keys { .. }) => intake.answered(question, Answer::Keys),
            Next::Ask(question) => {
                let answer = answer_to(&question);
                intake.answered(question, answer);
            }
            Next::Write(receive) => {
                let state = receive.states.first().map(|given| given.state.clone()).unwrap_or_default();
                let mut missing = Missing::default();
                match written.is_empty() {
                    true => missing.state.push(live.clone()),
                    false => missing.auth_events.clone_from(&state),
                }
                // What waits was given.
                missing.settle(
                    |_| false,
                    |event_id| receive.outliers.iter().any(|outlier| *outlier.pdu().event_id == *event_id),
                );
                written.push(state);
                intake.received(waiting(live, missing));
            }
            Next::Done => return written,
        }
    }
}

#[test]
fn a_state_goes_without_what_is_refused_and_what_that_would_allow() {
    let version = RoomVersion::get("10").unwrap();
    let live = event("live", &[]);
    let live_id = id(&live);
    let (bad, keyless, missing) = (event("bad", &[]), event("keyless", &[]), event("missing", &[]));
    let (by_bad, by_missing) = (event("by bad", &[&id(&bad)]), event("by missing", &[&id(&missing)]));
    let by_keyless = event("by keyless", &[&id(&keyless)]);
    let on_top = event("on top", &[&id(&by_bad), &id(&by_missing)]);
    let told = [&bad, &keyless, &by_keyless, &missing, &by_bad, &by_missing, &on_top];
    let key = MissingKey { server_name: "gone.example".into(), key_id: "ed25519:1".into() };
    let checks: Vec<PduCheck> = vec![
        PduCheck::Refused { event_id: Some(id(&bad)), error: Refused::Signature("there.example".into()) },
        PduCheck::MissingKeys(vec![key]),
        PduCheck::Ready(by_keyless.1.clone()),
        // As if it had not been given.
        PduCheck::Refused { event_id: None, error: Refused::Format(String::new()) },
        PduCheck::Ready(by_bad.1.clone()),
        PduCheck::Ready(by_missing.1.clone()),
        PduCheck::Ready(on_top.1.clone()),
    ];
    for without_keys in [false, true] {
        let mut intake = Intake::new(ROOM.to_owned(), version, Vec::new());
        intake.ready(Role::Live(0), live.1.clone());
        if without_keys {
            intake.go_without_keys();
        }
        let written = play(&mut intake, &id(&live), &told, &checks);
        let all: Vec<Arc<str>> = told.iter().map(|event| id(event)).collect();
        let mut left = vec![id(&missing), id(&by_missing)];
        if !without_keys {
            left.splice(0..0, [id(&keyless), id(&by_keyless)]);
        }
        assert_eq!(written, [Vec::new(), all, left], "{without_keys}");
        // It is told where it is to be kept.
        let mut kept: Vec<_> = intake.left_out.iter().map(|((before, _), event)| (before, event)).collect();
        kept.sort_by_key(|(_, event)| event.event_id == id(&by_keyless));
        let kept =
            kept.iter().map(|(before, event)| (*before, &event.event_id, &*event.server, event.is_state));
        let expected = [&keyless, &by_keyless].map(id);
        let expected = expected.iter().map(|event_id| (&live_id, event_id, "gone.example", true));
        match without_keys {
            true => assert_eq!(kept.collect::<Vec<_>>(), expected.collect::<Vec<_>>()),
            false => assert_eq!(kept.len(), 0),
        }
        assert_eq!(intake.waiting(), [live.1.pdu().json.clone()], "what nobody gives is waited for");
    }
}

fn unreadable() -> PduCheck {
    PduCheck::Refused { event_id: None, error: Refused::Format(String::new()) }
}

/// All who may be asked count; who cannot be asked now may have it, but is not waited for for ever.
#[test]
fn a_state_goes_without_what_is_denied() {
    let version = RoomVersion::get("10").unwrap();
    let (live, lost, other) = (event("live", &[]), event("lost", &[]), event("other", &[]));
    let by_lost = event("by lost", &[&id(&lost)]);
    let told = [&lost, &by_lost, &other];
    let checks = [unreadable(), PduCheck::Ready(by_lost.1.clone()), PduCheck::Ready(other.1.clone())];
    // It may be what hides the past.
    for (is_history, is_left_out) in [(false, true), (true, false)] {
        let mut intake = match is_history {
            true => Intake::of_history(ROOM.to_owned(), version, Vec::new()),
            false => Intake::new(ROOM.to_owned(), version, Vec::new()),
        };
        intake.ready(Role::Live(0), live.1.clone());
        let written = play_with(&mut intake, &id(&live), (&told, &checks), |question| match question {
            Question::Events { event_ids } => Answer::Denied { event_ids: event_ids.clone() },
            _ => Answer::Nothing,
        });
        let all = vec![id(&lost), id(&by_lost), id(&other)];
        let expected = if is_left_out { vec![id(&other)] } else { all };
        assert_eq!(written.last(), Some(&expected), "{is_history}");
    }
}

/// Whoever is asked for both gives that one, and nobody else is asked.
#[test]
fn what_is_denied_is_asked_for_apart_from_what_lacks_a_key() {
    let version = RoomVersion::get("10").unwrap();
    let (live, lost, keyless) = (event("live", &[]), event("lost", &[]), event("keyless", &[]));
    let key = MissingKey { server_name: "gone.example".into(), key_id: "ed25519:1".into() };
    let (told, checks) = ([&lost, &keyless], [unreadable(), PduCheck::MissingKeys(vec![key])]);
    let mut intake = Intake::new(ROOM.to_owned(), version, Vec::new());
    intake.ready(Role::Live(0), live.1.clone());
    let written = play_with(&mut intake, &id(&live), (&told, &checks), |question| match question {
        Question::Events { event_ids } if event_ids.contains(&id(&keyless)) => {
            Answer::Events(vec![keyless.0.clone()])
        }
        Question::Events { event_ids } => Answer::Denied { event_ids: event_ids.clone() },
        _ => Answer::Nothing,
    });
    assert_eq!(written.last(), Some(&vec![id(&keyless)]));
}

/// Without it the past would be shown to all. What is live has it from what it follows.
#[test]
fn a_state_of_the_past_does_not_go_without_what_hides_the_past() {
    let version = RoomVersion::get("10").unwrap();
    let live = event("live", &[]);
    let keyless = event("keyless", &[]);
    let visibility =
        |auth_events: &[&Arc<str>]| event_of("m.room.history_visibility", "visibility", auth_events);
    let key = MissingKey { server_name: "gone.example".into(), key_id: "ed25519:1".into() };
    let (by_keyless, of_its_own) = (visibility(&[&id(&keyless)]), visibility(&[]));
    let without = || PduCheck::MissingKeys(vec![key.clone()]);
    let bad = PduCheck::Refused {
        event_id: Some(id(&of_its_own)),
        error: Refused::Signature("there.example".into()),
    };
    for (hiding, check, is_history, is_kept) in [
        (&of_its_own, without(), true, true),
        (&by_keyless, PduCheck::Ready(by_keyless.1.clone()), true, true),
        (&of_its_own, bad, true, false),
        (&of_its_own, without(), false, false),
    ] {
        let mut intake = match is_history {
            true => Intake::of_history(ROOM.to_owned(), version, Vec::new()),
            false => Intake::new(ROOM.to_owned(), version, Vec::new()),
        };
        intake.ready(Role::Live(0), live.1.clone());
        intake.go_without_keys();
        let written = play(&mut intake, &id(&live), &[&keyless, hiding], &[without(), check.clone()]);
        let is_left_out = written.last().is_some_and(|state| !state.contains(&id(hiding)));
        assert_eq!(is_left_out, !is_kept, "{check:?} {is_history}");
    }
}

/// An event of the oldest room versions, with an id of its own.
fn old_event(name: &str, allowed_by: &str) -> Bytes {
    let id = |name: &str| format!("${name}:there.example");
    let json = json!({
        "event_id": id(name), "type": "m.room.topic", "state_key": "", "sender": "@bob:there.example", "room_id": ROOM,
        "depth": 5, "content": {}, "prev_events": [], "auth_events": [[id(allowed_by), {"sha256": ""}]],
        "origin_server_ts": 1, "hashes": {"sha256": ""}, "signatures": {}
    });
    Bytes::from(json.to_string())
}

/// In the oldest versions whoever tells an event says what it follows, and what it is called.
#[test]
fn what_a_bad_event_follows_counts_where_its_id_is_a_hash_over_that() {
    let mut old: serde_json::Value = serde_json::from_slice(&old_event("bad", "a")).unwrap();
    old["prev_events"] = json!([["$before:there.example", {"sha256": ""}]]);
    let key = MissingKey { server_name: "gone.example".into(), key_id: "ed25519:1".into() };
    for (version, json, followed) in
        [("10", event("bad", &[]).0, vec!["$bad"]), ("1", Bytes::from(old.to_string()), Vec::new())]
    {
        let version = RoomVersion::get(version).unwrap();
        let event_id = Pdu::parse(version, &json).unwrap().event_id;
        let error = Refused::Signature("there.example".into());
        for check in [
            PduCheck::Refused { event_id: Some(event_id.clone()), error },
            PduCheck::MissingKeys(vec![key.clone()]),
        ] {
            let mut intake = Intake::of_history(ROOM.to_owned(), version, vec![json.clone()]);
            assert!(matches!(intake.next_step(), Next::Check(_)));
            intake.checked(vec![check]);
            let left: Vec<(Arc<str>, Vec<Arc<str>>)> = intake.left_behind().into_iter().collect();
            let followed: Vec<Arc<str>> = followed.iter().map(|id| Arc::from(*id)).collect();
            assert_eq!(left, [(event_id.clone(), followed)], "version {}", version.id);
        }
    }
}

/// The events that an intake takes of an auth chain, when an event waits for the one that allows it.
fn taken(version: &str, live: &Bytes, told: Vec<Bytes>) -> Vec<Bytes> {
    let version = RoomVersion::get(version).unwrap();
    let live = Arc::new(Pdu::parse(version, live).unwrap());
    let (live_id, missing) = (live.event_id.clone(), live.auth_events.clone());
    let mut intake = Intake::new(ROOM.to_owned(), version, Vec::new());
    intake.ready(Role::Live(0), Arc::new(CheckedPdu { pdu: live }));
    assert!(matches!(intake.next_step(), Next::Write(_)));
    intake.received(waiting(&live_id, Missing { auth_events: missing.clone(), ..Missing::default() }));
    let Next::Ask(question) = intake.next_step() else { panic!("it asks for what allows the event") };
    assert_eq!(question, Question::Events { event_ids: missing });
    intake.answered(question, Answer::Nothing);
    let Next::Ask(question) = intake.next_step() else { panic!("it asks for the whole chain") };
    assert_eq!(question, Question::AuthChain { event_id: live_id });
    intake.answered(question, Answer::Events(told));
    match intake.next_step() {
        Next::Check(pdus) => pdus,
        Next::Done => Vec::new(),
        Next::Write(_) | Next::Ask(_) => panic!("there is nothing more to be done"),
    }
}

#[test]
fn of_an_auth_chain_only_what_leads_on_from_what_is_missing_is_taken() {
    let first = event("first", &[]);
    let second = event("second", &[&id(&first)]);
    let (live, stray) = (event("live", &[&id(&second)]), event("stray", &[&id(&second)]));
    let told = vec![first.0.clone(), stray.0.clone(), second.0.clone()];
    assert_eq!(taken("10", &live.0, told), [second.0.clone(), first.0.clone()]);
    // Neither another chain, nor what is no event.
    let told = vec![first.0, stray.0, Bytes::from_static(b"[]")];
    assert!(taken("10", &live.0, told).is_empty());
}

#[test]
fn events_that_allow_each_other_in_a_circle_are_taken_once() {
    let live = old_event("live", "a");
    let circle = [old_event("a", "b"), old_event("b", "c"), old_event("c", "a")];
    assert_eq!(taken("1", &live, [&circle[..], &circle[..]].concat()), circle);
}

#[test]
fn an_auth_chain_that_is_too_long_is_not_looked_at() {
    let missing = event("missing", &[]);
    let live = event("live", &[&id(&missing)]);
    for (more, is_taken) in [(0, true), (1, false)] {
        let told = vec![missing.0.clone(); AUTH_CHAIN_EVENTS_MAX + more];
        assert_eq!(!taken("10", &live.0, told).is_empty(), is_taken, "{more}");
    }
}

/// It came as what lies before the event that was sent, which is judged by a state in which it is, too.
#[test]
fn what_is_history_is_known_for_a_state_that_names_it() {
    // It may be known from outside of the graph already.
    for outside in [Outcome::Stored, Outcome::Known] {
        told_between_and_in_a_state(&outside);
    }
}

fn told_between_and_in_a_state(outside: &Outcome) {
    let (sent, past) = (event("sent", &[]), event("past", &[]));
    let version = RoomVersion::get("10").unwrap();
    let mut intake = Intake::new(ROOM.to_owned(), version, vec![sent.0.clone()]);
    let ready = |event: &(Bytes, Arc<CheckedPdu>)| PduCheck::Ready(event.1.clone());
    let mut outliers = Vec::new();
    for _ in 0..100 {
        match intake.next_step() {
            Next::Check(pdus) => {
                let check = |json: &Bytes| if *json == sent.0 { ready(&sent) } else { ready(&past) };
                intake.checked(pdus.iter().map(check).collect());
            }
            Next::Ask(question @ Question::MissingEvents { .. }) => {
                intake.answered(question, Answer::Events(vec![past.0.clone()]));
            }
            Next::Ask(question @ Question::State { .. }) => {
                let (state, pdus) = (vec![id(&past)], vec![past.0.clone()]);
                intake.answered(question, Answer::State { state, auth_chain: Vec::new(), pdus });
            }
            Next::Ask(question) => intake.answered(question, Answer::Nothing),
            Next::Write(receive) => {
                let mut received = Received::default();
                let mut is_given = false;
                for outlier in &receive.outliers {
                    outliers.push(outlier.pdu().event_id.clone());
                    received.outcomes.push((outlier.pdu().event_id.clone(), outside.clone()));
                    is_given = true;
                }
                for pdu in receive.pdus.iter().map(|checked| checked.pdu()) {
                    let outcome = match (pdu.event_id == id(&past), is_given) {
                        (true, _) => Outcome::Past,
                        (false, true) => Outcome::Accepted,
                        (false, false) => Outcome::Waiting,
                    };
                    received.outcomes.push((pdu.event_id.clone(), outcome));
                }
                if !is_given {
                    received.missing.prev_events.push(id(&past));
                    received.missing.state.push(id(&sent));
                }
                intake.received(received);
            }
            Next::Done => break,
        }
    }
    assert_eq!(outliers, [id(&past)]);
    assert_eq!(intake.outcomes.get(&id(&sent)), Some(&Outcome::Accepted));
    // Whoever waits for it is told so.
    assert_eq!(intake.outcomes.get(&id(&past)), Some(&Outcome::Past));
}

#[test]
fn what_was_sent_is_written_in_the_order_in_which_it_was_sent() {
    let sent: Vec<(Bytes, Arc<CheckedPdu>)> = (0..9).map(|n| event(&n.to_string(), &[])).collect();
    let ids: Vec<Arc<str>> = sent.iter().map(id).collect();
    assert!(!ids.is_sorted());
    let pdus = sent.iter().map(|event| event.0.clone()).collect();
    let mut intake = Intake::new(ROOM.to_owned(), RoomVersion::get("10").unwrap(), pdus);
    assert!(matches!(intake.next_step(), Next::Check(_)));
    intake.checked(sent.iter().map(|event| PduCheck::Ready(event.1.clone())).collect());
    let Next::Write(receive) = intake.next_step() else { panic!("nothing is written") };
    let written: Vec<Arc<str>> = receive.pdus.iter().map(|checked| checked.pdu().event_id.clone()).collect();
    assert_eq!(written, ids);
}

#[test]
fn what_lacked_a_key_is_written_where_it_was_sent() {
    let sent: Vec<(Bytes, Arc<CheckedPdu>)> = (0..9).map(|n| event(&n.to_string(), &[])).collect();
    let ids: Vec<Arc<str>> = sent.iter().map(id).collect();
    let key = MissingKey { server_name: "there.example".into(), key_id: "ed25519:new".into() };
    // The first and one in the midst; of that another copy was sent last, which is signed with a key that is here.
    let (lacking, again) = ([0, 4], 4);
    let pdus = sent.iter().chain([&sent[again]]).map(|event| event.0.clone()).collect();
    let mut intake = Intake::new(ROOM.to_owned(), RoomVersion::get("10").unwrap(), pdus);
    assert!(matches!(intake.next_step(), Next::Check(_)));
    let check = |at: usize| match lacking.contains(&at) {
        true => PduCheck::MissingKeys(vec![key.clone()]),
        false => PduCheck::Ready(sent[at].1.clone()),
    };
    let copy = PduCheck::Ready(sent[again].1.clone());
    intake.checked((0..sent.len()).map(check).chain([copy]).collect());
    let Next::Ask(question @ Question::Keys { .. }) = intake.next_step() else {
        panic!("no key is asked for")
    };
    intake.answered(question, Answer::Keys);
    let Next::Check(pdus) = intake.next_step() else { panic!("what lacked a key is not checked") };
    assert_eq!(pdus, lacking.map(|at| sent[at].0.clone()));
    intake.checked(lacking.map(|at| PduCheck::Ready(sent[at].1.clone())).into());
    let Next::Write(receive) = intake.next_step() else { panic!("nothing is written") };
    let written: Vec<Arc<str>> = receive.pdus.iter().map(|checked| checked.pdu().event_id.clone()).collect();
    assert_eq!(written, ids);
}

/// How often an intake asks a policy server, which signs nothing, and for states: so many events follow each other, and the last one's
/// state is missing, too.
fn asked_of_a_policy_server(events: usize) -> (usize, usize) {
    let sent: Vec<(Bytes, Arc<CheckedPdu>)> = (0..events).map(|n| event(&n.to_string(), &[])).collect();
    let pdus = sent.iter().map(|event| event.0.clone()).collect();
    let mut intake = Intake::new(ROOM.to_owned(), RoomVersion::get("10").unwrap(), pdus);
    let policy = PolicyServer { name: "there.example".to_owned(), public_key: Vec::new() };
    let (mut signatures, mut states) = (0, 0);
    loop {
        match intake.next_step() {
            Next::Check(_) => {
                intake.checked(sent.iter().map(|event| PduCheck::Ready(event.1.clone())).collect());
            }
            Next::Write(receive) => {
                let mut received = Received::default();
                let mut waiting = Vec::new();
                for event_id in receive.pdus.iter().map(|checked| checked.pdu().event_id.clone()) {
                    if receive.not_recommended.contains(&event_id) {
                        received.outcomes.push((event_id, Outcome::NotRecommended));
                    } else {
                        received.outcomes.push((event_id.clone(), Outcome::Waiting));
                        waiting.push(event_id);
                    }
                }
                let policy = policy.clone();
                match &waiting[..] {
                    [last] => received.missing.state.push(last.clone()),
                    [first, ..] => {
                        received.missing.signatures.push(WantedSignature { event_id: first.clone(), policy });
                    }
                    [] => {}
                }
                intake.received(received);
            }
            Next::Ask(question) => {
                let answer = match question {
                    Question::PolicySignature(_) => {
                        signatures += 1;
                        Answer::PolicySignature(None)
                    }
                    _ => {
                        states += usize::from(matches!(question, Question::State { .. }));
                        Answer::Nothing
                    }
                };
                intake.answered(question, answer);
            }
            Next::Done => return (signatures, states),
        }
    }
}

#[test]
fn a_policy_server_is_asked_beside_all_else() {
    assert_eq!(asked_of_a_policy_server(131), (130, 1));
    // Not without end.
    assert_eq!(asked_of_a_policy_server(SIGNATURES_ASKED_MAX + 10), (SIGNATURES_ASKED_MAX, 0));
}

#[test]
fn what_waits_is_told_with_what_it_lacks() {
    let version = RoomVersion::get("10").unwrap();
    let allowing = event("allowing", &[]);
    let (by_missing, keyless, follower) =
        (event("by missing", &[&id(&allowing)]), event("keyless", &[]), event("follower", &[]));
    let on_top = event("on top", &[&id(&by_missing)]);
    let unsigned = event("unsigned", &[]);
    let alone = event("alone", &[]);
    let live = [&by_missing, &follower, &on_top, &unsigned, &alone];
    let pdus = live.iter().map(|event| event.0.clone()).chain([keyless.0.clone()]).collect();
    let mut intake = Intake::new(ROOM.to_owned(), version, pdus);
    assert!(matches!(intake.next_step(), Next::Check(_)));
    let key = MissingKey { server_name: "gone.example".into(), key_id: "ed25519:1".into() };
    let ready = live.iter().map(|event| PduCheck::Ready(event.1.clone()));
    intake.checked(ready.chain([PduCheck::MissingKeys(vec![key])]).collect());
    let policy = PolicyServer { name: "policy.example".to_owned(), public_key: Vec::new() };
    let signature = WantedSignature { event_id: id(&unsigned), policy };
    let missing = Missing {
        auth_events: vec![id(&allowing)],
        prev_events: vec!["$follower".into()],
        signatures: vec![signature],
        ..Missing::default()
    };
    // Nobody is of any help.
    loop {
        match intake.next_step() {
            Next::Ask(question) => intake.answered(question, Answer::Nothing),
            Next::Write(receive) => {
                let waits = |pdu: &Arc<CheckedPdu>| (pdu.pdu().event_id.clone(), Outcome::Waiting);
                let outcomes = receive.pdus.iter().map(waits).collect();
                intake.received(Received { outcomes, missing: missing.clone(), ..Received::default() });
            }
            Next::Check(_) => panic!("nothing came"),
            Next::Done => break,
        }
    }
    let expected = [
        (id(&by_missing), Lack::Allowing(id(&allowing))),
        (id(&keyless), Lack::Key("gone.example".to_owned())),
        (id(&follower), Lack::Previous("$follower".into())),
        (id(&on_top), Lack::Other(id(&by_missing))),
        (id(&unsigned), Lack::Signature),
        (id(&alone), Lack::State),
    ];
    assert_eq!(intake.lacks(), BTreeMap::from(expected));
}
