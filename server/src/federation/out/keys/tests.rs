//! Whom places and news of keys are for.

use std::pin::pin;
use std::task::Poll;

use serde_json::{Value, json};
use tokio::task::unconstrained;
use warren_engine::core::event::{JsonObject, encode_base64, sign_json};
use warren_engine::core::json::canonical;

use super::*;

/// What a server publishes that has the key of this one.
fn published_by(ctx: &Context, server_name: &ServerName, valid_until_ts: u64) -> Vec<u8> {
    let key = ctx.engine.key_pair();
    let mut object: JsonObject = serde_json::from_value(json!({
        "server_name": server_name.as_str(),
        "valid_until_ts": valid_until_ts,
        "verify_keys": { key.key_id(): { "key": encode_base64(key.public_key()) } },
        "old_verify_keys": {},
    }))
    .expect("an object");
    sign_json(&mut object, server_name.as_str(), key);
    canonical(&Value::Object(object))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_query_has_fetched_meanwhile_is_there_for_who_needs_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let ctx = Context::of_tests(folder.path());
    let keys = &ctx.federation.keys;
    let server_name = ServerName::parse("there.example").expect("a name");
    let wanted = [ctx.engine.key_pair().key_id().to_owned()];
    let query = keys.flights.alone(server_name.as_str()).await;
    let cause = Cause::Request(None);
    let mut request = pin!(unconstrained(fetch(&ctx, &cause, &server_name, &wanted)));
    let polled = std::future::poll_fn(|task| Poll::Ready(request.as_mut().poll(task))).await;
    assert!(polled.is_pending(), "it waits for the query");
    let fetched_ts = ctx.engine.now_ms() - 60_000;
    let json = published_by(&ctx, &server_name, fetched_ts + 3_600_000);
    let published = PublishedKeys { json: json.into(), fetched_ts };
    keys.queried_keys.put(&server_name, published.clone());
    let wish = Wish {
        need: Need::Others,
        since: Instant::now(),
        lacking: &wanted,
        is_in_rooms: false,
        has_notaries: false,
    };
    keys.note(&server_name, &wish, &Turn::All, Outcome::of(None, true));
    drop(query);
    request.await;
    assert!(has_all(&ctx, server_name.as_str(), &wanted));
    // It is not as new as if it came now.
    let stored = ctx.engine.read(&PublishedKeysOf(server_name.as_str())).expect("it can be read");
    assert_eq!(stored, Some(published));
    assert_eq!(keys.queried_keys.get(&server_name), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn news_is_what_lets_more_be_checked_than_before() {
    let folder = tempfile::tempdir().expect("a folder");
    let ctx = Context::of_tests(folder.path());
    let server_name = ServerName::parse("there.example").expect("a name");
    let now_ms = ctx.engine.now_ms();
    for (valid_until_ts, expected) in [
        // It has lapsed.
        (now_ms - 20_000, true),
        (now_ms - 20_000, false),
        (now_ms - 10_000, true),
        (now_ms + 3_600_000, true),
        (now_ms + 7_200_000, false),
    ] {
        let json = published_by(&ctx, &server_name, valid_until_ts);
        let published = read_keys(&json, &server_name).expect("they are signed");
        let kept = PublishedKeys { json: json.into(), fetched_ts: now_ms };
        let is_news = write(&ctx, &published, kept).await.expect("they are written");
        assert_eq!(is_news, expected, "{valid_until_ts} at {now_ms}");
    }
}

#[test]
fn users_wait_for_servers_that_are_gone_no_longer_than_for_one() {
    let told = Cause::told("a.example");
    assert_eq!((told.patience(true), told.patience(false)), (Some(KEYS_TIME_MAX), None));
}

/// Takes all places that there are at once; answers how many.
async fn take_all<'k>(
    keys: &'k KeyFetches,
    held: &mut Vec<(Option<SemaphorePermit<'k>>, Place)>,
    (cause, is_in_rooms, is_failing): (&Cause, bool, bool),
) -> usize {
    let before = held.len();
    loop {
        // So many at once are more than one turn of a task may have.
        let mut taking = pin!(unconstrained(keys.place(cause, is_in_rooms, is_failing)));
        let taken = std::future::poll_fn(|task| Poll::Ready(taking.as_mut().poll(task))).await;
        match taken {
            Poll::Ready(place) => held.extend(place),
            Poll::Pending => return held.len() - before,
        }
    }
}

#[tokio::test]
async fn nobody_who_makes_this_server_ask_has_all_places() {
    let (keys, mut held) = (KeyFetches::default(), Vec::new());
    let address = |last: u8| Some(IpAddr::from([127, 0, 0, last]));
    let (sent, told) = (|server: &str| Cause::Sent(server.to_owned()), Cause::told);
    for (cause, is_in_rooms, is_failing, expected) in [
        // Of strangers, whose names may be made up; from all others together there is room.
        (Cause::Request(address(1)), false, false, 3),
        (sent("a.example"), false, false, 3),
        (sent("b.example"), false, true, 3),
        (Cause::Request(address(2)), false, false, 1),
        (Cause::Query(address(1)), true, false, 3),
        (Cause::Query(address(2)), false, false, 3),
        // Of servers in rooms, and what users want to know of others, none of that is taken.
        (sent("a.example"), true, true, 30),
        (told("a.example"), false, false, 0),
        (told("b.example"), false, true, 0),
        (told("b.example"), false, false, 30),
        (Cause::Request(address(3)), true, false, 0),
    ] {
        let found = take_all(&keys, &mut held, (&cause, is_in_rooms, is_failing)).await;
        assert_eq!(found, expected, "{cause:?}, in rooms: {is_in_rooms}, failing: {is_failing}");
    }
}
