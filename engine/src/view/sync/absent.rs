//! Stand-ins.
#![allow(missing_docs, clippy::unnecessary_wraps)]
use std::collections::BTreeMap;
use bytes::Bytes;
use crate::{core::num::*, error::Result, store::Reader};
pub mod lists { use super::*; pub fn since(_: &Reader, _: UserNum, _: StreamPos, _: &[RoomNum], _: &[RoomNum]) -> Result<(Vec<UserNum>, Vec<UserNum>)> { Ok(Default::default()) } }
pub mod one_time_keys { use super::*; pub fn counts(_: &Reader, _: UserNum, _: TextNum) -> Result<BTreeMap<String, u64>> { Ok(BTreeMap::new()) } pub fn unused_fallback_types(_: &Reader, _: UserNum, _: TextNum) -> Result<Vec<String>> { Ok(Vec::new()) } }
pub mod to_device { use super::*; pub fn since(_: &Reader, _: UserNum, _: TextNum, after: StreamPos, _: StreamPos, _: usize) -> Result<(Vec<Bytes>, StreamPos)> { Ok((Vec::new(), after)) } }
pub mod push_rules { use super::*; pub fn content(_: &Reader, _: UserNum) -> Result<Bytes> { Ok(Bytes::from_static(b"{}")) } }
pub mod presence { use super::*; pub fn event(_: &Reader, _: UserNum) -> Result<Option<Bytes>> { Ok(None) } }
pub mod receipts { use super::*; pub fn since(_: &Reader, _: RoomNum, _: UserNum, _: StreamPos) -> Result<Option<Bytes>> { Ok(None) } }
pub mod typing { use super::*; pub fn since(_: &Reader, _: RoomNum, _: Option<StreamPos>) -> Result<Option<Bytes>> { Ok(None) } }
pub mod unread { use super::*; #[derive(Default)] pub struct Unread { pub notification_count: u64, pub highlight_count: u64, pub threads: BTreeMap<String, (u64, u64)> } pub fn counts(_: &Reader, _: UserNum, _: RoomNum) -> Result<Unread> { Ok(Unread::default()) } }
