//! What a client that encrypts keeps of others' devices: it asks for those of whom its sync tells it, and for nobody else's.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use warren_engine::{Engine, view::QueryKeys};

use crate::world::Breach;

/// The parts of an answer that tell of other users' keys.
const PARTS: [&str; 3] = ["device_keys", "master_keys", "self_signing_keys"];

/// Devices and keys by user.
#[derive(Default)]
pub struct Keyring {
    /// Whose are to be asked for.
    pub outdated: BTreeSet<String>,
    /// What was answered last of each.
    pub lists: BTreeMap<String, Value>,
}

impl Keyring {
    /// Takes in what a sync says of device lists.
    pub fn take(&mut self, told: &Value) {
        let users = |name: &str| told[name].as_array().into_iter().flatten().filter_map(Value::as_str);
        self.outdated.extend(users("changed").map(str::to_owned));
        for user_id in users("left") {
            self.outdated.remove(user_id);
            self.lists.remove(user_id);
        }
    }

    /// Keeps what was answered of a user.
    pub fn learn(&mut self, user_id: String, list: Value) {
        self.outdated.remove(&user_id);
        self.lists.insert(user_id, list);
    }
}

/// What a server answers of a user's devices and keys to anybody.
pub fn devices_of(engine: &Engine, user_id: &str) -> Result<Value, Breach> {
    let query = QueryKeys { asker: String::new(), users: vec![(user_id.to_owned(), Vec::new())] };
    let answer = engine.read(&query).map_err(|error| Breach::new("devices", error))?;
    let answer: Value = serde_json::from_slice(&answer).map_err(|error| Breach::new("devices", error))?;
    Ok(json!(PARTS.map(|part| &answer[part][user_id])))
}
