//! What users of this server said while the room's access list denied it, once it lets this server in again.

use super::*;
use crate::{
    command::{AdoptState, MergeEnds},
    room::merging::DUMMY_EVENT,
};

const DAVE: &str = "@dave:third.example";
const THERE: &str = "there.example";
const THIRD: &str = "third.example";
const ACL: &str = "m.room.server_acl";

/// Bob has shut this server out, and everybody has been delivered what was said until then. With his access list.
fn shut_out() -> (Scene, Pdu) {
    let scene = Scene::new();
    scene.world.state(ROOM, ALICE, "m.room.power_levels", "", json!({"users": {ALICE: 100, BOB: 50}}));
    let deny = list(&scene, &["here.example"], &strs(&scene.ends()), 40);
    assert!(accepted(&scene.receive(&[&deny])));
    told(&scene, THERE);
    (scene, deny)
}

/// An access list of Bob's.
fn list(scene: &Scene, deny: &[&str], prev: &[&str], depth: u64) -> Pdu {
    scene.draft(BOB, ACL, Some(""), json!({"allow": ["*"], "deny": deny}), prev, depth)
}

/// What a server is sent, all of which it takes, whatever it makes of it: texts of messages, memberships, or types.
fn told(scene: &Scene, server: &str) -> Vec<String> {
    let sent = scene.world.deliver(server);
    sent.iter().flat_map(|transaction| &transaction.pdus).map(said).collect()
}

fn said(pdu: &Bytes) -> String {
    let pdu: Value = serde_json::from_slice(pdu).unwrap();
    let content = &pdu["content"];
    let text = content["body"].as_str().or(content["membership"].as_str()).or(pdu["type"].as_str());
    text.unwrap().to_owned()
}

#[test]
fn what_was_said_meanwhile_is_told_once_more() {
    let (scene, deny) = shut_out();
    scene.world.message(ROOM, ALICE, "one");
    scene.world.message(ROOM, ALICE, "unheard");
    assert_eq!(told(&scene, THERE), ["one", "unheard"]);
    // They have refused that, and go on without it.
    let between = scene.message(BOB, &[&deny.event_id], 41);
    let still = list(&scene, &["here.*"], &[&between.event_id], 42);
    assert!(accepted(&scene.receive(&[&between, &still])));
    assert!(told(&scene, THERE).is_empty());
    let admit = list(&scene, &[], &[&still.event_id], 43);
    assert!(accepted(&scene.receive(&[&admit])));
    assert_eq!(scene.state(ACL, ""), Some(admit.event_id.to_string()));
    // The last leads to the other.
    assert_eq!(told(&scene, THERE), ["unheard"]);
    let other = list(&scene, &["other.example"], &[&admit.event_id], 44);
    assert!(accepted(&scene.receive(&[&other])));
    assert!(told(&scene, THERE).is_empty());
    scene.is_sound();
}

#[test]
fn that_somebody_left_meanwhile_is_told_once_more() {
    let (scene, deny) = shut_out();
    let carol = "@carol:here.example";
    scene.world.join(ROOM, carol);
    scene.world.leave(ROOM, carol);
    assert_eq!(told(&scene, THERE), ["join", "leave"]);
    let admit = list(&scene, &[], &[&deny.event_id], 41);
    assert!(accepted(&scene.receive(&[&admit])));
    assert_eq!(told(&scene, THERE), ["leave"]);
}

#[test]
fn it_waits_for_a_server_once_however_often_the_list_changes() {
    let (scene, deny) = shut_out();
    scene.world.message(ROOM, ALICE, "unheard");
    told(&scene, THERE);
    let mut last = deny.event_id.clone();
    for depth in [41, 43, 45] {
        let admit = list(&scene, &[], &[&last], depth);
        let deny = list(&scene, &["here.example"], &[&admit.event_id], depth + 1);
        assert!(accepted(&scene.receive(&[&admit])));
        assert!(accepted(&scene.receive(&[&deny])));
        last = deny.event_id.clone();
    }
    assert_eq!(told(&scene, THERE), ["unheard"]);
}

/// Where Bob's last access list is, and how deep the next is to be.
struct Flips<'a> {
    scene: &'a Scene,
    last: Arc<str>,
    depth: u64,
}

impl Flips<'_> {
    /// Bob lets this server in, and shuts it out again. What the other server is told in between.
    fn flip(&mut self) -> Vec<String> {
        let admit = list(self.scene, &[], &[&*self.last], self.depth);
        let deny = list(self.scene, &["here.example"], &[&*admit.event_id], self.depth + 1);
        assert!(accepted(&self.scene.receive(&[&admit])));
        let heard = told(self.scene, THERE);
        assert!(accepted(&self.scene.receive(&[&deny])));
        (self.last, self.depth) = (deny.event_id.clone(), self.depth + 2);
        heard
    }
}

