//! Redactions that come while members are missing.

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
