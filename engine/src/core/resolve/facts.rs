//! What resolution looks at of one event, digested once and shared by all resolutions.

use std::sync::{Arc, OnceLock};

use smallvec::SmallVec;

use crate::core::auth::Stated;
use crate::core::event::Pdu;
use crate::core::num::{EventNum, StateKeyId};
use crate::core::power_levels::{InvalidPowerLevels, Level, PowerLevels};
use crate::core::version::RoomVersion;

/// How many auth events most events have; more lie in memory of their own.
const AUTH_USUAL: usize = 5;

/// An event as resolution sees it. Of the many events that a resolution goes to, most are not in the processor's caches: what
/// is asked of all comes first, so that it is met in one piece.
#[derive(Debug)]
#[repr(C)]
pub struct AuthFacts {
    num: EventNum,
    brief: Brief,
    auth: SmallVec<[EventNum; AUTH_USUAL]>,
    pdu: Arc<Pdu>,
    own_level: OnceLock<Level>,
    sender: OnceLock<StateKeyId>,
    power_levels: OnceLock<Arc<PowerLevels>>,
    stated_levels: OnceLock<Result<Arc<PowerLevels>, InvalidPowerLevels>>,
}

/// What is asked of an event most often. Resolution keeps it of all events at hand in one place: an event itself lies in
/// many, and to go to each costs more than what is done there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Brief {
    pub key: Option<StateKeyId>,
    /// `origin_server_ts`.
    pub time: u64,
    pub auth_depth: u32,
    pub role: Role,
    pub stated: Stated,
    pub is_power_event: bool,
    pub rejected: bool,
}

/// What an event can be to others that have it among their auth events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Create,
    PowerLevels,
    JoinRules,
    Member,
    ThirdPartyInvite,
    /// No state that an event could be authorised by.
    Other,
}

impl AuthFacts {
    /// Digests an event. `auth` are the numbers of its auth events, `auth_depth` is 1 + the greatest among theirs (0 for
    /// the create event) and never the depth that the event claims, `rejected` whether it was rejected on receipt, and
    /// `key` its entry if it is a state event.
    pub fn new(
        pdu: Arc<Pdu>,
        num: EventNum,
        auth: &[EventNum],
        auth_depth: u32,
        rejected: bool,
        key: Option<StateKeyId>,
    ) -> AuthFacts {
        let mut distinct = SmallVec::new();
        for event in auth {
            if !distinct.contains(event) {
                distinct.push(*event);
            }
        }
        let brief = Brief {
            key,
            time: pdu.origin_server_ts,
            auth_depth,
            role: role(&pdu),
            stated: Stated::of(&pdu),
            is_power_event: is_power_event(&pdu),
            rejected,
        };
        AuthFacts {
            num,
            brief,
            auth: distinct,
            pdu,
            own_level: OnceLock::new(),
            sender: OnceLock::new(),
            power_levels: OnceLock::new(),
            stated_levels: OnceLock::new(),
        }
    }

    /// The event's number.
    pub fn num(&self) -> EventNum {
        self.num
    }

    /// The event.
    pub fn pdu(&self) -> &Arc<Pdu> {
        &self.pdu
    }

    /// The length of the longest way along auth events to an event without any.
    pub fn auth_depth(&self) -> u32 {
        self.brief.auth_depth
    }

    /// Its auth events, each once.
    pub fn auth(&self) -> &[EventNum] {
        &self.auth
    }

    /// Its entry of the state, if it is a state event.
    pub fn key(&self) -> Option<StateKeyId> {
        self.brief.key
    }

    /// Whether it was rejected on receipt.
    pub fn rejected(&self) -> bool {
        self.brief.rejected
    }

    /// What is asked of it most often.
    pub(super) fn brief(&self) -> Brief {
        self.brief
    }

    /// The level of its sender by the auth events that it names itself; found by `find` once.
    pub(super) fn own_level(&self, find: impl FnOnce() -> Level) -> Level {
        *self.own_level.get_or_init(find)
    }

    /// The entry that its sender's membership is; looked for by `find` until there is one.
    pub(super) fn sender<E>(
        &self,
        find: impl FnOnce() -> Result<Option<StateKeyId>, E>,
    ) -> Result<Option<StateKeyId>, E> {
        if let Some(sender) = self.sender.get() {
            return Ok(Some(*sender));
        }
        Ok(find()?.map(|sender| *self.sender.get_or_init(|| sender)))
    }

    /// The power levels of the room while this is its `m.room.power_levels` event (or, for the create event, while it
    /// has none). A room has one create event, so they are read once.
    pub(super) fn power_levels(&self, version: &RoomVersion, create: &Pdu) -> &Arc<PowerLevels> {
        self.power_levels.get_or_init(|| match self.stated_levels.get() {
            // The creators add nothing to what such an event states.
            Some(Ok(stated)) if !version.privileged_creators => stated.clone(),
            _ => {
                let own = if self.brief.role == Role::Create { None } else { Some(&*self.pdu) };
                Arc::new(PowerLevels::new(version, create, own))
            }
        })
    }

    /// What this `m.room.power_levels` event states.
    pub(super) fn stated_levels(
        &self,
        version: &RoomVersion,
    ) -> Result<Arc<PowerLevels>, InvalidPowerLevels> {
        let stated = self.stated_levels.get_or_init(|| {
            PowerLevels::validate(version, &self.pdu.content)?;
            Ok(Arc::new(PowerLevels::from_content(version, &self.pdu.content)))
        });
        stated.clone()
    }
}

/// "Power events" of room version 2.
fn is_power_event(pdu: &Pdu) -> bool {
    let Some(state_key) = pdu.state_key.as_deref() else { return false };
    match &*pdu.kind {
        "m.room.power_levels" | "m.room.join_rules" => true,
        "m.room.member" => matches!(pdu.membership(), Some("leave" | "ban")) && *state_key != *pdu.sender,
        _ => false,
    }
}

fn role(pdu: &Pdu) -> Role {
    match (&*pdu.kind, pdu.state_key.as_deref()) {
        ("m.room.create", Some("")) => Role::Create,
        ("m.room.power_levels", Some("")) => Role::PowerLevels,
        ("m.room.join_rules", Some("")) => Role::JoinRules,
        ("m.room.member", Some(_)) => Role::Member,
        ("m.room.third_party_invite", Some(_)) => Role::ThirdPartyInvite,
        _ => Role::Other,
    }
}
