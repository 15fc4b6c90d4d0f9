//! `key_backup.yaml`: encrypted copies of room keys.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use warren_engine::command::{
    CreateKeyBackup, DeleteBackupKeys, DeleteKeyBackup, PutBackupKeys, UpdateKeyBackup,
};
use warren_engine::device::key_backup::Selection;
use warren_engine::view::{BackupKeys, KeyBackupVersion};

use crate::http::{Answer, ApiError, Call, Outcome, endpoints};

endpoints! {
    POST   "/_matrix/client/v3/room_keys/version"                   ["r0", "unstable"] Required Write Json    post_version;
    GET    "/_matrix/client/v3/room_keys/version"                   ["r0", "unstable"] Required Read  Nothing get_latest;
    GET    "/_matrix/client/v3/room_keys/version/{version}"         ["r0", "unstable"] Required Read  Nothing get_version;
    PUT    "/_matrix/client/v3/room_keys/version/{version}"         ["r0", "unstable"] Required Write Json    put_version;
    DELETE "/_matrix/client/v3/room_keys/version/{version}"         ["r0", "unstable"] Required Write Nothing delete_version;
    PUT    "/_matrix/client/v3/room_keys/keys"                      ["r0", "unstable"] Required Write Bulk    put_all;
    GET    "/_matrix/client/v3/room_keys/keys"                      ["r0", "unstable"] Required Read  Nothing get_all;
    DELETE "/_matrix/client/v3/room_keys/keys"                      ["r0", "unstable"] Required Write Nothing delete_all;
    PUT    "/_matrix/client/v3/room_keys/keys/{roomId}"             ["r0", "unstable"] Required Write Bulk    put_room;
    GET    "/_matrix/client/v3/room_keys/keys/{roomId}"             ["r0", "unstable"] Required Read  Nothing get_room;
    DELETE "/_matrix/client/v3/room_keys/keys/{roomId}"             ["r0", "unstable"] Required Write Nothing delete_room;
    PUT    "/_matrix/client/v3/room_keys/keys/{roomId}/{sessionId}" ["r0", "unstable"] Required Write Json    put_session;
    GET    "/_matrix/client/v3/room_keys/keys/{roomId}/{sessionId}" ["r0", "unstable"] Required Read  Nothing get_session;
    DELETE "/_matrix/client/v3/room_keys/keys/{roomId}/{sessionId}" ["r0", "unstable"] Required Write Nothing delete_session;
}

#[derive(Deserialize)]
struct Backup<'a> {
    algorithm: String,
    #[serde(borrow)]
    auth_data: &'a RawValue,
    version: Option<String>,
}

