//! Accounts through the façade: registering, sessions, tokens, profiles and what users store about themselves.

mod profiles;

use std::sync::Arc;

use serde_json::json;

use super::{NewSession, Session, Tokens, account_data, filters, passing_tokens::TokenPurpose, profile};
use crate::{
    Command, Conflict, Denied, Error, Invalid, PresenceState, What,
    check::Check,
    command::{
        ChangePassword, CreateKeyBackup, Deactivate, EndDeactivation, EndOlderTokens, LogIn, MakeFirstToken,
        MakePassingToken, MakeRegistrationToken, PutBackupKeys, RefreshTokens, Register, Registered,
        RemoveDevices, SetAccount, SetAccountData, SetPresence, SetProfileField, SetTag, SpendPassingToken,
        StoreFilter, UpgradeGuest, WhichDevices,
    },
    core::num::{StreamPos, UserNum},
    error::Result,
    fixture::{SERVER, World},
    store::{Direction, RestOfKey, schema},
    view::{
        AccountData, Deactivations, Devices, FirstToken, HashParameters, NameIsFree, OwnerOfPassingToken,
        OwnerOfRefreshToken, RegistrationTokenIsValid, SessionOfToken,
    },
};

const BILBO: &str = "@bilbo:here.example";
const ROOM: &str = "!room:here.example";

fn run<C: Command>(world: &World, command: C) -> Result<C::Output> {
    world.engine.write(command).wait()
}

fn register(world: &World, localpart: &str) -> Registered {
    let password_hash = Some("first".to_owned());
    let session = Some(NewSession::default());
    run(world, Register { localpart: localpart.into(), password_hash, session, ..Register::default() })
        .unwrap()
}

fn bilbo(world: &World) -> Tokens {
    register(world, "bilbo").tokens.unwrap()
}

fn log_in(world: &World, session: NewSession) -> Tokens {
    run(world, LogIn { user_id: BILBO.into(), proven_hash: None, session }).unwrap()
}

fn session(world: &World, token: &str) -> Option<Arc<Session>> {
    world.engine.read(&SessionOfToken(token)).unwrap()
}

fn user(world: &World, user_id: &str) -> UserNum {
    world.ask(|reader| Ok(reader.user_num(user_id)?)).unwrap()
}

fn remove(world: &World, devices: WhichDevices) {
    run(world, RemoveDevices { user_id: BILBO.into(), devices }).unwrap();
}

#[test]
fn a_name_is_taken_once_and_for_ever() {
    let world = World::new();
    bilbo(&world);
    let again = || run(&world, Register { localpart: "bilbo".into(), ..Register::default() }).map(|_| ());
    assert!(matches!(again(), Err(Error::Conflict(Conflict::UserInUse))));
    run(&world, Deactivate { user_id: BILBO.into(), erase: true }).unwrap();
    assert!(matches!(again(), Err(Error::Conflict(Conflict::UserInUse))));
    let free = |name: &str| world.engine.read(&NameIsFree(name));
    assert!(matches!(free("bilbo"), Err(Error::Conflict(Conflict::UserInUse))));
    assert!(free("frodo").is_ok());
    for name in ["", "Bilbo", "a b", "a:b", "é", &"a".repeat(255 - SERVER.len() - 1)] {
        assert!(matches!(free(name), Err(Error::Invalid(Invalid::UserName(_)))), "{name}");
    }
    assert!(free(&"a".repeat(255 - SERVER.len() - 2)).is_ok());
}

#[test]
fn the_first_token_makes_one_administrator() {
    let world = World::new();
    let token = run(&world, MakeFirstToken).unwrap().unwrap();
    assert_eq!(run(&world, MakeFirstToken).unwrap().as_ref(), Some(&token), "it stays the same over starts");
    run(&world, Register { localpart: "guest".into(), is_guest: true, ..Register::default() }).unwrap();
    assert!(world.engine.read(&RegistrationTokenIsValid(&token)).unwrap(), "guests leave it alone");
    let with_token = |localpart: &str| Register {
        localpart: localpart.into(),
        registration_token: Some(token.clone()),
        ..Register::default()
    };
    assert!(run(&world, with_token("bilbo")).unwrap().is_admin);
    let second = run(&world, with_token("frodo"));
    assert!(matches!(second, Err(Error::Denied(Denied::RegistrationToken))));
    assert!(world.engine.read(&NameIsFree("frodo")).is_ok(), "a refused registration leaves nothing");
    assert_eq!(world.engine.read(&FirstToken).unwrap(), None);
    assert_eq!(run(&world, MakeFirstToken).unwrap(), None);
}

