//! What a walk shows, in which order, and what it makes of what other servers tell.

use serde_json::{Value, json};

use super::*;
use crate::{fixture::World, room::hierarchy::CHILDREN_MAX};

const SPACE: &str = "!space:here.example";
const INNER: &str = "!inner:here.example";
const FAR: &str = "!far:there.example";
const ALICE: &str = "@alice:here.example";
const EVE: &str = "@eve:here.example";
const THERE: &str = "there.example";

fn room_id(name: &str) -> String {
    format!("!{name}:here.example")
}

fn list(world: &World, space: &str, room_id: &str, more: Value) {
    let mut content = json!({"via": [THERE]});
    content.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    world.state(space, ALICE, "m.space.child", room_id, content);
}

/// A public room here, listed by the space.
fn listed(world: &World, space: &str, name: &str) -> String {
    let id = room_id(name);
    world.room(&id, ALICE, None);
    list(world, space, &id, json!({"order": name}));
    id
}

fn space() -> World {
    let world = World::new();
    world.space(SPACE, ALICE);
    world
}

fn walk(world: &World, user: &str) -> Walk {
    Walk::new(&world.engine, SPACE, user, false, DEPTH_MAX).unwrap()
}

/// The names of the next rooms, at most so many, when nobody else knows anything.
fn names(world: &World, walk: &mut Walk, limit: usize) -> Vec<String> {
    let mut names = Vec::new();
    while names.len() < limit {
        match walk.advance(&world.engine).unwrap() {
            Next::Room => names.push(name(&walk.take().unwrap())),
            Next::Ask(questions) => questions.iter().for_each(|question| walk.told(question, None)),
            Next::Over => break,
        }
    }
    names
}

fn name(room: &SpaceRoom) -> String {
    let id = &*room.summary.room_id;
    id.split(':').next().unwrap_or(id).trim_start_matches('!').to_owned()
}

fn all(world: &World, user: &str) -> Vec<String> {
    names(world, &mut walk(world, user), usize::MAX)
}

#[test]
fn children_come_as_the_specification_orders_them() {
    let world = space();
    for name in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        world.room(&room_id(name), ALICE, None);
    }
    let too_long = "x".repeat(51);
    let orders = [
        ("c", json!({"order": "first"})),
        // What is not valid counts as none: these come last, by the time of the event.
        ("e", json!({})),
        ("h", json!({"order": too_long})),
        ("f", json!({"order": "ä"})),
        ("d", json!({"order": 5})),
        ("b", json!({"order": " "})),
        ("a", json!({"order": "aaaa"})),
        // The same as another, but later.
        ("g", json!({"order": "aaaa"})),
    ];
    for (name, more) in orders {
        list(&world, SPACE, &room_id(name), more);
    }
    assert_eq!(all(&world, ALICE), ["space", "b", "a", "g", "c", "e", "h", "f", "d"]);
    let told = |id: &str| json!({"type": "m.space.child", "state_key": id, "sender": "@a:b", "origin_server_ts": 5, "content": {"via": ["b"]}});
    let answer = json!({
        "room": {"room_id": FAR, "room_type": "m.space", "children_state": [told("!b:b"), told("!c:b"), told("!a:b")]},
    });
    let told = ToldSpace::read(FAR, false, answer.to_string().as_bytes()).unwrap();
    let ids: Vec<&str> = told.room.children_state.iter().flatten().map(|child| &*child.room_id).collect();
    assert_eq!(ids, ["!a:b", "!b:b", "!c:b"], "the same time: by the id");
}

