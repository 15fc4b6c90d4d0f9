//! From a ruleset to compiled rules.
//!
//! Invariant: a ruleset over the limits is refused, so the server compiles before it stores a change; what is stored
//! compiles.

use std::sync::Arc;

use ruma_common::push::{
    Action, AnyPushRuleRef, ComparisonOperator, EventMatchConditionData, EventPropertyContainsConditionData,
    EventPropertyIsConditionData, PushCondition, Ruleset, ScalarJsonValue,
};
use serde_json::{Map, Value};

use super::event::{Property, Scalar};
use super::{
    BODY_PATTERNS_MAX, CONDITIONS_MAX, Comparison, CompiledRules, Condition, PATTERN_BYTES_MAX,
    QUESTION_MARK_PATTERN_BYTES_MAX, QUESTION_MARK_PATTERNS_MAX, RULES_MAX, Rule, RuleActions,
};
use crate::core::glob::{Glob, Wildcards};

/// Actions that once were and are to be ignored.
const HISTORICAL_ACTIONS: [&str; 2] = ["dont_notify", "coalesce"];

/// A ruleset that would cost too much to evaluate; the user can mend it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[cfg_attr(not(feature = "exhaustive"), non_exhaustive)]
pub enum RulesError {
    /// More than [`RULES_MAX`] rules.
    #[error("there are more than {RULES_MAX} push rules")]
    TooManyRules,
    /// More than [`CONDITIONS_MAX`] conditions in a rule.
    #[error("the push rule {rule_id} has more than {CONDITIONS_MAX} conditions")]
    TooManyConditions {
        /// The rule.
        rule_id: Box<str>,
    },
    /// A pattern, key, value or rule id longer than [`PATTERN_BYTES_MAX`], or with `?` and longer than
    /// [`QUESTION_MARK_PATTERN_BYTES_MAX`].
    #[error("a pattern, key, value or the id of the push rule {rule_id} is longer than {limit} bytes")]
    TooLong {
        /// The rule.
        rule_id: Box<str>,
        /// How long it may be.
        limit: usize,
    },
    /// More than [`BODY_PATTERNS_MAX`] patterns for bodies, or [`QUESTION_MARK_PATTERNS_MAX`] with `?`.
    #[error("the push rules have more than {limit} {what}")]
    TooManyPatterns {
        /// What there are too many of.
        what: &'static str,
        /// How many there may be.
        limit: usize,
    },
}

impl CompiledRules {
    /// Compiles the rules of `user_id`.
    ///
    /// # Errors
    /// If the ruleset is over one of this module's limits.
    pub fn compile(ruleset: &Ruleset, user_id: &str) -> Result<Self, RulesError> {
        // A pattern with an id in it ignores case, so it means the user's id alone only if the id is in lower case.
        let is_plain = !user_id.contains(['*', '?']) && user_id.to_lowercase() == user_id;
        let mut compiler =
            Compiler { user_id, is_plain, rule_id: "", body_patterns: 0, question_mark_patterns: 0 };
        let mut rules = Vec::new();
        for (count, rule) in ruleset.iter().enumerate() {
            if count == RULES_MAX {
                return Err(RulesError::TooManyRules);
            }
            if rule.rule_id().len() > PATTERN_BYTES_MAX {
                let rule_id: String = rule.rule_id().chars().take(PATTERN_BYTES_MAX).collect();
                return Err(RulesError::TooLong { rule_id: rule_id.into(), limit: PATTERN_BYTES_MAX });
            }
            compiler.rule_id = rule.rule_id();
            // Disabled rules are compiled too, for the limits to hold when they are enabled.
            if let Some(conditions) = compiler.conditions(rule)?
                && rule.enabled()
            {
                rules.push(Rule {
                    rule_id: rule.rule_id().into(),
                    is_off_with_mentions: is_off_with_mentions(rule),
                    conditions,
                    actions: RuleActions::new(rule.actions()),
                });
            }
        }
        Ok(CompiledRules { rules: rules.into() })
    }