#[test]
fn a_guest_becomes_a_user_by_their_own_token() {
    let world = World::new();
    let first = run(&world, MakeFirstToken).unwrap().unwrap();
    let guest = |localpart: &str| {
        let session = Some(NewSession::default());
        let register =
            Register { localpart: localpart.into(), is_guest: true, session, ..Register::default() };
        run(&world, register).unwrap().tokens.unwrap()
    };
    let (own, other) = (guest("bilbo"), guest("frodo"));
    assert!(session(&world, &own.access_token).unwrap().is_guest);
    let upgrade = |access_token: &str, registration_token: Option<&str>| {
        run(
            &world,
            UpgradeGuest {
                user_id: BILBO.into(),
                access_token: access_token.into(),
                password_hash: "first".into(),
                registration_token: registration_token.map(Into::into),
                session: Some(NewSession::default()),
            },
        )
    };
    for token in [other.access_token.as_str(), "wat_unknown"] {
        assert!(matches!(upgrade(token, None), Err(Error::Denied(Denied::NotThisGuest))));
    }
    let wrong = upgrade(&own.access_token, Some("no such token"));
    assert!(matches!(wrong, Err(Error::Denied(Denied::RegistrationToken))));
    assert!(session(&world, &own.access_token).unwrap().is_guest, "what is refused changes nothing");
    let upgraded = upgrade(&own.access_token, Some(&first)).unwrap();
    assert!(upgraded.is_admin && upgraded.user_id == BILBO);
    let tokens = upgraded.tokens.unwrap();
    for token in [&own.access_token, &tokens.access_token] {
        assert!(!session(&world, token).unwrap().is_guest);
    }
    assert_ne!(tokens.device_id, own.device_id);
    assert!(session(&world, &other.access_token).unwrap().is_guest);
    assert!(!world.engine.read(&RegistrationTokenIsValid(&first)).unwrap());
    let again = upgrade(&own.access_token, None);
    assert!(matches!(again, Err(Error::Denied(Denied::NotThisGuest))), "a user is no guest");
}

#[test]
fn any_account_ends_the_first_token() {
    let world = World::new();
    let token = run(&world, MakeFirstToken).unwrap().unwrap();
    assert!(!register(&world, "bilbo").is_admin);
    assert!(!world.engine.read(&RegistrationTokenIsValid(&token)).unwrap());
}

#[test]
fn a_further_token_makes_one_account_that_does_not_administer() {
    let world = World::new();
    let first = run(&world, MakeRegistrationToken).unwrap();
    assert!(first.is_first, "the first account is to be the administrator's");
    assert_eq!(run(&world, MakeFirstToken).unwrap(), Some(first.token));
    register(&world, "bilbo");
    let (token, other) =
        (run(&world, MakeRegistrationToken).unwrap(), run(&world, MakeRegistrationToken).unwrap());
    assert!(!token.is_first && !other.is_first && token.token != other.token);
    let with_token = |localpart: &str| {
        let registration_token = Some(token.token.clone());
        run(&world, Register { localpart: localpart.into(), registration_token, ..Register::default() })
    };
    assert!(!with_token("frodo").unwrap().is_admin);
    assert!(matches!(with_token("sam"), Err(Error::Denied(Denied::RegistrationToken))));
    assert!(world.engine.read(&RegistrationTokenIsValid(&other.token)).unwrap(), "it is a token of its own");
}

#[test]
fn a_token_stands_for_its_device_until_it_is_logged_out() {
    let world = World::new();
    let first = bilbo(&world);
    let second = log_in(&world, NewSession::default());
    let found = session(&world, &first.access_token).unwrap();
    assert_eq!(found.user_id, BILBO);
    assert_eq!(found.device_id.as_deref().map(|id| id.as_str()), Some(first.device_id.as_str()));
    assert!(session(&world, "wat_unknown").is_none());
    // Both were read, so that both are in memory when one of them ends.
    assert!(session(&world, &second.access_token).is_some());
    remove(&world, WhichDevices::These(vec![first.device_id.clone()]));
    assert!(session(&world, &first.access_token).is_none());
    assert!(session(&world, &second.access_token).is_some());
    remove(&world, WhichDevices::All);
    assert!(session(&world, &second.access_token).is_none());
    assert_eq!(world.engine.read(&Devices(user(&world, BILBO))).unwrap(), []);
}