#[test]
fn a_walk_is_depth_first_shows_each_room_once_and_ends() {
    let world = space();
    world.space(INNER, ALICE);
    list(&world, SPACE, INNER, json!({"order": "b"}));
    let (first, last) = (listed(&world, SPACE, "a"), listed(&world, SPACE, "z"));
    listed(&world, INNER, "m");
    // A space lists itself, the one around it, and rooms that are listed there.
    for id in [SPACE, INNER, &first, &last] {
        list(&world, INNER, id, json!({"order": "n", "suggested": id == last}));
    }
    // What is not in the space: without servers, without an id, and what a room that is no space lists.
    world.state(SPACE, ALICE, "m.space.child", &room_id("m"), json!({}));
    world.state(SPACE, ALICE, "m.space.child", "no id", json!({"via": [THERE]}));
    world.state(SPACE, ALICE, "m.space.child", "!none:x", json!({"via": []}));
    world.state(SPACE, ALICE, "m.space.child", "!odd:x", json!({"via": [5]}));
    list(&world, &first, "!unheard:x", json!({}));
    assert_eq!(all(&world, ALICE), ["space", "a", "inner", "m", "z"]);
    let at_depth = |depth| {
        let mut walk = Walk::new(&world.engine, SPACE, ALICE, false, depth).unwrap();
        names(&world, &mut walk, usize::MAX)
    };
    assert_eq!(at_depth(0), ["space"]);
    assert_eq!(at_depth(1), ["space", "a", "inner", "z"]);
    let mut suggested = Walk::new(&world.engine, INNER, ALICE, true, DEPTH_MAX).unwrap();
    assert_eq!(names(&world, &mut suggested, usize::MAX), ["inner", "z"]);
    let mut walk = walk(&world, ALICE);
    assert!(matches!(walk.advance(&world.engine), Ok(Next::Room)));
    let shown = serde_json::to_value(walk.take().unwrap()).unwrap();
    let (children, room_type) = (shown["children_state"].as_array().unwrap(), &shown["room_type"]);
    assert_eq!((children.len(), room_type, &shown["room_version"]), (3, &json!("m.space"), &json!("10")));
    let child = &children[0];
    assert_eq!(
        (&child["state_key"], &child["sender"], &child["content"]["order"]),
        (&json!(first), &json!(ALICE), &json!("a"))
    );
    assert!(child["origin_server_ts"].is_u64() && child["type"] == "m.space.child");
}

#[test]
fn who_sees_which_room() {
    let world = space();
    let other = room_id("other");
    world.room(&other, ALICE, None);
    world.join(SPACE, EVE);
    let rooms = [
        ("public", json!({"join_rule": "public"}), "shared", None),
        ("invite", json!({"join_rule": "invite"}), "shared", None),
        ("knock", json!({"join_rule": "knock"}), "shared", None),
        ("knock-restricted", json!({"join_rule": "knock_restricted", "allow": []}), "shared", None),
        (
            "of-members",
            json!({"join_rule": "restricted", "allow": [{"type": "m.room_membership", "room_id": SPACE}]}),
            "shared",
            None,
        ),
        (
            "of-others",
            json!({"join_rule": "restricted", "allow": [{"type": "m.room_membership", "room_id": other}]}),
            "shared",
            None,
        ),
        ("readable", json!({"join_rule": "invite"}), "world_readable", None),
        ("invited", json!({"join_rule": "invite"}), "shared", Some("invite")),
        ("joined", json!({"join_rule": "invite"}), "shared", Some("join")),
        ("banned", json!({"join_rule": "public"}), "shared", Some("ban")),
        ("banned-readable", json!({"join_rule": "public"}), "world_readable", Some("ban")),
    ];
    for (name, rule, visibility, membership) in rooms {
        let id = listed(&world, SPACE, name);
        world.state(&id, ALICE, "m.room.history_visibility", "", json!({"history_visibility": visibility}));
        if membership == Some("join") {
            world.join(&id, EVE);
        } else if let Some(membership) = membership {
            world.member(&id, ALICE, EVE, membership).unwrap();
        }
        world.state(&id, ALICE, "m.room.join_rules", "", rule);
    }
    let seen = [
        "space",
        "banned-readable",
        "invited",
        "joined",
        "knock",
        "knock-restricted",
        "of-members",
        "public",
        "readable",
    ];
    assert_eq!(all(&world, EVE), seen);
    world.join(&other, EVE);
    assert!(all(&world, EVE).contains(&"of-others".to_owned()));
    // Nothing is shown of a space that is not for the user, nor of what is not there.
    world.state(SPACE, ALICE, "m.room.join_rules", "", json!({"join_rule": "invite"}));
    assert!(all(&world, "@nobody:here.example").is_empty());
    let mut nowhere = Walk::new(&world.engine, "!nowhere:here.example", ALICE, false, 1).unwrap();
    assert!(names(&world, &mut nowhere, 1).is_empty());
}

