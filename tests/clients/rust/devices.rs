//! Devices that trust each other: cross-signing, verification by emoji, key backup and its restore.

use crate::session::{PASSWORD, Session, WAIT_MAX, encrypted_room};
use anyhow::{Context, Result, ensure};
use futures_util::StreamExt;
use matrix_sdk::{
    encryption::verification::{
        SasState, SasVerification, Verification, VerificationRequest, VerificationRequestState,
    },
    ruma::{
        api::client::uiaa::{AuthData, Password, UserIdentifier},
        events::key::verification::request::ToDeviceKeyVerificationRequestEvent,
    },
};
use tokio::sync::mpsc;

/// Makes the cross-signing keys, with the password where the server asks for it.
async fn bootstrap(session: &Session) -> Result<()> {
    let encryption = session.client.encryption();
    if let Err(error) = encryption.bootstrap_cross_signing(None).await {
        let info = error.as_uiaa_response().context("only authentication is missing")?;
        let identifier = UserIdentifier::from(session.user_id().to_owned());
        let mut password = Password::new(identifier, PASSWORD.to_owned());
        password.session = info.session.clone();
        encryption.bootstrap_cross_signing(Some(AuthData::Password(password))).await?;
    }
    Ok(())
}

/// The next verification request that is sent to this device.
fn requests(session: &Session) -> mpsc::UnboundedReceiver<VerificationRequest> {
    let (sender, receiver) = mpsc::unbounded_channel();
    let client = session.client.clone();
    session.client.add_event_handler(move |event: ToDeviceKeyVerificationRequestEvent| {
        let (client, sender) = (client.clone(), sender.clone());
        async move {
            let flow = event.content.transaction_id.as_str();
            if let Some(request) = client.encryption().get_verification_request(&event.sender, flow).await {
                let _ = sender.send(request);
            }
        }
    });
    receiver
}

/// Answers a request until it is done; the emoji that were shown.
async fn verify(request: VerificationRequest, starts: bool) -> Result<String> {
    let mut changes = Box::pin(request.changes());
    let mut state = request.state();
    let sas = loop {
        match state {
            VerificationRequestState::Requested { .. } => request.accept().await?,
            VerificationRequestState::Ready { .. } if starts => {
                break request.start_sas().await?.context("both know emoji")?;
            }
            VerificationRequestState::Transitioned { verification: Verification::SasV1(sas), .. } => {
                sas.accept().await?;
                break sas;
            }
            VerificationRequestState::Cancelled(info) => anyhow::bail!("cancelled: {}", info.reason()),
            _ => {}
        }
        state = changes.next().await.context("the request goes on")?;
    };
    compare(sas).await
}

async fn compare(sas: SasVerification) -> Result<String> {
    let mut changes = Box::pin(sas.changes());
    let (mut state, mut shown) = (sas.state(), String::new());
    loop {
        match state {
            SasState::KeysExchanged { emojis, .. } => {
                let emojis = emojis.context("both know emoji")?.emojis;
                shown = emojis.iter().map(|emoji| emoji.symbol).collect();
                sas.confirm().await?;
            }
            SasState::Done { .. } => return Ok(shown),
            SasState::Cancelled(info) => anyhow::bail!("cancelled: {}", info.reason()),
            _ => {}
        }
        state = changes.next().await.context("the verification goes on")?;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_device_is_verified_and_gets_the_secrets() -> Result<()> {
    let first = Session::register("alice").await?;
    bootstrap(&first).await?;
    let second = first.login_again().await?;
    let mut coming = requests(&first);
    let user = first.user_id().to_owned();
    let device = second.client.device_id().context("logged in")?.to_owned();
    let known = async || first.client.encryption().get_device(&user, &device).await.ok()?.map(drop);
    first.until("the second device is known", known).await?;
    let identity = second
        .client
        .encryption()
        .request_user_identity(&user)
        .await?
        .context("the keys of the user are on the server")?;
    let request = identity.request_verification().await?;
    let answer = tokio::time::timeout(WAIT_MAX, coming.recv()).await?.context("the request arrives")?;
    let both = async { tokio::try_join!(verify(request, true), verify(answer, false)) };
    let (mine, theirs) = tokio::time::timeout(WAIT_MAX, both).await??;
    ensure!(mine == theirs && !mine.is_empty(), "{mine} is not {theirs}");

    let signed = async || {
        let found = first.client.encryption().get_device(&user, &device).await.ok()??;
        found.is_cross_signed_by_owner().then_some(())
    };
    first.until("the second device is signed", signed).await?;
    let complete = async || {
        let status = second.client.encryption().cross_signing_status().await?;
        status.is_complete().then_some(())
    };
    second.until("the second device has the secrets", complete).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_restored_on_a_new_device() -> Result<()> {
    let (alice, bob) = (Session::register("alice").await?, Session::register("bob").await?);
    bootstrap(&alice).await?;
    let room = encrypted_room(&alice, &bob).await?;
    let id = bob.send_text(&room, "for the backup").await?;
    ensure!(alice.event(&id).await?.body() == Some("for the backup"));
    let key = alice.client.encryption().recovery().enable().wait_for_backups_to_upload().await?;

    let fresh = alice.login_again().await?;
    alice.logout().await?;
    fresh.client.encryption().recovery().recover(&key).await?;
    fresh.client.encryption().backups().download_room_keys_for_room(&room).await?;
    let event = fresh.room(&room)?.event(&id, None).await?;
    ensure!(event.encryption_info().is_some(), "it is not decrypted");
    let value: serde_json::Value = event.raw().deserialize_as()?;
    ensure!(value["content"]["body"] == "for the backup", "{value}");
    let own = fresh.client.encryption().get_own_device().await?.context("known")?;
    ensure!(own.is_cross_signed_by_owner(), "the recovered device is not signed");
    Ok(())
}