#[test]
fn what_an_old_reader_finds_is_not_remembered() {
    let world = World::new();
    let tokens = bilbo(&world);
    let hash = super::sessions::token_hash(&tokens.access_token);
    let found = world.ask(|reader| {
        // The session ends between the reader's moment and its question.
        remove(&world, WhichDevices::All);
        super::sessions::find(reader, &hash)
    });
    assert!(found.is_some(), "in the reader's moment the session was good");
    assert!(session(&world, &tokens.access_token).is_none());
}

#[test]
fn logging_in_on_a_device_ends_its_older_token() {
    let world = World::new();
    let first = bilbo(&world);
    assert!(session(&world, &first.access_token).is_some());
    let same = NewSession { device_id: Some(first.device_id.clone()), ..NewSession::default() };
    let second = log_in(&world, same);
    assert_eq!(second.device_id, first.device_id);
    assert!(session(&world, &first.access_token).is_none());
    assert!(session(&world, &second.access_token).is_some());
}

#[test]
fn changes_of_the_account_show_in_its_sessions_at_once() {
    let world = World::new();
    let tokens = bilbo(&world);
    let set = |change: SetAccount| run(&world, SetAccount { user_id: BILBO.into(), ..change }).unwrap();
    assert!(!session(&world, &tokens.access_token).unwrap().is_locked);
    set(SetAccount { is_locked: Some(true), ..SetAccount::default() });
    assert!(session(&world, &tokens.access_token).unwrap().is_locked);
    set(SetAccount { is_locked: Some(false), is_suspended: Some(true), ..SetAccount::default() });
    let found = session(&world, &tokens.access_token).unwrap();
    assert!(!found.is_locked && found.is_suspended);
}

#[test]
fn a_new_password_ends_what_the_old_one_proved() {
    let world = World::new();
    let (kept, other) = (bilbo(&world), log_in(&world, NewSession::default()));
    assert!(session(&world, &other.access_token).is_some());
    let change = |proven: &str| ChangePassword {
        user_id: BILBO.into(),
        proven_hash: Some(proven.into()),
        password_hash: "second".into(),
        log_out: WhichDevices::AllBut(kept.device_id.clone()),
    };
    run(&world, change("first")).unwrap();
    assert!(session(&world, &kept.access_token).is_some());
    assert!(session(&world, &other.access_token).is_none());
    let late = run(&world, change("first"));
    assert!(matches!(late, Err(Error::Denied(Denied::CredentialsChanged))));
    let proven_hash = Some("first".to_owned());
    let log_in = LogIn { user_id: BILBO.into(), proven_hash, session: NewSession::default() };
    assert!(matches!(run(&world, log_in), Err(Error::Denied(Denied::CredentialsChanged))));
}

#[test]
fn a_deactivated_account_stays_closed() {
    let world = World::new();
    let tokens = bilbo(&world);
    run(&world, Deactivate { user_id: BILBO.into(), erase: false }).unwrap();
    assert!(session(&world, &tokens.access_token).is_none());
    let log_in = LogIn { user_id: BILBO.into(), proven_hash: None, session: NewSession::default() };
    assert!(matches!(run(&world, log_in), Err(Error::Denied(Denied::Deactivated))));
}

#[test]
fn what_passwords_are_hashed_with_is_told_once_and_without_what_is_secret() {
    let world = World::new();
    let told = || world.engine.read(&HashParameters).unwrap().into_iter().collect::<Vec<_>>();
    assert_eq!(told(), [""; 0]);
    let (cheap, dear) = ("$argon2id$v=19$m=152,t=2,p=1", "$argon2id$v=19$m=19456,t=2,p=1");
    for (name, parameters) in [("bilbo", cheap), ("frodo", dear), ("sam", cheap)] {
        let password_hash = Some(format!("{parameters}$salt/{name}$hash+{name}"));
        run(&world, Register { localpart: name.into(), password_hash, ..Register::default() }).unwrap();
    }
    run(&world, Register { localpart: "guest".into(), is_guest: true, ..Register::default() }).unwrap();
    assert_eq!(told(), [cheap, dear]);
    run(&world, Deactivate { user_id: "@frodo:here.example".into(), erase: false }).unwrap();
    assert_eq!(told(), [cheap], "a closed account has no password");
}

