//! Order, pages both ways, and the search.

use serde_json::{Value, json, value::to_raw_value};

use super::{PUBLIC_ROOMS_BYTES_MAX, PUBLIC_ROOMS_MAX, PublicRooms, PublicRoomsPage};
use crate::{
    command::{ChangeMembership, CreateRoom, MembershipAction, SetAlias},
    fixture::World,
    room::{Preset, RoomSummary},
};

/// A listed room with that many members besides its creator.
fn room(world: &World, name: &str, others: usize, room_type: Option<&str>) -> String {
    let mut request = CreateRoom::new("@alice:here.example", "12");
    request.preset = Preset::PublicChat;
    request.is_listed = true;
    request.name = Some(name.to_owned());
    request.topic = Some(format!("All about {name}"));
    if let Some(room_type) = room_type {
        request.creation_content.insert("type".to_owned(), json!(room_type));
    }
    let room_id = world.engine.write(request).wait().unwrap();
    for index in 0..others {
        let user = format!("@user{index}:here.example");
        let join = ChangeMembership {
            room_id: room_id.clone(),
            sender: user.clone(),
            target: user,
            action: MembershipAction::Join,
            reason: None,
            is_guest: false,
        };
        world.engine.write(join).wait().unwrap();
    }
    room_id
}

fn names(page: &PublicRoomsPage) -> Vec<&str> {
    page.rooms.iter().map(|room| room.name.as_deref().unwrap()).collect()
}

fn page(world: &World, limit: usize, since: Option<String>) -> PublicRoomsPage {
    world.engine.read(&PublicRooms { limit, since, ..Default::default() }).unwrap()
}

#[test]
fn pages_forward_and_back() {
    let world = World::new();
    for (name, others) in [("one", 0), ("four", 3), ("two", 1), ("three", 2), ("also one", 0)] {
        room(&world, name, others, None);
    }
    let first = page(&world, 2, None);
    assert_eq!(names(&first), ["four", "three"]);
    assert_eq!((first.total, &first.prev_batch), (5, &None));
    let second = page(&world, 2, first.next_batch);
    assert_eq!(names(&second), ["two", "one"]);
    let third = page(&world, 2, second.next_batch.clone());
    assert_eq!(names(&third), ["also one"]);
    assert_eq!(third.next_batch, None);
    let back = page(&world, 2, third.prev_batch);
    assert_eq!(names(&back), ["two", "one"]);
    let start = page(&world, 2, back.prev_batch);
    assert_eq!(names(&start), ["four", "three"]);
    assert_eq!(start.prev_batch, None);
    assert!(
        world.engine.read(&PublicRooms { since: Some("burrow".to_owned()), ..Default::default() }).is_err()
    );
}

#[test]
fn large_rooms_are_on_more_pages_and_on_one_each() {
    let world = World::new();
    // With their names and topics some 40 KB each, of which some seventeen are a page.
    let rooms: Vec<String> =
        (0..40).map(|number| room(&world, &format!("{number} {}", "x".repeat(20_000)), 0, None)).collect();
    let ids = |page: &PublicRoomsPage| -> Vec<String> {
        page.rooms.iter().map(|room| room.room_id.to_string()).collect()
    };
    let mut pages: Vec<Vec<String>> = Vec::new();
    let (mut since, mut before) = (None, None);
    loop {
        let found = page(&world, PUBLIC_ROOMS_MAX, since);
        assert!(serde_json::to_vec(&found.rooms).unwrap().len() <= PUBLIC_ROOMS_BYTES_MAX + rooms.len());
        pages.push(ids(&found));
        since = found.next_batch;
        if since.is_none() {
            break;
        }
        before = since.clone();
    }
    assert!((3..=4).contains(&pages.len()), "{}", pages.len());
    assert_eq!(pages.concat(), rooms);
    // And back from the last.
    let last = page(&world, PUBLIC_ROOMS_MAX, before);
    let back = page(&world, PUBLIC_ROOMS_MAX, last.prev_batch);
    assert!(!back.rooms.is_empty() && pages[..pages.len() - 1].concat().ends_with(&ids(&back)));
}

