//! Push rules: who is notified of an event, and how; compiled once for a user, prepared once for an event.
//!
//! Invariant: for one event, everything that does not depend on the user is decided once for all users who share a
//! compiled ruleset, as all do who never changed the default rules. What is left for each user is a comparison of ids.
//! Not here: the ruleset itself, its defaults and its editing (`ruma_common::push`), pushers, counters.
//!
//! Specification: "Push Rules" of the push notifications module of the client-server API.

mod compile;
mod event;

#[cfg(test)]
mod tests;

use serde_json::{Map, Value};

use crate::core::glob::Glob;

pub use self::compile::RulesError;
pub use self::event::EventFeatures;
use self::event::{Property, Scalar};

/// Most rules in a ruleset. Users who silence each of some hundred rooms are real.
pub const RULES_MAX: usize = 1_000;

/// Most conditions in one rule; the longest default rule has three.
pub const CONDITIONS_MAX: usize = 20;

/// Most bytes in a pattern, a key or a value of a rule, and in its id: as much as an id may have.
pub const PATTERN_BYTES_MAX: usize = 255;

/// Most patterns of one ruleset that are searched for in message bodies. The worst of them takes half a millisecond for
/// the largest body there can be.
pub const BODY_PATTERNS_MAX: usize = 100;

/// Most patterns with `?` of one ruleset; their worst takes some milliseconds for the largest body.
pub const QUESTION_MARK_PATTERNS_MAX: usize = 16;

/// Most bytes in a pattern with `?`, for the same reason.
pub const QUESTION_MARK_PATTERN_BYTES_MAX: usize = 64;

/// A user's push rules, ready to be evaluated.
///
/// Conditions on the user's own id are kept as such, so that rulesets that are equal but for it are equal here: compare
/// with the compiled default rules, and keep one copy for all ([`CompiledRules::compile_shared`]).
#[derive(Clone, Debug, PartialEq)]
pub struct CompiledRules {
    /// Only rules that are enabled and can match, in the order of their priority.
    rules: Box<[Rule]>,
}

#[derive(Clone, Debug, PartialEq)]
struct Rule {
    rule_id: Box<str>,
    /// Rules of old default rulesets that looked for names in the body; an event with `m.mentions` says it better.
    is_off_with_mentions: bool,
    conditions: Box<[Condition]>,
    actions: RuleActions,
}

#[derive(Clone, Debug, PartialEq)]
enum Condition {
    /// The property, lower-cased, matches.
    EventMatch(Property, Glob),
    /// Words of the body, lower-cased, match.
    BodyMatch(Glob),
    PropertyIs(Property, Scalar),
    PropertyContains(Property, Scalar),
    MemberCount(Comparison, u64),
    /// The sender has the power level for this kind of notification.
    SenderMayNotify(Box<str>),
    RoomIs(Box<str>),
    SenderIs(Box<str>),
    /// The body has the user's display name in the room as words.
    DisplayName,
    /// The state key is the user's id.
    StateKeyIsUser,
    /// The user is in `m.mentions`.
    UserIsMentioned,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Comparison {
    Equal,
    Less,
    Greater,
    LessOrEqual,
    GreaterOrEqual,
}

/// What a rule does when it matches.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RuleActions {
    /// The user is notified: counted as unread and pushed.
    pub notify: bool,
    /// The notification is to be highlighted.
    pub highlight: bool,
    /// The sound to be played, if any.
    pub sound: Option<Box<str>>,
    /// The tweaks for the push gateway.
    pub tweaks: Map<String, Value>,
    /// The actions as a JSON array, as `GET /notifications` shows them; without the historical `dont_notify` and
    /// `coalesce`.
    pub json: Box<str>,
}

/// What the rules decide for one user and one event.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome<'a> {
    /// The user is notified.
    pub notify: bool,
    /// And the notification is highlighted.
    pub highlight: bool,
    /// The rule that matched and its actions; `None` if none did.
    pub rule: Option<(&'a str, &'a RuleActions)>,
}

/// What conditions ask of the room in which the event is.
#[derive(Clone, Copy)]
pub struct RoomContext<'a> {
    /// How many users are joined.
    pub member_count: u64,
    /// Whether the event's sender has the power level that `notifications` in `m.room.power_levels` asks for this key.
    pub sender_may_notify: &'a dyn Fn(&str) -> bool,
}

/// What conditions ask of the user.
#[derive(Clone, Copy, Debug)]
pub struct UserContext<'a> {
    /// The user's id.
    pub user_id: &'a str,
    /// The user's display name in the room, if there is one.
    pub display_name: Option<&'a str>,
}

/// The rules of a ruleset that can still match an event: there is nothing left to ask of event or room.
#[derive(Clone, Debug)]
pub struct Selection {
    /// Their places in the ruleset; ends with the first that matches every user.
    places: Box<[usize]>,
}

/// A ruleset prepared for one event.
#[derive(Debug)]
pub struct EventRules<'a> {
    rules: &'a CompiledRules,
    event: &'a EventFeatures,
    selection: Selection,
}