#[test]
fn a_closed_account_is_marked_until_its_rooms_are_left() {
    let world = World::new();
    bilbo(&world);
    register(&world, "frodo");
    let marked = || world.engine.read(&Deactivations).unwrap();
    assert!(marked().is_empty());
    run(&world, Deactivate { user_id: BILBO.into(), erase: false }).unwrap();
    assert_eq!(marked(), [BILBO]);
    run(&world, EndDeactivation { user_id: BILBO.into() }).unwrap();
    assert!(marked().is_empty());
    assert!(world.engine.read(&Check { progress: &|_, _| {} }).unwrap().is_clean());
}

fn refreshable(world: &World) -> Tokens {
    register(world, "bilbo");
    log_in(world, NewSession { is_refreshable: true, ..NewSession::default() })
}

fn refresh(world: &World, tokens: &Tokens) -> Result<Tokens> {
    let refresh_token = tokens.refresh_token.clone().unwrap();
    run(world, RefreshTokens { user_id: BILBO.into(), refresh_token })
}

#[test]
fn a_refresh_whose_answer_is_lost_can_be_asked_for_again() {
    let world = World::new();
    let first = refreshable(&world);
    assert!(first.expires_in_ms.is_some_and(|left| left > 0));
    let lost = refresh(&world, &first).unwrap();
    let second = refresh(&world, &first).unwrap();
    assert!(session(&world, &lost.access_token).is_none(), "nobody has it, so nobody shall use it");
    assert!(
        session(&world, &first.access_token).is_some(),
        "the older one is good until the new one is used"
    );
    let found = session(&world, &second.access_token).unwrap();
    assert!(found.ends_older);
    assert_eq!(found.device_id.as_deref().map(|id| id.as_str()), Some(first.device_id.as_str()));
}

#[test]
fn using_the_new_token_ends_the_older_ones() {
    let world = World::new();
    let first = refreshable(&world);
    let second = refresh(&world, &first).unwrap();
    assert!(session(&world, &first.access_token).is_some());
    let access_token = second.access_token.clone();
    run(&world, EndOlderTokens { user_id: BILBO.into(), access_token }).unwrap();
    assert!(session(&world, &first.access_token).is_none());
    assert!(!session(&world, &second.access_token).unwrap().ends_older);
    assert!(matches!(refresh(&world, &first), Err(Error::NotFound(What::Token))));
}

#[test]
fn refreshing_with_the_new_token_ends_the_older_ones() {
    let world = World::new();
    let first = refreshable(&world);
    let second = refresh(&world, &first).unwrap();
    let third = refresh(&world, &second).unwrap();
    assert!(session(&world, &first.access_token).is_none());
    assert!(session(&world, &second.access_token).is_some());
    assert!(session(&world, &third.access_token).is_some());
    remove(&world, WhichDevices::All);
    for tokens in [&first, &second, &third] {
        assert!(session(&world, &tokens.access_token).is_none());
        let refresh_token = tokens.refresh_token.as_deref().unwrap();
        assert_eq!(world.engine.read(&OwnerOfRefreshToken(refresh_token)).unwrap(), None);
    }
}

#[test]
fn a_login_token_is_good_once_and_not_for_long() {
    let world = World::new();
    bilbo(&world);
    let purpose = TokenPurpose::LogIn;
    let make = || run(&world, MakePassingToken { user_id: BILBO.into(), purpose, life_ms: 1000 }).unwrap();
    let spend = |token: &str, purpose| run(&world, SpendPassingToken { purpose, token: token.into() });
    let token = make();
    assert!(matches!(spend(&token, TokenPurpose::OpenId), Err(Error::NotFound(What::Token))));
    assert_eq!(spend(&token, purpose).unwrap(), BILBO);
    assert!(matches!(spend(&token, purpose), Err(Error::NotFound(What::Token))));
    let late = make();
    let owner = |token: &str| world.engine.read(&OwnerOfPassingToken { purpose, token }).unwrap();
    assert_eq!(owner(&late).as_deref(), Some(BILBO));
    world.pass_ms(1000);
    assert_eq!(owner(&late), None);
    assert!(matches!(spend(&late, purpose), Err(Error::NotFound(What::Token))));
}

