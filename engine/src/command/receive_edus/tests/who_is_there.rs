//! How present users of other servers are.

use serde_json::{Value, json};

use super::*;
use crate::{
    command::{EndPresence, SettlePresence},
    fixture::observed::Observed,
    stream::ELSEWHERE_HOLD_MS,
    view::federation::TakeEarlyPresence,
};

/// Alice, in a room of her own.
fn alone() -> World {
    alone_in(World::new())
}

fn alone_in(world: World) -> World {
    register(&world, "alice", &["A"]);
    world.room(ROOM, ALICE, None);
    world
}

fn tell(world: &World, presence: &str) {
    let update = json!({"user_id": BOB, "presence": presence, "status_msg": presence, "last_active_ago": 1});
    receive(world, THERE, &[("m.presence", json!({"push": [update]}))]);
}

/// What the server does every two seconds.
fn settle_presence(world: &World) {
    world.engine.write(EndPresence).wait().unwrap();
    let early = world.engine.read(&TakeEarlyPresence).unwrap();
    world.engine.write(SettlePresence { early }).wait().unwrap();
}

fn shown(world: &World, user: &str) -> Value {
    world.ask(|reader| Ok(presence::content(reader, reader.user_num(user)?.unwrap())?["presence"].clone()))
}

#[test]
fn presence_is_shown_of_those_who_share_a_room() {
    let world = world();
    let push = json!([
        {"user_id": BOB, "presence": "online", "status_msg": "there", "last_active_ago": 1},
        {"user_id": ALICE, "presence": "unavailable", "last_active_ago": 1},
        {"user_id": BOB, "presence": "drowsy", "last_active_ago": 1},
    ]);
    receive(&world, THERE, &[("m.presence", json!({"push": push}))]);
    assert_eq!((shown(&world, BOB), shown(&world, ALICE)), (json!("online"), json!("offline")));
    // What a server says holds while it says nothing else, but not for ever.
    world.pass_ms(10 * 60 * 1000);
    world.engine.write(EndPresence).wait().unwrap();
    assert_eq!(shown(&world, BOB), "online");
    world.pass_ms(ELSEWHERE_HOLD_MS);
    world.engine.write(EndPresence).wait().unwrap();
    assert_eq!(shown(&world, BOB), "offline");
}

#[test]
fn how_active_somebody_is_elsewhere_is_shown_as_their_server_says() {
    let world = world();
    let tell = |presence: &str, currently_active: bool, last_active_ago: u64| {
        let update = json!({
            "user_id": BOB, "presence": presence, "currently_active": currently_active,
            "last_active_ago": last_active_ago,
        });
        receive(&world, THERE, &[("m.presence", json!({"push": [update]}))]);
    };
    let shown = || {
        let content = world.ask(|reader| Ok(presence::content(reader, reader.user_num(BOB)?.unwrap())?));
        (content["presence"].clone(), content["currently_active"].clone(), content["last_active_ago"].clone())
    };
    for (presence, currently_active, ago) in [
        ("online", false, 600_000),
        // The same again, with another time.
        ("online", false, 30_000),
        ("online", true, 30_000),
        ("unavailable", false, 900_000),
    ] {
        tell(presence, currently_active, ago);
        assert_eq!(shown(), (json!(presence), json!(currently_active), json!(ago)));
    }
    world.pass_ms(5);
    assert_eq!(shown().2, json!(900_005));
}

#[test]
fn what_is_told_before_a_room_is_entered_is_shown_when_it_is() {
    let world = alone();
    tell(&world, "online");
    settle_presence(&world);
    assert!(world.ask(|reader| Ok(reader.user_num(BOB)?)).is_none(), "nothing is stored of it");
    world.pass_ms(60_000);
    world.join(ROOM, BOB);
    settle_presence(&world);
    assert_eq!(shown(&world, BOB), "online");
    // It holds as long as if it had been shown at once.
    world.pass_ms(ELSEWHERE_HOLD_MS - 60_000);
    settle_presence(&world);
    assert_eq!(shown(&world, BOB), "offline");
}

#[test]
fn what_is_told_early_gives_way_to_what_is_told_later() {
    for (early, later) in [("online", "unavailable"), ("unavailable", "online")] {
        let world = alone();
        tell(&world, early);
        tell(&world, later);
        world.join(ROOM, BOB);
        settle_presence(&world);
        assert_eq!(shown(&world, BOB), later, "both came early");

        let world = alone();
        tell(&world, early);
        world.join(ROOM, BOB);
        tell(&world, later);
        settle_presence(&world);
        assert_eq!(shown(&world, BOB), later);

        let world = alone();
        tell(&world, early);
        world.join(ROOM, BOB);
        let taken = world.engine.read(&TakeEarlyPresence).unwrap();
        assert_eq!(taken.len(), 1);
        tell(&world, later);
        world.engine.write(SettlePresence { early: taken }).wait().unwrap();
        assert_eq!(shown(&world, BOB), later, "it came while the other was on its way");
    }
}

#[test]
fn what_is_told_too_early_or_taken_back_is_forgotten() {
    for take_back in [true, false] {
        let world = alone();
        tell(&world, "online");
        match take_back {
            true => tell(&world, "offline"),
            false => world.pass_ms(10 * 60 * 1000),
        }
        world.join(ROOM, BOB);
        settle_presence(&world);
        assert_eq!(shown(&world, BOB), "offline", "{take_back}");
    }
}

#[test]
fn what_is_told_early_is_not_lost_by_a_look_that_fails() {
    const EVE: &str = "@eve:there.example";
    for reads in 0.. {
        let store = Observed::failing_once();
        let world = alone_in(World::on(store.clone()));
        tell(&world, "online");
        let of_eve = json!({"user_id": EVE, "presence": "online", "last_active_ago": 1});
        receive(&world, THERE, &[("m.presence", json!({"push": [of_eve]}))]);
        world.join(ROOM, BOB);
        world.join(ROOM, EVE);
        store.observer.fail_after(reads);
        let looked = world.engine.read(&TakeEarlyPresence);
        if store.observer.spare() {
            assert!(reads > 1, "something is read of both");
            break;
        }
        assert!(looked.is_err());
        settle_presence(&world);
        assert_eq!([shown(&world, BOB), shown(&world, EVE)], ["online", "online"], "after {reads} reads");
    }
}