/// Evaluates a user's rules for an event. For many users with the same rules, prepare them once: [`CompiledRules::for_event`].
pub fn evaluate<'a>(
    rules: &'a CompiledRules,
    event: &'a EventFeatures,
    room: &RoomContext<'_>,
    user: &UserContext<'_>,
) -> Outcome<'a> {
    rules.for_event(event, room).evaluate(user)
}

impl CompiledRules {
    /// Decides all that does not depend on the user.
    pub fn for_event<'a>(&'a self, event: &'a EventFeatures, room: &RoomContext<'_>) -> EventRules<'a> {
        EventRules { rules: self, event, selection: self.select(event, room) }
    }

    /// The same, to be kept beside the rules.
    pub fn select(&self, event: &EventFeatures, room: &RoomContext<'_>) -> Selection {
        let mut places = Vec::new();
        for (place, rule) in self.rules.iter().enumerate() {
            if rule.is_off_with_mentions && event.has_mentions() {
                continue;
            }
            let mut is_for_all = true;
            let is_possible = rule.conditions.iter().all(|condition| match condition.holds(event, room) {
                Some(holds) => holds,
                None => {
                    is_for_all = false;
                    true
                }
            });
            if is_possible {
                places.push(place);
                if is_for_all {
                    break;
                }
            }
        }
        Selection { places: places.into() }
    }

    /// The outcome for one user of an event that `selection` was made for. Users are never notified of what they sent
    /// themselves.
    pub fn evaluate<'a>(
        &'a self,
        selection: &Selection,
        event: &EventFeatures,
        user: &UserContext<'_>,
    ) -> Outcome<'a> {
        let mut selected = selection.places.iter().filter_map(|place| self.rules.get(*place));
        let rule = if event.sender() == user.user_id {
            None
        } else {
            selected
                .find(|rule| rule.conditions.iter().all(|condition| condition.holds_for_user(event, user)))
        };
        match rule {
            None => Outcome { notify: false, highlight: false, rule: None },
            Some(rule) => Outcome {
                notify: rule.actions.notify,
                highlight: rule.actions.highlight,
                rule: Some((&rule.rule_id, &rule.actions)),
            },
        }
    }
}

impl<'a> EventRules<'a> {
    /// The outcome for one user.
    pub fn evaluate(&self, user: &UserContext<'_>) -> Outcome<'a> {
        self.rules.evaluate(&self.selection, self.event, user)
    }

    /// Whether no user with these rules can be notified, so that none needs to be looked at.
    pub fn is_silent(&self) -> bool {
        let mut selected = self.selection.places.iter().filter_map(|place| self.rules.rules.get(*place));
        selected.all(|rule| !rule.actions.notify)
    }
}

impl Condition {
    /// Whether the condition holds for every user; `None` if that depends on the user.
    fn holds(&self, event: &EventFeatures, room: &RoomContext<'_>) -> Option<bool> {
        Some(match self {
            Condition::EventMatch(property, pattern) => event.matches(property, pattern),
            Condition::BodyMatch(pattern) => {
                event.body_lower().is_some_and(|body| pattern.matches_words(body))
            }
            Condition::PropertyIs(property, value) => event.is(property, value),
            Condition::PropertyContains(property, value) => event.contains(property, value),
            Condition::MemberCount(comparison, count) => comparison.holds(room.member_count, *count),
            Condition::SenderMayNotify(key) => (room.sender_may_notify)(key),
            Condition::RoomIs(room_id) => event.room_id() == &**room_id,
            Condition::SenderIs(user_id) => event.sender() == &**user_id,
            Condition::DisplayName => return event.body_lower().map_or(Some(false), |_| None),
            Condition::StateKeyIsUser => {
                return event
                    .state_key_lower()
                    .filter(|key| key.starts_with('@'))
                    .map_or(Some(false), |_| None);
            }
            Condition::UserIsMentioned => return if event.mentions_anyone() { None } else { Some(false) },
        })
    }

    /// Whether a condition on the user holds; the others were found to hold before.
    fn holds_for_user(&self, event: &EventFeatures, user: &UserContext<'_>) -> bool {
        match self {
            Condition::DisplayName => match (event.body_lower(), user.display_name) {
                (Some(body), Some(name)) if !name.is_empty() => {
                    Glob::exact(&name.to_lowercase()).matches_words(body)
                }
                _ => false,
            },
            Condition::StateKeyIsUser => event.state_key_lower() == Some(user.user_id),
            Condition::UserIsMentioned => event.mentions(user.user_id),
            _ => true,
        }
    }
}

impl Comparison {
    fn holds(self, count: u64, than: u64) -> bool {
        match self {
            Comparison::Equal => count == than,
            Comparison::Less => count < than,
            Comparison::Greater => count > than,
            Comparison::LessOrEqual => count <= than,
            Comparison::GreaterOrEqual => count >= than,
        }
    }
}