/// The same is told again once in a minute; what was said since, each time, for three times.
#[test]
fn who_changes_the_list_at_will_has_nobody_told_the_same_each_time() {
    let (scene, deny) = shut_out();
    let mut flips = Flips { scene: &scene, last: deny.event_id.clone(), depth: 41 };
    for text in ["unheard", "unheard as well", "nor that"] {
        scene.world.message(ROOM, ALICE, text);
        told(&scene, THERE);
        assert_eq!(flips.flip(), [text]);
        assert!(flips.flip().is_empty());
    }
    scene.world.message(ROOM, ALICE, "too often");
    told(&scene, THERE);
    assert!(flips.flip().is_empty());
    scene.world.pass_ms(60_000);
    assert_eq!(flips.flip(), ["too often"]);
    assert!(flips.flip().is_empty());
    scene.world.pass_ms(60_000);
    assert_eq!(flips.flip(), ["too often"]);
}

/// Bob's first list that lets this server in is the latest, and counts whenever he says something behind it alone.
#[test]
fn a_list_that_comes_back_has_the_same_told_once_in_a_minute_as_well() {
    let (scene, deny) = shut_out();
    scene.world.message(ROOM, ALICE, "unheard");
    told(&scene, THERE);
    let admit = list(&scene, &[], &[&deny.event_id], 500);
    assert!(accepted(&scene.receive(&[&admit])));
    assert_eq!(told(&scene, THERE), ["unheard"]);
    let mut last = admit.event_id.to_string();
    for depth in [51, 54] {
        let deny = list(&scene, &["here.example"], &[&last], depth);
        assert!(accepted(&scene.receive(&[&deny])));
        assert_eq!(scene.state(ACL, ""), Some(deny.event_id.to_string()));
        let back = scene.message(BOB, &[&admit.event_id], depth + 1);
        assert!(accepted(&scene.receive(&[&back])));
        assert_eq!(scene.state(ACL, ""), Some(admit.event_id.to_string()));
        assert!(told(&scene, THERE).is_empty());
        let both = scene.message(BOB, &[&deny.event_id, &back.event_id], depth + 2);
        assert!(accepted(&scene.receive(&[&both])));
        last = both.event_id.to_string();
    }
}

/// Ends that are none of ours have this server make dummy events, which lead to what was said before, and say nothing.
#[test]
fn forks_of_others_have_nobody_told_again() {
    let (scene, deny) = shut_out();
    scene.world.message(ROOM, ALICE, "unheard");
    told(&scene, THERE);
    let mut flips = Flips { scene: &scene, last: deny.event_id.clone(), depth: 41 };
    assert_eq!(flips.flip(), ["unheard"]);
    for fork in 0..11 {
        let message = scene.message(BOB, &[&deny.event_id], 100 + fork);
        assert!(accepted(&scene.receive(&[&message])));
    }
    assert!(scene.world.engine.write(MergeEnds { room_id: ROOM.into() }).wait().unwrap() > 0);
    assert!(flips.flip().is_empty());
    scene.world.pass_ms(60_000);
    assert!(flips.flip().iter().any(|text| text == DUMMY_EVENT));
}

/// It was too soon when the list last let this server in, which it does since.
#[test]
fn what_was_put_off_is_told_when_something_comes_later() {
    let (scene, deny) = shut_out();
    scene.world.message(ROOM, ALICE, "unheard");
    told(&scene, THERE);
    let mut flips = Flips { scene: &scene, last: deny.event_id.clone(), depth: 41 };
    assert_eq!(flips.flip(), ["unheard"]);
    let admit = list(&scene, &[], &[&*flips.last], 43);
    assert!(accepted(&scene.receive(&[&admit])));
    assert!(told(&scene, THERE).is_empty());
    let soon = scene.message(BOB, &[&admit.event_id], 44);
    assert!(accepted(&scene.receive(&[&soon])));
    assert!(told(&scene, THERE).is_empty());
    scene.world.pass_ms(60_000);
    let later = scene.message(BOB, &[&soon.event_id], 45);
    assert!(accepted(&scene.receive(&[&later])));
    assert_eq!(told(&scene, THERE), ["unheard"]);
    let last = scene.message(BOB, &[&later.event_id], 46);
    assert!(accepted(&scene.receive(&[&last])));
    assert!(told(&scene, THERE).is_empty());
}