impl<'a> Backup<'a> {
    /// As a client sends it. Errors: 400.
    fn read(call: &'a Call) -> Result<Backup<'a>, ApiError> {
        call.json_content()?;
        call.json()
    }

    /// `auth_data` as it is kept: signatures in it are for clients to check, who read it as they wrote it.
    fn auth_data(&self) -> Result<Bytes, ApiError> {
        match self.auth_data.get().starts_with('{') {
            true => Ok(Bytes::copy_from_slice(self.auth_data.get().as_bytes())),
            false => Err(ApiError::bad_json("auth_data must be an object")),
        }
    }
}

#[derive(Serialize)]
struct Created {
    version: String,
}

async fn post_version(call: Call) -> Outcome {
    let backup = Backup::read(&call)?;
    let auth_data = backup.auth_data()?;
    let command =
        CreateKeyBackup { user_id: call.user()?.to_string(), algorithm: backup.algorithm, auth_data };
    let version = call.ctx.engine.write(command).await?;
    Answer::json(&Created { version: version.to_string() })
}

#[derive(Serialize)]
struct Version {
    algorithm: String,
    auth_data: Box<RawValue>,
    count: u64,
    etag: String,
    version: String,
}

fn answer_version(call: &Call, version: Option<String>) -> Outcome {
    let view = KeyBackupVersion { user_id: call.user()?.to_string(), version };
    let (version, backup) = call.ctx.engine.read(&view)?;
    Answer::json(&Version {
        algorithm: backup.algorithm,
        auth_data: serde_json::from_slice(&backup.auth_data).map_err(ApiError::internal)?,
        count: backup.count,
        etag: backup.etag.to_string(),
        version: version.to_string(),
    })
}

async fn get_latest(call: Call) -> Outcome {
    answer_version(&call, None)
}

async fn get_version(call: Call) -> Outcome {
    answer_version(&call, Some(call.path("version")?.into_owned()))
}

async fn put_version(call: Call) -> Outcome {
    let backup = Backup::read(&call)?;
    let auth_data = backup.auth_data()?;
    let Backup { algorithm, version, .. } = backup;
    let in_path = call.path("version")?.into_owned();
    if version.is_some_and(|version| version != in_path) {
        return Err(ApiError::invalid_param("The version in the body is not the one in the path"));
    }
    let user_id = call.user()?.to_string();
    call.ctx.engine.write(UpdateKeyBackup { user_id, version: in_path, algorithm, auth_data }).await?;
    Ok(Answer::empty())
}

async fn delete_version(call: Call) -> Outcome {
    let version = call.path("version")?.into_owned();
    call.ctx.engine.write(DeleteKeyBackup { user_id: call.user()?.to_string(), version }).await?;
    Ok(Answer::empty())
}

#[derive(Deserialize)]
struct Rooms {
    rooms: BTreeMap<String, Sessions>,
}

#[derive(Deserialize)]
struct Sessions {
    sessions: BTreeMap<String, Map<String, Value>>,
}

/// What is in the backup after a change.
#[derive(Serialize)]
struct Changed {
    count: u64,
    etag: String,
}

type Session = (String, String, Map<String, Value>);

async fn put(call: &Call, sessions: Vec<Session>) -> Outcome {
    let version = call.query_required("version")?.into_owned();
    let all = PutBackupKeys { user_id: call.user()?.to_string(), version, sessions };
    let mut last = None;
    for batch in all.in_batches(call.body().len()) {
        last = Some(call.ctx.engine.write(batch).await?);
    }
    let backup = last.ok_or_else(|| ApiError::internal("an upload without a batch"))?;
    Answer::json(&Changed { count: backup.count, etag: backup.etag.to_string() })
}

async fn put_all(call: Call) -> Outcome {
    let body: Rooms = call.json()?;
    let in_room = |(room_id, room): (String, Sessions)| {
        room.sessions.into_iter().map(move |(session_id, data)| (room_id.clone(), session_id, data))
    };
    put(&call, body.rooms.into_iter().flat_map(in_room).collect()).await
}

async fn put_room(call: Call) -> Outcome {
    let body: Sessions = call.json()?;
    let room_id = call.path("roomId")?.into_owned();
    let sessions = body.sessions.into_iter().map(|(session_id, data)| (room_id.clone(), session_id, data));
    put(&call, sessions.collect()).await
}

async fn put_session(call: Call) -> Outcome {
    let data: Map<String, Value> = call.json()?;
    let (room_id, session_id) = (call.path("roomId")?.into_owned(), call.path("sessionId")?.into_owned());
    put(&call, vec![(room_id, session_id, data)]).await
}

fn room(call: &Call) -> Result<Selection, ApiError> {
    Ok(Selection::Room(call.path("roomId")?.into_owned()))
}

fn session(call: &Call) -> Result<Selection, ApiError> {
    Ok(Selection::Session(call.path("roomId")?.into_owned(), call.path("sessionId")?.into_owned()))
}

fn get(call: &Call, selection: Selection) -> Outcome {
    let version = call.query_required("version")?.into_owned();
    let view = BackupKeys { user_id: call.user()?.to_string(), version, selection };
    Ok(Answer::json_bytes(call.ctx.engine.read(&view)?))
}

async fn get_all(call: Call) -> Outcome {
    get(&call, Selection::All)
}

async fn get_room(call: Call) -> Outcome {
    get(&call, room(&call)?)
}

async fn get_session(call: Call) -> Outcome {
    get(&call, session(&call)?)
}

async fn delete(call: &Call, selection: Selection) -> Outcome {
    let version = call.query_required("version")?.into_owned();
    let command = DeleteBackupKeys { user_id: call.user()?.to_string(), version, selection };
    let backup = call.ctx.engine.write(command).await?;
    Answer::json(&Changed { count: backup.count, etag: backup.etag.to_string() })
}

async fn delete_all(call: Call) -> Outcome {
    delete(&call, Selection::All).await
}

async fn delete_room(call: Call) -> Outcome {
    let selection = room(&call)?;
    delete(&call, selection).await
}

async fn delete_session(call: Call) -> Outcome {
    let selection = session(&call)?;
    delete(&call, selection).await
}
