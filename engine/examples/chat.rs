//! Two users, a room, a message, and what a sync says of it: `cargo run -p warren-engine --example chat`.

use std::{error::Error, sync::Arc};

use warren_engine::{
    Engine, Options, Result,
    command::{ChangeMembership, CreateRoom, MembershipAction, Register, SendEvent},
    view::Sync,
};

fn main() -> std::result::Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let engine = Engine::open_embedded(folder.path(), 64 << 20, Options::new("example.org"))?;
    let (alice, bob) = (register(&engine, "alice")?, register(&engine, "bob")?);

    let room = CreateRoom { invite: vec![bob.clone()], ..CreateRoom::new(&alice, "12") };
    let room_id = engine.write(room).wait()?;
    let join = ChangeMembership {
        room_id: room_id.clone(),
        sender: bob.clone(),
        target: bob.clone(),
        action: MembershipAction::Join,
        reason: None,
        is_guest: false,
    };
    engine.write(join).wait()?;

    let (user_id, filter) = (bob.clone(), Arc::default());
    let first = Sync {
        user_id,
        device_id: None,
        since: None,
        filter,
        full_state: false,
        state_after: None,
        waits: false,
    };
    let seen = engine.read(&first)?.token;
    std::thread::scope(|scope| -> std::result::Result<(), Box<dyn Error>> {
        // Bob waits for what comes after his first sync; a program with a runtime awaits it instead.
        let bobs_wait = scope.spawn(|| engine.wait(&bob, seen.pos).block());
        println!("{alice} sends {}", send(&engine, &room_id, &alice, "Hello, Bob")?);
        bobs_wait.join().map_err(|_| "the waiting thread failed")?;
        let news = engine.read(&Sync { since: Some(seen), ..first })?;
        println!("{bob} sees {}", String::from_utf8(news.body)?);
        Ok(())
    })
}

fn register(engine: &Engine, localpart: &str) -> Result<String> {
    Ok(engine.write(Register { localpart: localpart.into(), ..Register::default() }).wait()?.user_id)
}

fn send(engine: &Engine, room_id: &str, sender: &str, body: &str) -> Result<String> {
    let content = [("msgtype", "m.text"), ("body", body)];
    let content = content.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
    engine.write(SendEvent::message(room_id, sender, content)).wait()
}