#[test]
fn rooms_whose_members_may_come_in_are_named_by_ids() {
    let world = space();
    let condition = |room_id: Value| json!({"type": "m.room_membership", "room_id": room_id});
    let allow = [json!("garbage"), json!(5), json!("!"), json!(SPACE), json!("#a:b")].map(condition);
    world.state(SPACE, ALICE, "m.room.join_rules", "", json!({"join_rule": "restricted", "allow": allow}));
    let mut walk = walk(&world, ALICE);
    assert!(matches!(walk.advance(&world.engine), Ok(Next::Room)));
    assert_eq!(walk.take().unwrap().allowed_room_ids, [SPACE]);
}

#[test]
fn pages_go_on_where_they_were_when_the_space_changes() {
    let world = space();
    for name in ["a", "b", "c", "d"] {
        listed(&world, SPACE, name);
    }
    let mut first = walk(&world, EVE);
    assert_eq!(names(&world, &mut first, 2), ["space", "a"]);
    // The next room was looked for already; it is looked at anew.
    assert!(matches!(first.advance(&world.engine), Ok(Next::Room)));
    first.end_page();
    listed(&world, SPACE, "a0");
    world.state(SPACE, ALICE, "m.space.child", &room_id("c"), json!({}));
    world.state(&room_id("b"), ALICE, "m.room.join_rules", "", json!({"join_rule": "invite"}));
    // The same page twice.
    for mut walk in [first.clone(), first] {
        assert_eq!(names(&world, &mut walk, 2), ["c", "d"]);
        assert!(matches!(walk.advance(&world.engine), Ok(Next::Over)));
    }
    assert_eq!(all(&world, EVE), ["space", "a", "a0", "d"]);
}

/// What a server tells of a space there.
fn answer() -> Value {
    let child = |id: &str| json!({"type": "m.space.child", "state_key": id, "sender": "@a:there.example", "origin_server_ts": 5, "content": {"via": [THERE]}});
    let room = |id: &str, rule: &str| json!({"room_id": id, "num_joined_members": 3, "world_readable": false, "guest_can_join": false, "join_rule": rule, "name": id});
    let mut far = room(FAR, "public");
    far["room_type"] = "m.space".into();
    far["children_state"] =
        ["!1:x", "!2:x", "!3:x", "!4:x", "!5:x", "!hidden:here.example"].map(child).into();
    let mut of_members = room("!3:x", "restricted");
    of_members["allowed_room_ids"] = json!([SPACE]);
    let mut of_others = room("!2:x", "restricted");
    of_others["allowed_room_ids"] = json!(["!unheard:x"]);
    let mut inner = room("!5:x", "public");
    inner["room_type"] = "m.space".into();
    let forged = room("!hidden:here.example", "public");
    let unlisted = room("!unlisted:x", "public");
    let rooms = [room("!1:x", "public"), of_others, of_members, inner, forged, unlisted];
    json!({"room": far, "children": rooms, "inaccessible_children": ["!4:x"]})
}

fn tell(walk: &mut Walk, question: &Question, answer: &Value) {
    let told = ToldSpace::read(&question.room_id, false, answer.to_string().as_bytes());
    walk.told(question, told.map(Arc::new).as_ref());
}

/// The questions that a walk comes to, after the rooms that are shown before.
fn asked(world: &World, walk: &mut Walk) -> (Vec<String>, Vec<Question>) {
    let mut shown = Vec::new();
    loop {
        match walk.advance(&world.engine).unwrap() {
            Next::Room => shown.push(name(&walk.take().unwrap())),
            Next::Ask(questions) => return (shown, questions),
            Next::Over => return (shown, Vec::new()),
        }
    }
}

