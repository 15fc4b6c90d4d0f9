//! Whether events that another server sends are well-formed and rightly signed.

use bytes::Bytes;

use crate::{
    core::{
        checked::{self, PduCheck},
        version::RoomVersion,
    },
    error::Result,
    remote::ServerKeys,
    store::Reader,
    view::View,
};

/// Checks events of a room version: format, size, content hash and signatures, by the keys that are known here. Reads no
/// room and holds no lane, so that it may run for many events side by side.
#[derive(Clone, Copy, Debug)]
pub struct CheckPdus<'a> {
    /// The version of the room that they are said to be of.
    pub version: &'static RoomVersion,
    /// Each as JSON.
    pub pdus: &'a [Bytes],
}

impl View for CheckPdus<'_> {
    /// One for each, in their order.
    type Output = Vec<PduCheck>;

    fn read(&self, reader: &Reader) -> Result<Vec<PduCheck>> {
        let keys = ServerKeys(reader);
        let checks = self.pdus.iter().map(|pdu| checked::check(self.version, pdu, &keys));
        Ok(checks.collect::<Result<_, _>>()?)
    }
}

/// As [`CheckPdus`], of events that another server gives of a room's past, which may name more events than those of today.
#[derive(Clone, Copy, Debug)]
pub struct CheckHistory<'a>(pub CheckPdus<'a>);

impl View for CheckHistory<'_> {
    /// One for each, in their order.
    type Output = Vec<PduCheck>;

    fn read(&self, reader: &Reader) -> Result<Vec<PduCheck>> {
        let keys = ServerKeys(reader);
        let CheckPdus { version, pdus } = self.0;
        let checks = pdus.iter().map(|pdu| checked::check_history(version, pdu, &keys));
        Ok(checks.collect::<Result<_, _>>()?)
    }
}
