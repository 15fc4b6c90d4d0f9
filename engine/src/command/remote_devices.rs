//! The devices of a user of another server, as their server tells them when it is asked.
//!
//! Specification: server-server API, `GET /user/devices/{userId}`.

use crate::{
    command::{Command, Lanes},
    core::event::JsonObject,
    device::{elsewhere, lists},
    error::Result,
    store::Tx,
};

/// All devices and keys of a user of another server.
#[derive(Clone, Debug, Default)]
pub struct StoreRemoteDevices {
    /// The user; whoever was asked is their server.
    pub user_id: String,
    /// The position of the last update that this contains.
    pub stream_id: u64,
    /// How the list was marked when the server was asked ([`crate::view::federation::StaleDeviceList`]).
    pub mark: Option<u64>,
    /// The devices.
    pub devices: Vec<RemoteDevice>,
    /// The master key.
    pub master: Option<JsonObject>,
    /// The self-signing key.
    pub self_signing: Option<JsonObject>,
}

/// A device.
#[derive(Clone, Debug, Default)]
pub struct RemoteDevice {
    /// Its id.
    pub device_id: String,
    /// What it is called.
    pub name: Option<String>,
    /// Its identity keys.
    pub keys: Option<JsonObject>,
}

impl Command for StoreRemoteDevices {
    /// Whether they are kept: only those of users who share a room with this server are, and only if nothing was told of the
    /// user since their server was asked, which may be later than the answer.
    type Output = bool;

    fn lanes(&self) -> Lanes {
        Lanes::default().user(&self.user_id)
    }

    fn run(&self, tx: &mut Tx) -> Result<bool> {
        let Some(user) = tx.user_num(&self.user_id)? else { return Ok(false) };
        if !tx.is_neighbour(user, None)? || elsewhere::stale_mark(tx, user)? != self.mark {
            return Ok(false);
        }
        let devices = self
            .devices
            .iter()
            .map(|device| (device.device_id.as_str(), device.name.as_deref(), device.keys.as_ref()));
        let has_devices = elsewhere::replace(tx, user, &self.user_id, self.stream_id, devices)?;
        let has_keys = elsewhere::put_signing_keys(
            tx,
            user,
            &self.user_id,
            self.master.as_ref(),
            self.self_signing.as_ref(),
        )?;
        if has_devices || has_keys {
            lists::changed_elsewhere(tx, user)?;
        }
        Ok(true)
    }
}

/// The most users that are followed in one write: it holds the lanes of all of them, and whoever writes in one of these waits for it.
pub const FOLLOW_BATCH: usize = 200;

/// Devices of users of other servers are to be known here: they will be among
/// [`crate::view::federation::StaleDeviceLists`].
#[derive(Clone, Debug, Default)]
pub struct FollowDevices {
    /// The users. Only those who share a room with this server are followed.
    pub user_ids: Vec<String>,
}

impl FollowDevices {
    /// Writes of [`FOLLOW_BATCH`] users at most, to be made one after the other.
    pub fn in_batches(user_ids: &[String]) -> impl Iterator<Item = FollowDevices> {
        user_ids.chunks(FOLLOW_BATCH).map(|user_ids| FollowDevices { user_ids: user_ids.to_vec() })
    }
}

impl Command for FollowDevices {
    /// Whose lists are to be asked for.
    type Output = Vec<String>;

    fn lanes(&self) -> Lanes {
        self.user_ids.iter().fold(Lanes::default(), |lanes, user_id| lanes.user(user_id))
    }

    fn run(&self, tx: &mut Tx) -> Result<Vec<String>> {
        let mut followed = Vec::new();
        for user_id in &self.user_ids {
            let Some(user) = tx.user_num(user_id)? else { continue };
            if elsewhere::follow(tx, user)? {
                followed.push(user_id.clone());
            }
        }
        Ok(followed)
    }
}

/// What is known of the devices of users of other servers may be of before a copy was made that this database was restored from:
/// it is to be asked for anew.
#[derive(Clone, Debug, Default)]
pub struct DoubtDeviceLists {
    /// The users.
    pub user_ids: Vec<String>,
}

impl Command for DoubtDeviceLists {
    type Output = ();

    fn lanes(&self) -> Lanes {
        self.user_ids.iter().fold(Lanes::default(), |lanes, user_id| lanes.user(user_id))
    }

    fn run(&self, tx: &mut Tx) -> Result<()> {
        for user_id in &self.user_ids {
            // Whose list is asked for as it is need not be asked for once more.
            if let Some(user) = tx.user_num(user_id)?
                && elsewhere::is_followed(tx, user)?
            {
                elsewhere::make_stale(tx, user)?;
            }
        }
        Ok(())
    }
}
