//! `pushrules.yaml`: what a user wants to be notified of.
//!
//! The specification's paths have the one scope `global`; clients of old write it there as well.

use ruma_common::push::{
    Action, AnyPushRuleRef, NewConditionalPushRule, NewPatternedPushRule, NewPushRule, NewSimplePushRule,
    PushCondition, RuleKind, Ruleset,
};
use serde::Deserialize;
use serde_json::json;
use warren_engine::account::push_rules::{rule_json, ruleset_json};
use warren_engine::command::{ChangePushRules, PushRuleChange};
use warren_engine::view::PushRules;

use crate::http::{Answer, ApiError, Call, Outcome, endpoints, null_is_absent};

endpoints! {
    GET    "/_matrix/client/v3/pushrules/"                                ["r0"] Required Read  Nothing get_push_rules;
    GET    "/_matrix/client/v3/pushrules/global/"                         ["r0"] Required Read  Nothing get_global_push_rules;
    GET    "/_matrix/client/v3/pushrules/global/{kind}/{ruleId}"          ["r0"] Required Read  Nothing get_push_rule;
    PUT    "/_matrix/client/v3/pushrules/global/{kind}/{ruleId}"          ["r0"] Required Write Json    set_push_rule;
    DELETE "/_matrix/client/v3/pushrules/global/{kind}/{ruleId}"          ["r0"] Required Write Nothing delete_push_rule;
    GET    "/_matrix/client/v3/pushrules/global/{kind}/{ruleId}/enabled"  ["r0"] Required Read  Nothing is_push_rule_enabled;
    PUT    "/_matrix/client/v3/pushrules/global/{kind}/{ruleId}/enabled"  ["r0"] Required Write Json    set_push_rule_enabled;
    GET    "/_matrix/client/v3/pushrules/global/{kind}/{ruleId}/actions"  ["r0"] Required Read  Nothing get_push_rule_actions;
    PUT    "/_matrix/client/v3/pushrules/global/{kind}/{ruleId}/actions"  ["r0"] Required Write Json    set_push_rule_actions;
}

/// The body of a rule; which of the members count depends on its kind.
#[derive(Deserialize)]
struct RuleBody {
    actions: Vec<Action>,
    #[serde(default, deserialize_with = "null_is_absent")]
    conditions: Vec<PushCondition>,
    pattern: Option<String>,
}

#[derive(Deserialize)]
struct EnabledBody {
    enabled: bool,
}

#[derive(Deserialize)]
struct ActionsBody {
    actions: Vec<Action>,
}

fn ruleset(call: &Call) -> Result<Ruleset, ApiError> {
    Ok(call.ctx.engine.read(&PushRules { user_id: call.user()?.to_string() })?)
}

/// The kind in the path. Errors: 400 for one that does not exist.
fn kind(call: &Call) -> Result<RuleKind, ApiError> {
    Ok(match &*call.path("kind")? {
        "override" => RuleKind::Override,
        "underride" => RuleKind::Underride,
        "sender" => RuleKind::Sender,
        "room" => RuleKind::Room,
        "content" => RuleKind::Content,
        _ => {
            return Err(ApiError::invalid_param(
                "kind in the path must be one of: override, underride, sender, room, content",
            ));
        }
    })
}

/// The rule that the path names.
fn named<'a>(call: &Call, ruleset: &'a Ruleset) -> Result<AnyPushRuleRef<'a>, ApiError> {
    let rule = ruleset.get(kind(call)?, call.path("ruleId")?);
    rule.ok_or_else(|| ApiError::not_found("The push rule was not found"))
}

async fn change(call: &Call, change: PushRuleChange) -> Outcome {
    let user_id = call.user()?.to_string();
    call.ctx.engine.write(ChangePushRules { user_id, change }).await?;
    Ok(Answer::empty())
}

async fn get_push_rules(call: Call) -> Outcome {
    Answer::json(&json!({ "global": ruleset_json(&ruleset(&call)?) }))
}

async fn get_global_push_rules(call: Call) -> Outcome {
    Answer::json(&ruleset_json(&ruleset(&call)?))
}

async fn get_push_rule(call: Call) -> Outcome {
    Answer::json(&rule_json(named(&call, &ruleset(&call)?)?))
}

async fn set_push_rule(call: Call) -> Outcome {
    let kind = kind(&call)?;
    let rule_id = call.path("ruleId")?.into_owned();
    call.json_content()?;
    let body: RuleBody = call.json()?;
    let rule = match kind {
        RuleKind::Override => {
            NewPushRule::Override(NewConditionalPushRule::new(rule_id, body.conditions, body.actions))
        }
        RuleKind::Underride => {
            NewPushRule::Underride(NewConditionalPushRule::new(rule_id, body.conditions, body.actions))
        }
        RuleKind::Room => NewPushRule::Room(NewSimplePushRule::new(call.path_as("ruleId")?, body.actions)),
        RuleKind::Sender => {
            NewPushRule::Sender(NewSimplePushRule::new(call.path_as("ruleId")?, body.actions))
        }
        _ => {
            let pattern = body.pattern;
            let pattern = pattern.ok_or_else(|| ApiError::missing_param("A content rule needs a pattern"))?;
            NewPushRule::Content(NewPatternedPushRule::new(rule_id, pattern, body.actions))
        }
    };
    let place = |name| Ok::<_, ApiError>(call.query(name)?.map(|rule_id| rule_id.into_owned()));
    let (before, after) = (place("before")?, place("after")?);
    change(&call, PushRuleChange::Set { rule, before, after }).await
}

async fn delete_push_rule(call: Call) -> Outcome {
    let (kind, rule_id) = (kind(&call)?, call.path("ruleId")?.into_owned());
    change(&call, PushRuleChange::Remove { kind, rule_id }).await
}

async fn is_push_rule_enabled(call: Call) -> Outcome {
    Answer::json(&json!({ "enabled": named(&call, &ruleset(&call)?)?.enabled() }))
}

async fn set_push_rule_enabled(call: Call) -> Outcome {
    let (kind, rule_id) = (kind(&call)?, call.path("ruleId")?.into_owned());
    let EnabledBody { enabled } = call.json()?;
    change(&call, PushRuleChange::Enable { kind, rule_id, enabled }).await
}

async fn get_push_rule_actions(call: Call) -> Outcome {
    Answer::json(&json!({ "actions": named(&call, &ruleset(&call)?)?.actions() }))
}

async fn set_push_rule_actions(call: Call) -> Outcome {
    let (kind, rule_id) = (kind(&call)?, call.path("ruleId")?.into_owned());
    call.json_content()?;
    let ActionsBody { actions } = call.json()?;
    change(&call, PushRuleChange::SetActions { kind, rule_id, actions }).await
}