fn set_data(world: &World, room_id: Option<&str>, kind: &str, content: &'static str) {
    let room_id = room_id.map(str::to_owned);
    let content = content.into();
    run(world, SetAccountData { user_id: BILBO.into(), room_id, kind: kind.into(), content }).unwrap();
}

fn kinds(entries: Vec<account_data::Entry>) -> Vec<String> {
    entries
        .into_iter()
        .map(|(kind, content)| format!("{kind}={}", String::from_utf8_lossy(&content)))
        .collect()
}

#[test]
fn account_data_is_told_once_in_its_last_version() {
    let world = World::new();
    bilbo(&world);
    let user = user(&world, BILBO);
    set_data(&world, None, "a", "1");
    let since = world.engine.position();
    set_data(&world, None, "b", "2");
    set_data(&world, None, "a", "3");
    set_data(&world, None, "b", "4");
    let global = |since| world.ask(|reader| Ok(kinds(account_data::global_since(reader, user, since)?)));
    assert_eq!(global(since), ["a=3", "b=4"]);
    assert_eq!(global(StreamPos::ZERO), ["a=3", "b=4"]);
    assert_eq!(global(world.engine.position()), [""; 0]);
    assert_eq!(world.ask(|reader| Ok(kinds(account_data::global(reader, user)?))), ["a=3", "b=4"]);
}

#[test]
fn account_data_of_rooms_keeps_to_its_room() {
    let world = World::new();
    bilbo(&world);
    world.room(ROOM, BILBO, None);
    world.room("!other:here.example", BILBO, None);
    let (user, since) = (user(&world, BILBO), world.engine.position());
    set_data(&world, Some(ROOM), "a", "1");
    set_data(&world, None, "a", "2");
    let rooms = ["!other:here.example", ROOM];
    let rooms = rooms.map(|id| world.ask(|reader| Ok(reader.room_num(id)?)).unwrap());
    let of = |room| world.ask(|reader| Ok(kinds(account_data::room_since(reader, user, room, since)?)));
    assert_eq!(rooms.map(of), [vec![], vec!["a=1".to_owned()]]);
    assert_eq!(world.ask(|reader| Ok(kinds(account_data::room(reader, user, rooms[1])?))), ["a=1"]);
    let read = |room_id, kind| world.engine.read(&AccountData { user, room_id, kind });
    assert_eq!(read(Some(ROOM), "a").unwrap(), "1");
    assert!(matches!(read(Some("!none:x"), "a"), Err(Error::NotFound(What::AccountData))));
    assert!(matches!(read(None, "b"), Err(Error::NotFound(What::AccountData))));
}

