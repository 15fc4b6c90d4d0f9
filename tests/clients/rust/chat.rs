//! Two users chat in an encrypted room: everything a person does on an ordinary day, then a pause of 1,000 events.

use crate::session::{Session, encrypted_room};
use anyhow::{Context, Result, ensure};
use matrix_sdk::{
    attachment::AttachmentConfig,
    media::{MediaFormat, MediaRequestParameters},
    room::MessagesOptions,
    ruma::{
        OwnedEventId, OwnedRoomId,
        api::client::receipt::create_receipt::v3::ReceiptType,
        events::{receipt::ReceiptThread, room::MediaSource},
        uint,
    },
};
use serde_json::{Value, json};

const MISSED: usize = 1_000;

struct Chat {
    alice: Session,
    bob: Session,
    room: OwnedRoomId,
}

impl Chat {
    async fn begin() -> Result<Self> {
        let (alice, bob) = (Session::register("alice").await?, Session::register("bob").await?);
        let room = encrypted_room(&alice, &bob).await?;
        Ok(Self { alice, bob, room })
    }

    /// A message from Alice that Bob has read.
    async fn hello(&self) -> Result<OwnedEventId> {
        let id = self.alice.send_text(&self.room, "hello").await?;
        ensure!(self.bob.event(&id).await?.body() == Some("hello"));
        Ok(id)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_go_both_ways_encrypted() -> Result<()> {
    let chat = Chat::begin().await?;
    chat.hello().await?;
    let answer = chat.bob.send_text(&chat.room, "hello yourself").await?;
    let seen = chat.alice.event(&answer).await?;
    ensure!(seen.body() == Some("hello yourself") && seen.was_encrypted, "{seen:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_reactions_and_threads_arrive() -> Result<()> {
    let chat = Chat::begin().await?;
    let hello = chat.hello().await?;
    let edit = json!({
        "msgtype": "m.text", "body": "* hello, Bob",
        "m.new_content": { "msgtype": "m.text", "body": "hello, Bob" },
        "m.relates_to": { "rel_type": "m.replace", "event_id": hello },
    });
    let id = chat.alice.send(&chat.room, "m.room.message", edit).await?;
    ensure!(chat.bob.event(&id).await?.event["content"]["m.new_content"]["body"] == "hello, Bob");

    let reaction = json!({ "m.relates_to": { "rel_type": "m.annotation", "event_id": hello, "key": "🥕" } });
    let id = chat.bob.send(&chat.room, "m.reaction", reaction).await?;
    ensure!(chat.alice.event(&id).await?.event["content"]["m.relates_to"]["key"] == "🥕");

    let relation = json!({ "rel_type": "m.thread", "event_id": hello });
    let reply = json!({ "msgtype": "m.text", "body": "in the thread", "m.relates_to": relation });
    let id = chat.bob.send(&chat.room, "m.room.message", reply).await?;
    ensure!(chat.alice.event(&id).await?.body() == Some("in the thread"));
    let root = chat.alice.room(&chat.room)?.event(&hello, None).await?;
    let bundled: Value = root.raw().deserialize_as()?;
    ensure!(bundled["unsigned"]["m.relations"]["m.thread"]["count"] == 1, "{bundled}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn redactions_receipts_and_typing_arrive() -> Result<()> {
    let chat = Chat::begin().await?;
    let regret = chat.bob.send_text(&chat.room, "regret").await?;
    chat.alice.event(&regret).await?;
    chat.bob.room(&chat.room)?.redact(&regret, Some("regret"), None).await?;
    let redacts =
        |event: &Value| event["redacts"] == regret.as_str() || event["content"]["redacts"] == regret.as_str();
    chat.alice.sees("the redaction", |seen| redacts(&seen.event)).await?;

    let last = chat.hello().await?;
    let bob_room = chat.bob.room(&chat.room)?;
    bob_room.send_single_receipt(ReceiptType::Read, ReceiptThread::Unthreaded, last.clone()).await?;
    let reader = chat.bob.user_id().as_str();
    let read = |event: &Value| event["content"][last.as_str()]["m.read"][reader]["ts"].is_number();
    chat.alice.sees("the receipt", |seen| read(&seen.event)).await?;

    bob_room.typing_notice(true).await?;
    let typing = |event: &Value| event["type"] == "m.typing" && event["content"]["user_ids"][0] == reader;
    chat.alice.sees("typing", |seen| typing(&seen.event)).await?;
    bob_room.typing_notice(false).await?;
    let quiet = |event: &Value| event["type"] == "m.typing" && event["content"]["user_ids"] == json!([]);
    chat.alice.sees("no more typing", |seen| quiet(&seen.event)).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encrypted_file_arrives() -> Result<()> {
    let chat = Chat::begin().await?;
    let data = b"carrots ".repeat(10_000);
    let kind = mime::APPLICATION_OCTET_STREAM;
    let room = chat.alice.room(&chat.room)?;
    let sent = room.send_attachment("carrots.txt", &kind, data.clone(), AttachmentConfig::new()).await?;
    let seen = chat.bob.event(&sent.event_id).await?;
    let file = serde_json::from_value(seen.event["content"]["file"].clone()).context("it is encrypted")?;
    let source = MediaSource::Encrypted(Box::new(file));
    let request = MediaRequestParameters { source, format: MediaFormat::File };
    ensure!(chat.bob.client.media().get_media_content(&request, false).await? == data);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_of_many_events_is_made_up_for() -> Result<()> {
    let chat = Chat::begin().await?;
    let before = chat.hello().await?;
    chat.bob.pause().await;
    for number in 0..MISSED {
        chat.alice.send_text(&chat.room, &number.to_string()).await?;
    }
    let last = chat.alice.send_text(&chat.room, "after").await?;
    chat.bob.resume();
    chat.bob.event(&last).await?;

    let (room, mut from, mut bodies) = (chat.bob.room(&chat.room)?, None, Vec::new());
    'pages: loop {
        let mut options = MessagesOptions::backward().from(from.as_deref());
        options.limit = uint!(100);
        let page = room.messages(options).await?;
        for event in &page.chunk {
            if event.event_id().is_some_and(|id| id == before) {
                break 'pages;
            }
            let value: Value = event.raw().deserialize_as()?;
            bodies.extend(value["content"]["body"].as_str().and_then(|body| body.parse::<usize>().ok()));
        }
        from = Some(page.end.context("the gap reaches back to the pause")?);
    }
    bodies.reverse();
    ensure!(bodies == (0..MISSED).collect::<Vec<_>>(), "{} of {MISSED}: {bodies:?}", bodies.len());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_logout_ends_the_session() -> Result<()> {
    let alice = Session::register("alice").await?;
    alice.logout().await?;
    let refused = alice.client.whoami().await.expect_err("the token has ended");
    let code = refused.client_api_error_kind().context("an error of the protocol")?;
    ensure!(code.errcode().as_str() == "M_UNKNOWN_TOKEN", "{code:?}");
    Ok(())
}