#[test]
fn what_was_not_sent_yet_is_told_once() {
    let (scene, deny) = shut_out();
    scene.world.message(ROOM, ALICE, "still to go");
    let admit = list(&scene, &[], &[&deny.event_id], 41);
    assert!(accepted(&scene.receive(&[&admit])));
    assert_eq!(told(&scene, THERE), ["still to go"]);
}

#[test]
fn a_list_that_a_user_here_changed_in_vain_was_never_theirs() {
    let (scene, deny) = shut_out();
    scene.world.state(ROOM, ALICE, ACL, "", json!({"allow": ["*"]}));
    assert_eq!(told(&scene, THERE), [ACL]);
    let admit = list(&scene, &[], &[&deny.event_id], 41);
    assert!(accepted(&scene.receive(&[&admit])));
    assert_eq!(scene.state(ACL, ""), Some(admit.event_id.to_string()));
    assert_eq!(told(&scene, THERE), [ACL]);
}

#[test]
fn what_merely_crossed_with_a_list_is_told_once() {
    let scene = Scene::new();
    scene.world.state(ROOM, ALICE, "m.room.power_levels", "", json!({"users": {ALICE: 100, BOB: 50}}));
    let first = list(&scene, &["other.example"], &strs(&scene.ends()), 40);
    assert!(accepted(&scene.receive(&[&first])));
    scene.world.message(ROOM, ALICE, "heard");
    assert_eq!(told(&scene, THERE).last().map(String::as_str), Some("heard"));
    let second = list(&scene, &[], &[&first.event_id], 41);
    assert!(accepted(&scene.receive(&[&second])));
    assert_eq!(scene.ends().len(), 2);
    assert!(told(&scene, THERE).is_empty());
}

#[test]
fn a_state_that_is_adopted_lets_this_server_in_as_well() {
    let (scene, deny) = shut_out();
    scene.world.message(ROOM, ALICE, "unheard");
    told(&scene, THERE);
    let admit = list(&scene, &[], &[&deny.event_id], 41);
    let end = scene.message(BOB, &[&deny.event_id], 42);
    assert!(accepted(&scene.receive(&[&end])));
    scene.receive_outliers(&[&admit]);
    let mut state = scene.state_ids();
    state.retain(|event_id| *event_id != deny.event_id);
    state.push(admit.event_id.clone());
    let state = GivenState { event_id: end.event_id.clone(), state };
    let adopt = AdoptState { room_id: ROOM.into(), state };
    assert_eq!(scene.world.engine.write(adopt).wait().unwrap().changed, 1);
    assert_eq!(scene.state(ACL, ""), Some(admit.event_id.to_string()));
    assert_eq!(told(&scene, THERE), ["unheard"]);
}

/// Somebody of a third server comes in by way of the other.
fn daves_join(scene: &Scene, prev: &str) -> Pdu {
    let keys = StoreServerKeys { server_name: THIRD.into(), ..scene.peer.keys() };
    scene.world.engine.write(keys).wait().unwrap();
    let references = |ids: Vec<String>| {
        ids.into_iter().map(|id| EventReference::from(Arc::<str>::from(id))).collect::<Vec<_>>()
    };
    let builder = EventBuilder {
        room_id: Some(ROOM.into()),
        sender: DAVE.into(),
        kind: "m.room.member".into(),
        state_key: Some(DAVE.into()),
        content: json!({"membership": "join"}).as_object().cloned().unwrap(),
        redacts: None,
        prev_events: references(vec![prev.to_owned()]),
        auth_events: references(scene.auth(DAVE, "m.room.member", Some(DAVE), true)),
        depth: 41,
        origin_server_ts: START_MS + 41,
        event_id_localpart: None,
    };
    builder.build(version(), THIRD, &scene.peer.key).unwrap()
}

#[test]
fn who_came_into_the_room_since_is_not_told() {
    let (scene, deny) = shut_out();
    scene.world.message(ROOM, ALICE, "unheard");
    told(&scene, THERE);
    let join = daves_join(&scene, &deny.event_id);
    assert!(accepted(&scene.receive(&[&join])));
    let admit = list(&scene, &[], &[&join.event_id], 42);
    assert!(accepted(&scene.receive(&[&admit])));
    assert_eq!(told(&scene, THERE), ["unheard"]);
    assert!(told(&scene, THIRD).is_empty());
    // What is said next is for all, and leads there.
    scene.world.message(ROOM, ALICE, "next");
    assert_eq!([told(&scene, THERE), told(&scene, THIRD)], [["next"], ["next"]]);
}