#[test]
fn searches_names_topics_and_types() {
    let world = World::new();
    room(&world, "Carrots", 1, None);
    let space = room(&world, "Burrows", 0, Some("m.space"));
    let find = |search_term: Option<&str>, room_types: Option<Vec<Option<String>>>| {
        let search_term = search_term.map(str::to_owned);
        let query = PublicRooms { limit: 10, search_term, room_types, ..Default::default() };
        world.engine.read(&query).unwrap()
    };
    assert_eq!(names(&find(Some("all about carr"), None)), ["Carrots"]);
    assert_eq!(names(&find(Some("nothing"), None)), [""; 0]);
    assert_eq!(names(&find(None, Some(vec![None]))), ["Carrots"]);
    let spaces = find(None, Some(vec![Some("m.space".to_owned())]));
    assert_eq!(&*spaces.rooms[0].room_id, space);
    let entry = serde_json::to_value(&spaces.rooms[0]).unwrap();
    assert_eq!(
        entry,
        json!({
            "room_id": space,
            "num_joined_members": 1,
            "world_readable": false,
            "guest_can_join": false,
            "name": "Burrows",
            "topic": "All about Burrows",
            "join_rule": "public",
            "room_type": "m.space",
        })
    );
}

#[test]
fn what_is_no_alias_or_address_is_not_shown() {
    let world = World::new();
    let id = room(&world, "Burrow", 0, None);
    let alice = "@alice:here.example";
    let shown = || {
        let listed = page(&world, 1, None);
        let entry = &listed.rooms[0];
        (entry.canonical_alias.clone(), entry.avatar_url.clone())
    };
    for odd in
        [json!("garbage"), json!("#burrow"), json!("#burrow:no server"), json!(5), json!(""), json!(null)]
    {
        world.state(&id, alice, "m.room.canonical_alias", "", json!({"alias": odd}));
        world.state(&id, alice, "m.room.avatar", "", json!({"url": odd}));
        assert_eq!(shown(), (None, None), "{odd}");
    }
    let (alias, url) = ("#burrow:there.example".to_owned(), "mxc://here.example/bunny".to_owned());
    world.state(&id, alice, "m.room.canonical_alias", "", json!({"alias": alias}));
    world.state(&id, alice, "m.room.avatar", "", json!({"url": url}));
    assert_eq!(shown(), (Some(alias), Some(url)));
}

#[test]
fn an_alias_of_this_server_is_shown_of_the_room_that_it_leads_to() {
    let world = World::new();
    let ids = [room(&world, "Burrow", 1, None), room(&world, "Fox", 0, None)];
    let (alice, alias) = ("@alice:here.example", "#burrow:here.example");
    // As a member's server that checks nothing would send it.
    ids.iter()
        .for_each(|id| drop(world.state(id, alice, "m.room.canonical_alias", "", json!({"alias": alias}))));
    let shown =
        || page(&world, 2, None).rooms.into_iter().map(|room| room.canonical_alias).collect::<Vec<_>>();
    assert_eq!(shown(), [None, None]);
    let set = SetAlias { alias: alias.to_owned(), room_id: ids[0].clone(), user_id: alice.to_owned() };
    world.engine.write(set).wait().unwrap();
    assert_eq!(shown(), [Some(alias.to_owned()), None]);
}

#[test]
fn what_others_tell_of_a_room_is_read_as_far_as_it_makes_sense() {
    let read = |told: &Value| RoomSummary::read(&to_raw_value(told).unwrap()).map(|read| json!(read));
    let least =
        json!({"room_id": "!a:b", "num_joined_members": 0, "world_readable": false, "guest_can_join": false});
    let whole = json!({
        "room_id": "!a:b", "num_joined_members": 3, "world_readable": true, "guest_can_join": true, "name": "A", "topic": "All",
        "canonical_alias": "#a:b", "avatar_url": "mxc://b/a", "join_rule": "knock", "room_type": "m.space",
    });
    for told in [&least, &whole] {
        assert_eq!(read(told).as_ref(), Some(told));
    }
    assert_eq!(read(&json!({"room_id": "!a:b", "more": {}})).as_ref(), Some(&least));
    for odd in [json!(null), json!(5.5), json!([]), json!({}), json!("garbage"), json!(-1), json!(1u64 << 53)]
    {
        let mut told = least.clone();
        let members =
            ["num_joined_members", "world_readable", "guest_can_join", "canonical_alias", "avatar_url"];
        members.iter().for_each(|member| told[*member] = odd.clone());
        assert_eq!(read(&told).as_ref(), Some(&least), "{odd}");
        assert_eq!(read(&json!({"room_id": odd})), None, "{odd}");
        assert_eq!(read(&odd), None, "{odd}");
    }
}
