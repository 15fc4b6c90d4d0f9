//! Redactions that come while members are missing.

use super::super::policy::{signed, use_policy_server};
use super::*;

#[test]
fn a_redaction_takes_nothing_before_it_is_known_to_be_allowed() {
    let banned = Banned::new();
    let Entry { resident, newcomer, join, .. } = &banned.entry;
    let one = resident.message(BOB, &[&join.event_id], 30);
    let other = resident.message(BOB, &[&one.event_id], 31);
    let by_carl = banned.redaction(CARL, &one, &other, &banned.auth);
    let bob = resident.state("m.room.member", BOB).unwrap();
    let [create, levels, _] = banned.auth.clone();
    let by_bob = banned.redaction(BOB, &other, &by_carl, &[create, levels, bob]);
    assert!(accepted(&newcomer.receive(&[&one, &other, &by_carl, &by_bob])));
    // Clients are told of both: nobody would tell them later.
    let told = || {
        let (_, room) = sync(newcomer, None);
        let told = ids(&room["timeline"]["events"]).into_iter().map(str::to_owned).collect::<Vec<_>>();
        [&by_carl, &by_bob].map(|pdu| told.iter().any(|event_id| **event_id == *pdu.event_id))
    };
    assert_eq!(told(), [true, true]);
    let body = |pdu: &Pdu| {
        newcomer.world.ask(|reader| {
            let event = reader.event(reader.event_num(&pdu.event_id)?.unwrap())?;
            Ok(event.pdu()?.content.contains_key("body"))
        })
    };
    assert!(body(&one) && body(&other));
    newcomer.is_sound();
    banned.entry.complete();
    assert_eq!((body(&one), body(&other)), (true, false));
    assert_eq!(told(), [false, true]);
    newcomer.is_sound();
}

/// Until members are here nobody knows whether it was allowed; then it takes effect, though it is shown to nobody.
#[test]
fn a_redaction_of_history_that_a_policy_server_refuses_waits_as_well() {
    let key = KeyPair::from_seed("policy_server", &[9; 32]).unwrap();
    let resident = Scene::new();
    use_policy_server(&resident, "there.example", &key);
    let said = signed(&resident.message(BOB, &strs(&resident.ends()), 18), &key);
    assert!(accepted(&resident.receive(&[&said])));
    let redaction = resident.redaction(&said, &resident.ends(), 19);
    assert!(accepted(&resident.receive(&[&signed(&redaction, &key)])));
    let entry = Entry::new(resident);
    let newcomer = &entry.newcomer;
    entry.store_members();
    let received = newcomer.write(ReceivePdus {
        pdus: newcomer.check(&[&said, &redaction]),
        backfill: true,
        not_recommended: [redaction.event_id.clone()].into(),
        ..ReceivePdus::default()
    });
    let outcomes = [(&said, Outcome::Accepted), (&redaction, Outcome::NotRecommended)];
    assert_eq!(received.outcomes, outcomes.map(|(pdu, outcome)| (pdu.event_id.clone(), outcome)));
    assert!(!newcomer.is_redacted(&said));
    newcomer.is_sound();
    entry.complete();
    assert_eq!(newcomer.status(&redaction.event_id), Some(EventStatus::SoftFailed));
    assert!(newcomer.is_redacted(&said));
    newcomer.is_sound();
}