#[test]
fn tags_are_account_data() {
    let world = World::new();
    bilbo(&world);
    world.room(ROOM, BILBO, None);
    let tag = |tag: &str, content: Option<serde_json::Value>| {
        let content = content.map(|content| content.as_object().cloned().unwrap());
        run(&world, SetTag { user_id: BILBO.into(), room_id: ROOM.into(), tag: tag.into(), content })
    };
    tag("m.favourite", Some(json!({ "order": 0.5 }))).unwrap();
    tag("u.work", Some(json!({}))).unwrap();
    let before = world.engine.position();
    tag("u.work", Some(json!({}))).unwrap();
    tag("u.unknown", None).unwrap();
    assert_eq!(world.engine.position(), before, "what changes nothing is told to nobody");
    tag("u.work", None).unwrap();
    let user = user(&world, BILBO);
    let content = world.engine.read(&AccountData { user, room_id: Some(ROOM), kind: "m.tag" }).unwrap();
    assert_eq!(content, r#"{"tags":{"m.favourite":{"order":0.5}}}"#);
    // What is nested as deep as a reader goes is deeper within the others.
    let deep = format!(r#"{{"a":{}1{}}}"#, "[".repeat(126), "]".repeat(126));
    tag("u.deep", Some(serde_json::from_str(&deep).unwrap())).unwrap();
    tag("u.work", Some(json!({}))).unwrap();
    let content = world.engine.read(&AccountData { user, room_id: Some(ROOM), kind: "m.tag" }).unwrap();
    assert_eq!(
        content,
        format!(r#"{{"tags":{{"m.favourite":{{"order":0.5}},"u.deep":{deep},"u.work":{{}}}}}}"#)
    );
    let big = json!({ "org.example.text": "x".repeat(64 * 1024) });
    assert!(matches!(tag("u.big", Some(big)), Err(Error::Invalid(Invalid::Parameter { .. }))));
}

#[test]
fn erasing_leaves_nothing_of_an_account_but_its_name() {
    let world = World::new();
    bilbo(&world);
    world.room(ROOM, BILBO, None);
    set_data(&world, None, "a", "1");
    set_data(&world, Some(ROOM), "a", "2");
    let object = |value: serde_json::Value| value.as_object().cloned().unwrap();
    let user_id = || BILBO.to_owned();
    let (room_id, tag, content) = (ROOM.into(), "m.favourite".into(), Some(object(json!({}))));
    run(&world, SetTag { user_id: user_id(), room_id, tag, content }).unwrap();
    run(&world, StoreFilter { user_id: user_id(), json: "{}".into() }).unwrap();
    let (name, value) = (profile::DISPLAY_NAME.to_owned(), Some("\"Bilbo\"".into()));
    run(&world, SetProfileField { user_id: user_id(), name, value }).unwrap();
    let (state, status_msg) = (PresenceState::Online, "busy".to_owned());
    run(&world, SetPresence { user: user_id(), device: None, state, status_msg }).unwrap();
    let (algorithm, auth_data) = ("m.megolm_backup.v1.curve25519-aes-sha2".into(), "{}".into());
    let version = run(&world, CreateKeyBackup { user_id: user_id(), algorithm, auth_data }).unwrap();
    let session = object(json!({
        "first_message_index": 1, "forwarded_count": 0, "is_verified": true, "session_data": {"c": "x"},
    }));
    let sessions = vec![(ROOM.to_owned(), "session".to_owned(), session)];
    run(&world, PutBackupKeys { user_id: user_id(), version: version.to_string(), sessions }).unwrap();
    let user = user(&world, BILBO);
    let rows = || {
        [
            schema::ACCOUNT_DATA.raw(),
            schema::FILTERS.raw(),
            schema::PROFILE_FIELDS.raw(),
            schema::STATUS_MESSAGES.raw(),
            schema::KEY_BACKUPS.raw(),
            schema::BACKED_UP_KEYS.raw(),
            schema::DEVICES.raw(),
        ]
        .map(|keyspace| {
            world.ask(|reader| {
                let mut rows = 0;
                reader.scan(&keyspace, &user, Direction::Forward, |_: RestOfKey, _| {
                    rows += 1;
                    true
                })?;
                Ok(rows)
            })
        })
    };
    assert_eq!(rows(), [3, 1, 1, 1, 1, 1, 1]);
    let erase = || run(&world, Deactivate { user_id: user_id(), erase: true }).unwrap();
    erase();
    assert_eq!(rows(), [0; 7]);
    let erased = || world.ask(|reader| Ok(reader.get(&schema::ERASURES, &user)?));
    let first = erased();
    assert!(first.is_some());
    erase();
    assert_eq!(erased(), first, "who is to be forgotten has said so once");
    let report = world.engine.read(&Check { progress: &|_, _| {} }).unwrap();
    assert!(report.is_clean());
}

#[test]
fn the_same_filter_has_the_same_id() {
    let world = World::new();
    bilbo(&world);
    let store = |json: &'static str| run(&world, StoreFilter { user_id: BILBO.into(), json: json.into() });
    let id = store(r#"{"room":{"timeline":{"limit":5}}}"#).unwrap();
    assert_eq!(store(r#"{"room":{"timeline":{"limit":5}}}"#).unwrap(), id);
    assert_ne!(store("{}").unwrap(), id);
    assert!(matches!(store(r#"{"room":5}"#), Err(Error::Invalid(Invalid::Filter(_)))));
    let user = user(&world, BILBO);
    let stored = world.ask(|reader| Ok(filters::get(reader, user, &id)?));
    assert_eq!(stored.unwrap(), r#"{"room":{"timeline":{"limit":5}}}"#);
}