    /// As [`CompiledRules::compile`], but `shared` if the result is the same: the compiled default rules, of whichever user.
    pub fn compile_shared(
        ruleset: &Ruleset,
        user_id: &str,
        shared: &Arc<Self>,
    ) -> Result<Arc<Self>, RulesError> {
        let rules = Self::compile(ruleset, user_id)?;
        Ok(if rules == **shared { Arc::clone(shared) } else { Arc::new(rules) })
    }
}

impl RuleActions {
    fn new(actions: &[Action]) -> Self {
        let mut tweaks = Map::new();
        for action in actions {
            if let Action::SetTweak(tweak) = action {
                let value = tweak.value().and_then(|value| serde_json::from_str(value.get()).ok());
                tweaks.insert(tweak.set_tweak().to_owned(), value.unwrap_or(Value::Bool(true)));
            }
        }
        let json = actions.iter().filter_map(|action| serde_json::to_value(action).ok());
        let json =
            json.filter(|action| action.as_str().is_none_or(|name| !HISTORICAL_ACTIONS.contains(&name)));
        RuleActions {
            notify: actions.iter().any(Action::should_notify),
            highlight: actions.iter().any(Action::is_highlight),
            sound: actions.iter().find_map(Action::sound).map(|sound| sound.as_str().into()),
            tweaks,
            json: Value::Array(json.collect()).to_string().into(),
        }
    }
}

/// Whether the rule is one of the default rules before version 1.17 of the specification that look for names in the body.
fn is_off_with_mentions(rule: AnyPushRuleRef<'_>) -> bool {
    match rule {
        AnyPushRuleRef::Content(rule) => rule.rule_id == ".m.rule.contains_user_name",
        AnyPushRuleRef::Override(rule) | AnyPushRuleRef::Underride(rule) => {
            [".m.rule.contains_display_name", ".m.rule.roomnotif"].contains(&rule.rule_id.as_str())
        }
        _ => false,
    }
}

/// What is counted over a ruleset.
struct Compiler<'a> {
    user_id: &'a str,
    is_plain: bool,
    rule_id: &'a str,
    body_patterns: usize,
    question_mark_patterns: usize,
}

