//! Whose devices, of users of other servers, are known here, and whose are to be asked for.

use std::sync::atomic::Ordering;

use crate::{
    core::num::UserNum,
    device::elsewhere,
    error::Result,
    store::{Direction, Reader, schema},
    view::View,
};

/// How many lists are doubted at once: each takes a lane.
const DOUBTFUL_AT_ONCE: usize = 100;

/// No user's number is as high.
const LAST: UserNum = UserNum(u64::MAX);

/// Whether the devices of a user of another server are known here, as their server has told them last.
pub struct AreDevicesFollowed<'a>(pub &'a str);

impl View for AreDevicesFollowed<'_> {
    type Output = bool;

    fn read(&self, reader: &Reader) -> Result<bool> {
        let Some(user) = reader.user_num(self.0)? else { return Ok(false) };
        Ok(elsewhere::is_followed(reader, user)?)
    }
}

/// Users of other servers who share a room with this one, and of whose devices something was missed. O(users followed).
pub struct StaleDeviceLists<'a> {
    /// How many at most.
    pub limit: usize,
    /// Users who are left out, by their ids.
    pub without: &'a dyn Fn(&str) -> bool,
}

impl View for StaleDeviceLists<'_> {
    type Output = Vec<String>;

    fn read(&self, reader: &Reader) -> Result<Vec<String>> {
        let mut stale: Vec<UserNum> = Vec::new();
        reader.scan(&schema::REMOTE_DEVICE_LISTS, &(), Direction::Forward, |user, list| {
            if list.is_stale {
                stale.push(user);
            }
            true
        })?;
        let mut users = Vec::new();
        for user in stale {
            if users.len() == self.limit {
                break;
            }
            let user_id = reader.user_id(user)?;
            if !(self.without)(&user_id) && reader.is_neighbour(user, None)? {
                users.push(user_id.to_string());
            }
        }
        Ok(users)
    }
}

/// How the list of a user of another server is marked, if it is to be asked for: what comes of that is kept only if the mark is
/// the same then.
pub struct StaleDeviceList<'a>(pub &'a str);

impl View for StaleDeviceList<'_> {
    type Output = Option<u64>;

    fn read(&self, reader: &Reader) -> Result<Option<u64>> {
        match reader.user_num(self.0)? {
            Some(user) => Ok(elsewhere::stale_mark(reader, user)?),
            None => Ok(None),
        }
    }
}

/// Users of other servers whose lists may be out of date, as clients say that this database was restored from a copy: they come
/// with tokens that it did not give out. Some at a time; nobody before a client says so.
#[derive(Clone, Copy, Debug, Default)]
pub struct DoubtfulDeviceLists {
    from: UserNum,
}

/// Some of the [`DoubtfulDeviceLists`].
#[derive(Debug)]
#[non_exhaustive]
pub struct Doubtful {
    /// Whose they are.
    pub user_ids: Vec<String>,
    /// Those that are left, each list once for as long as the engine is open, whatever clients say.
    pub next: DoubtfulDeviceLists,
}

impl View for DoubtfulDeviceLists {
    type Output = Doubtful;

    fn read(&self, reader: &Reader) -> Result<Doubtful> {
        if self.from == LAST || !reader.shared.may_be_restored.load(Ordering::Relaxed) {
            return Ok(Doubtful { user_ids: Vec::new(), next: *self });
        }
        let (mut users, mut next) = (Vec::new(), LAST);
        let lists = &schema::REMOTE_DEVICE_LISTS;
        reader.scan_between(lists, &self.from, &LAST, Direction::Forward, |user, _| {
            if users.len() == DOUBTFUL_AT_ONCE {
                next = user;
                return false;
            }
            users.push(user);
            true
        })?;
        let ids = users.into_iter().map(|user| Ok(reader.user_id(user)?.to_string()));
        Ok(Doubtful { user_ids: ids.collect::<Result<_>>()?, next: Self { from: next } })
    }
}
