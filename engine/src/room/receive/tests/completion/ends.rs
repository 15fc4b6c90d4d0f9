//! Where a room ends once something of it was withdrawn.

use super::*;

#[test]
fn what_nothing_but_a_withdrawn_event_followed_is_an_end_again() {
    let banned = Banned::new();
    let Entry { resident, newcomer, join, state } = &banned.entry;
    let one = resident.message(BOB, &[&join.event_id], 30);
    let other = resident.message(BOB, &[&join.event_id], 31);
    let content = json!({"msgtype": "m.text", "body": "in between"});
    let between = banned.carls("m.room.message", None, content, &[&one.event_id], 32);
    let last = resident.message(BOB, &[&other.event_id, &between.event_id], 33);
    assert!(accepted(&newcomer.receive(&[&one, &other])));
    // The last one comes before what it follows, with a state that lacks the ban, too.
    let state = state.iter().filter(|pdu| pdu.state_key.as_deref() != Some(CARL));
    let state = state.map(|pdu| pdu.event_id.clone()).collect();
    let received = newcomer.write(ReceivePdus {
        pdus: newcomer.check(&[&last]),
        states: vec![GivenState { event_id: last.event_id.clone(), state }],
        ..ReceivePdus::default()
    });
    assert!(accepted(&received), "{received:?}");
    assert!(accepted(&newcomer.receive(&[&between])));
    assert_eq!(newcomer.ends(), [last.event_id.to_string()]);
    newcomer.is_sound();
    banned.entry.complete();
    assert_eq!(newcomer.status(&between.event_id), Some(EventStatus::Rejected));
    assert_eq!(newcomer.ends(), [&one, &last].map(|pdu| pdu.event_id.to_string()));
    newcomer.is_sound();
}