impl Compiler<'_> {
    /// The conditions of a rule; `None` if it can never match.
    fn conditions(&mut self, rule: AnyPushRuleRef<'_>) -> Result<Option<Box<[Condition]>>, RulesError> {
        let conditions = match rule {
            AnyPushRuleRef::Override(rule) | AnyPushRuleRef::Underride(rule) => &rule.conditions,
            AnyPushRuleRef::Content(rule) => return Ok(Some([self.body_match(&rule.pattern)?].into())),
            AnyPushRuleRef::Room(rule) => {
                return Ok(Some([Condition::RoomIs(rule.rule_id.as_str().into())].into()));
            }
            AnyPushRuleRef::Sender(rule) => {
                return Ok(Some([Condition::SenderIs(rule.rule_id.as_str().into())].into()));
            }
            _ => return Ok(None),
        };
        if conditions.len() > CONDITIONS_MAX {
            return Err(RulesError::TooManyConditions { rule_id: self.rule_id.into() });
        }
        let mut compiled = Vec::with_capacity(conditions.len());
        let mut is_possible = true;
        for condition in conditions {
            match self.condition(condition)? {
                Some(condition) => compiled.push(condition),
                None => is_possible = false,
            }
        }
        Ok(is_possible.then(|| compiled.into()))
    }

    /// One condition; `None` if it can never hold, as one of an unknown kind.
    fn condition(&mut self, condition: &PushCondition) -> Result<Option<Condition>, RulesError> {
        Ok(Some(match condition {
            PushCondition::EventMatch(data) => return self.event_match(data),
            #[allow(deprecated)]
            PushCondition::ContainsDisplayName => {
                self.count_body_pattern()?;
                Condition::DisplayName
            }
            PushCondition::RoomMemberCount(data) => {
                let comparison = match data.is.prefix {
                    ComparisonOperator::Eq => Comparison::Equal,
                    ComparisonOperator::Lt => Comparison::Less,
                    ComparisonOperator::Gt => Comparison::Greater,
                    ComparisonOperator::Le => Comparison::LessOrEqual,
                    ComparisonOperator::Ge => Comparison::GreaterOrEqual,
                };
                Condition::MemberCount(comparison, u64::from(data.is.count))
            }
            PushCondition::SenderNotificationPermission(data) => {
                self.check_length(data.key.as_str())?;
                Condition::SenderMayNotify(data.key.as_str().into())
            }
            PushCondition::EventPropertyIs(EventPropertyIsConditionData { key, value, .. }) => {
                let (property, value) = self.comparison(key, value)?;
                Condition::PropertyIs(property, value)
            }
            PushCondition::EventPropertyContains(EventPropertyContainsConditionData {
                key, value, ..
            }) => {
                let (property, value) = self.comparison(key, value)?;
                let is_own_id = matches!(&value, Scalar::Text(text) if **text == *self.user_id);
                if is_own_id && property.is_content(&["m.mentions", "user_ids"]) {
                    Condition::UserIsMentioned
                } else {
                    Condition::PropertyContains(property, value)
                }
            }
            _ => return Ok(None),
        }))
    }

    fn event_match(&mut self, data: &EventMatchConditionData) -> Result<Option<Condition>, RulesError> {
        self.check_length(&data.key)?;
        let property = Property::new(&data.key);
        if property.is_content(&["body"]) {
            return self.body_match(&data.pattern).map(Some);
        }
        if property == Property::StateKey && self.is_plain && data.pattern == self.user_id {
            return Ok(Some(Condition::StateKeyIsUser));
        }
        let pattern = self.pattern(&data.pattern)?;
        Ok((property != Property::Absent).then_some(Condition::EventMatch(property, pattern)))
    }

    fn body_match(&mut self, pattern: &str) -> Result<Condition, RulesError> {
        self.count_body_pattern()?;
        self.pattern(pattern).map(Condition::BodyMatch)
    }

    fn pattern(&mut self, pattern: &str) -> Result<Glob, RulesError> {
        self.check_length(pattern)?;
        if pattern.contains('?') {
            let limit = QUESTION_MARK_PATTERN_BYTES_MAX;
            if pattern.len() > limit {
                return Err(RulesError::TooLong { rule_id: self.rule_id.into(), limit });
            }
            self.question_mark_patterns += 1;
            if self.question_mark_patterns > QUESTION_MARK_PATTERNS_MAX {
                let what = "patterns with ?";
                return Err(RulesError::TooManyPatterns { what, limit: QUESTION_MARK_PATTERNS_MAX });
            }
        }
        Ok(Glob::new(&pattern.to_lowercase(), Wildcards::StarAndQuestionMark))
    }

    fn comparison(&self, key: &str, value: &ScalarJsonValue) -> Result<(Property, Scalar), RulesError> {
        self.check_length(key)?;
        self.check_length(value.as_str().unwrap_or_default())?;
        Ok((Property::new(key), Scalar::new(value)))
    }

    fn count_body_pattern(&mut self) -> Result<(), RulesError> {
        self.body_patterns += 1;
        if self.body_patterns > BODY_PATTERNS_MAX {
            let what = "patterns for message bodies";
            return Err(RulesError::TooManyPatterns { what, limit: BODY_PATTERNS_MAX });
        }
        Ok(())
    }

    fn check_length(&self, text: &str) -> Result<(), RulesError> {
        if text.len() > PATTERN_BYTES_MAX {
            return Err(RulesError::TooLong { rule_id: self.rule_id.into(), limit: PATTERN_BYTES_MAX });
        }
        Ok(())
    }
}