#[test]
fn what_others_tell_is_shown_as_far_as_the_user_may_see_it() {
    let world = space();
    world.join(SPACE, EVE);
    let hidden = listed(&world, SPACE, "hidden");
    world.state(&hidden, ALICE, "m.room.join_rules", "", json!({"join_rule": "invite"}));
    list(&world, SPACE, FAR, json!({"order": "a"}));
    list(&world, SPACE, "!beside:x", json!({"order": "b"}));
    let mut walk = walk(&world, EVE);
    let (shown, questions) = asked(&world, &mut walk);
    assert_eq!(shown, ["space"]);
    let ids: Vec<&str> = questions.iter().map(|question| &*question.room_id).collect();
    assert_eq!(ids, [FAR, "!beside:x"], "what is needed soon is asked for at the same time");
    assert_eq!(*questions[0].via, [THERE.to_owned()]);
    tell(&mut walk, &questions[0], &answer());
    walk.told(&questions[1], None);
    // Of the rooms there, one is for the members of a space in which the user is. The space in the space is asked for,
    // though it is told of; what is inaccessible, or here, is not.
    let (shown, questions) = asked(&world, &mut walk);
    assert_eq!(shown, ["far", "1", "3"]);
    let ids: Vec<&str> = questions.iter().map(|question| &*question.room_id).collect();
    assert_eq!(ids, ["!5:x"]);
    // Nobody tells what it lists: it is shown without that.
    walk.told(&questions[0], None);
    assert_eq!(asked(&world, &mut walk).0, ["5"]);
}

#[test]
fn a_room_that_one_server_does_not_tell_of_is_asked_of_others() {
    let world = space();
    world.space(INNER, ALICE);
    list(&world, SPACE, FAR, json!({"order": "a"}));
    list(&world, SPACE, INNER, json!({"order": "b"}));
    list(&world, INNER, FAR, json!({"via": ["third.example"]}));
    let mut walk = walk(&world, EVE);
    let (_, questions) = asked(&world, &mut walk);
    assert_eq!(questions.len(), 1);
    walk.told(&questions[0], None);
    let (shown, questions) = asked(&world, &mut walk);
    assert_eq!(
        (shown.as_slice(), &*questions[0].via),
        (&["inner".to_owned()][..], &["third.example".to_owned()][..])
    );
    tell(&mut walk, &questions[0], &answer());
    assert_eq!(asked(&world, &mut walk).0.first().map(String::as_str), Some("far"));
}

#[test]
fn an_answer_is_read_as_far_as_it_makes_sense() {
    let read = |answer: &Value| ToldSpace::read(FAR, false, answer.to_string().as_bytes());
    let told = read(&answer()).unwrap();
    assert_eq!(told.children.len(), 5, "what is not listed is left out");
    let about_another = json!({"room": {"room_id": "!other:x"}});
    for bad in [json!([]), json!({}), json!({"room": 5}), json!({"room": {"room_id": 5}}), about_another] {
        assert!(read(&bad).is_none(), "{bad}");
    }
    let mut odd = answer();
    odd["room"]["name"] = json!({"en": "Far"});
    odd["room"]["num_joined_members"] = json!(-5);
    odd["room"]["canonical_alias"] = json!("garbage");
    odd["room"]["allowed_room_ids"] = json!(["garbage", SPACE]);
    odd["room"]["room_version"] = json!("x".repeat(33));
    odd["room"]["children_state"].as_array_mut().unwrap().extend([
        json!(5),
        json!({"type": "m.room.name", "state_key": "!1:x", "sender": "@a:b", "origin_server_ts": 5, "content": {"via": ["b"]}}),
        json!({"type": "m.space.child", "state_key": "!9:x", "sender": "@a:b", "content": {"via": ["b"]}}),
    ]);
    let told = read(&odd).unwrap();
    assert_eq!((&told.room.summary.name, told.room.summary.num_joined_members), (&None, 0));
    assert_eq!((&told.room.summary.canonical_alias, &told.room.room_version), (&None, &None));
    assert_eq!(told.room.allowed_room_ids, [SPACE]);
    assert_eq!(told.room.children_state.as_ref().unwrap().len(), 6);
    // A room that is no space lists nothing.
    odd["room"]["room_type"] = Value::Null;
    assert!(read(&odd).unwrap().room.children_state.as_ref().unwrap().is_empty());
}

/// What a server tells of a space that lists so many rooms, named after the space, with so much in each event besides.
fn large(space: &str, count: usize, padding: usize) -> Value {
    let padding = "p".repeat(padding);
    let child = |number: usize| {
        let content = json!({"via": ["b"], "padding": padding});
        let id = format!("!{}-{number}:x", space.len());
        json!({"type": "m.space.child", "state_key": id, "sender": "@a:b", "origin_server_ts": number, "content": content})
    };
    let children: Vec<Value> = (0..count).map(child).collect();
    json!({"room": {"room_id": space, "room_type": "m.space", "children_state": children}})
}

#[test]
fn nobody_makes_a_space_too_large() {
    let listed = |count, padding| {
        let answer = large(FAR, count, padding).to_string();
        let told = ToldSpace::read(FAR, false, answer.as_bytes()).unwrap();
        told.room.children_state.as_ref().unwrap().len()
    };
    assert_eq!(listed(CHILDREN_MAX + 1, 0), CHILDREN_MAX);
    assert_eq!(listed(50, 60_000), 17);
    // Spaces that list a thousand spaces each, one in the other.
    let world = space();
    list(&world, SPACE, FAR, json!({}));
    let mut walk = walk(&world, EVE);
    let mut rounds_when_full = 0;
    while rounds_when_full < 3 {
        let (_, questions) = asked(&world, &mut walk);
        let count = walk.ahead.len() + walk.seen.len();
        assert!(count <= ROOMS_MAX);
        rounds_when_full += usize::from(count == ROOMS_MAX);
        for question in &questions {
            tell(&mut walk, question, &large(&question.room_id, CHILDREN_MAX, 0));
        }
    } // Between two pages it holds no answers, and not much of anything.
    walk.end_page();
    assert!(walk.ahead.iter().all(|place| !matches!(place.told, Some(Some(_)))));
    assert!(walk.size() < ROOMS_MAX * 500);
}

/// Elements of few bytes take much memory each once they are values: they are read past, or counted for what they take.
#[test]
fn an_answer_takes_no_more_than_it_is_counted_for() {
    let read = |answer: &Value| ToldSpace::read(FAR, false, answer.to_string().as_bytes()).unwrap();
    let mut crowded = answer();
    let plain = read(&crowded);
    // What is read past is not even looked at.
    let rooms = crowded["children"].as_array_mut().unwrap();
    rooms.resize(CHILDREN_MAX, json!({}));
    rooms.extend([json!(5), json!({"room_id": "!5:x"})]);
    let ids = crowded["inaccessible_children"].as_array_mut().unwrap();
    ids.resize(CHILDREN_MAX, json!(""));
    ids.push(json!(5));
    crowded["room"]["unheard of"] = json!([{"a": 0}, {"a": 0}]);
    let told = read(&crowded);
    assert_eq!(
        (told.children.len(), told.inaccessible.len()),
        (plain.children.len(), plain.inaccessible.len())
    );
    crowded["children"][0]["allowed_room_ids"] = vec!["!a"; 2 * CHILDREN_MAX].into();
    let told = read(&crowded);
    assert_eq!(told.children["!1:x"].allowed_room_ids.len(), CHILDREN_MAX);
    let names = CHILDREN_MAX * size_of::<String>();
    assert!(told.size > crowded.to_string().len() + names, "{}", told.size);
    // What is larger than any event lists nothing.
    let listed = |padding| read(&large(FAR, 1, padding)).room.children_state.as_ref().map(Vec::len);
    assert_eq!((listed(60_000), listed(70_000)), (Some(1), Some(0)));
}

#[test]
fn what_was_told_beside_a_space_is_kept_between_pages_unless_it_is_long() {
    let world = space();
    let beside_of = |topic: &str| {
        let mut answer = answer();
        for room in answer["children"].as_array_mut().unwrap() {
            room["topic"] = topic.into();
        }
        let mut walk = Walk::new(&world.engine, FAR, EVE, false, DEPTH_MAX).unwrap();
        let (_, questions) = asked(&world, &mut walk);
        tell(&mut walk, &questions[0], &answer);
        assert!(matches!(walk.advance(&world.engine), Ok(Next::Room)));
        walk.take().unwrap();
        walk.end_page();
        assert!(walk.size() <= PAUSED_BYTES_MAX);
        walk.ahead.iter().filter(|place| place.beside.is_some()).count()
    };
    assert_eq!(beside_of("short"), 5);
    assert_eq!(beside_of(&"long ".repeat(200_000)), 0);
}
