//! A user adds, changes, silences or removes one of their push rules.

use ruma_common::push::{Action, InsertPushRuleError, NewPushRule, RemovePushRuleError, RuleKind, Ruleset};

use crate::{
    account::push_rules,
    command::{Command, Lanes},
    error::{Error, Invalid, Result, What},
    store::Tx,
};

/// One change of a user's push rules.
pub struct ChangePushRules {
    /// The user's id.
    pub user_id: String,
    /// What to change.
    pub change: PushRuleChange,
}

/// What is to be changed.
pub enum PushRuleChange {
    /// Adds a rule, or replaces one of the user's own.
    Set {
        /// The rule.
        rule: NewPushRule,
        /// The rule that it is to be next-most important to.
        before: Option<String>,
        /// The rule that it is to be next-less important to, unless `before` is given.
        after: Option<String>,
    },
    /// Removes a rule of the user's own.
    Remove {
        /// Its kind.
        kind: RuleKind,
        /// Its id.
        rule_id: String,
    },
    /// Turns a rule on or off.
    Enable {
        /// Its kind.
        kind: RuleKind,
        /// Its id.
        rule_id: String,
        /// Whether it is to be on.
        enabled: bool,
    },
    /// Sets what a rule does.
    SetActions {
        /// Its kind.
        kind: RuleKind,
        /// Its id.
        rule_id: String,
        /// What it is to do.
        actions: Vec<Action>,
    },
}

impl Command for ChangePushRules {
    type Output = ();

    fn lanes(&self) -> Lanes {
        Lanes::default().user(&self.user_id)
    }

    fn run(&self, tx: &mut Tx) -> Result<()> {
        let user = tx.user_num(&self.user_id)?.ok_or(Error::NotFound(What::User))?;
        let mut ruleset = push_rules::ruleset(tx, user)?;
        self.change.apply(&mut ruleset)?;
        push_rules::store(tx, user, ruleset)
    }
}

impl PushRuleChange {
    fn apply(&self, ruleset: &mut Ruleset) -> Result<()> {
        let not_found = |_| Error::NotFound(What::PushRule);
        match self {
            Self::Set { rule, before, after } => set(ruleset, rule, before.as_deref(), after.as_deref()),
            Self::Remove { kind, rule_id } => {
                ruleset.remove(kind.clone(), rule_id).map_err(|error| match error {
                    RemovePushRuleError::NotFound => Error::NotFound(What::PushRule),
                    error => wrong("ruleId", error),
                })
            }
            Self::Enable { kind, rule_id, enabled } => {
                ruleset.set_enabled(kind.clone(), rule_id, *enabled).map_err(not_found)
            }
            Self::SetActions { kind, rule_id, actions } => {
                ruleset.set_actions(kind.clone(), rule_id, actions.clone()).map_err(not_found)
            }
        }
    }
}

fn set(ruleset: &mut Ruleset, rule: &NewPushRule, before: Option<&str>, after: Option<&str>) -> Result<()> {
    let (kind, rule_id) = (rule.kind(), rule.rule_id().to_owned());
    // Specification: "If both `after` and `before` are provided, the new or updated rule must be the next most important rule
    // with respect to the rule identified by `before`."
    let after = after.filter(|_| before.is_none());
    if [before, after].contains(&Some(&*rule_id)) {
        return Err(Invalid::PushRulePlace(rule_id).into());
    }
    // A rule that is to move is taken out first: places are then counted among the others only.
    let mut was_enabled = true;
    if (before.is_some() || after.is_some())
        && let Some(old) = ruleset.get(kind.clone(), &rule_id).filter(|old| !old.is_server_default())
    {
        was_enabled = old.enabled();
        ruleset.remove(kind.clone(), &rule_id).map_err(|error| wrong("ruleId", error))?;
    }
    ruleset.insert(rule.clone(), after, before).map_err(|error| match error {
        InsertPushRuleError::UnknownRuleId => {
            Invalid::PushRulePlace(before.or(after).unwrap_or_default().to_owned()).into()
        }
        InsertPushRuleError::ServerDefaultRuleId | InsertPushRuleError::InvalidRuleId => {
            wrong("ruleId", error)
        }
        error => wrong("before and after", error),
    })?;
    if !was_enabled {
        ruleset.set_enabled(kind, rule_id, false).map_err(|_| Error::NotFound(What::PushRule))?;
    }
    Ok(())
}

fn wrong(what: &'static str, error: impl std::fmt::Display) -> Error {
    Invalid::Parameter { what, why: error.to_string() }.into()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ruma_common::push::NewPatternedPushRule;

    use super::*;
    use crate::{
        Committer, Engine, Options,
        store::{Memory, Reader},
        view::{PushRules, View},
    };

    const ALICE: &str = "@alice:a.example";

    /// Gives Alice a number.
    struct Meet;

    impl Command for Meet {
        type Output = ();
        fn lanes(&self) -> Lanes {
            Lanes::none()
        }
        fn run(&self, tx: &mut Tx) -> Result<()> {
            tx.intern_user(ALICE)?;
            Ok(())
        }
    }

    struct Content;

    impl View for Content {
        type Output = bytes::Bytes;
        fn read(&self, reader: &Reader) -> Result<bytes::Bytes> {
            Ok(push_rules::content(reader, reader.user_num(ALICE)?.unwrap())?)
        }
    }

    fn engine() -> Engine {
        let mut options = Options::new("a.example");
        options.committer = Committer::Inline;
        let engine = Engine::open(Arc::new(Memory::default()), options).unwrap();
        engine.write(Meet).wait().unwrap();
        engine
    }

    fn change(engine: &Engine, change: PushRuleChange) -> Result<()> {
        engine.write(ChangePushRules { user_id: ALICE.to_owned(), change }).wait()
    }

    fn put(engine: &Engine, rule_id: &str, before: Option<&str>, after: Option<&str>) -> Result<()> {
        let rule = NewPatternedPushRule::new(rule_id.to_owned(), "carrot".to_owned(), vec![Action::Notify]);
        let (before, after) = (before.map(str::to_owned), after.map(str::to_owned));
        change(engine, PushRuleChange::Set { rule: NewPushRule::Content(rule), before, after })
    }

    fn order(engine: &Engine) -> Vec<String> {
        let ruleset = engine.read(&PushRules { user_id: ALICE.to_owned() }).unwrap();
        ruleset.content.iter().filter(|rule| !rule.default).map(|rule| rule.rule_id.clone()).collect()
    }

    #[test]
    fn rules_are_placed_among_the_others() {
        let engine = engine();
        for rule_id in ["c", "b", "a"] {
            put(&engine, rule_id, None, None).unwrap();
        }
        assert_eq!(order(&engine), ["a", "b", "c"]);
        put(&engine, "a", None, Some("b")).unwrap();
        assert_eq!(order(&engine), ["b", "a", "c"]);
        put(&engine, "b", None, Some("c")).unwrap();
        assert_eq!(order(&engine), ["a", "c", "b"]);
        put(&engine, "b", Some("a"), None).unwrap();
        assert_eq!(order(&engine), ["b", "a", "c"]);
        put(&engine, "a", None, None).unwrap();
        assert_eq!(order(&engine), ["b", "a", "c"], "a rule that is only changed stays where it is");
        for (before, after) in [(Some("a"), None), (None, Some("none")), (Some(".m.rule.master"), None)] {
            assert!(put(&engine, "a", before, after).is_err());
        }
        assert_eq!(order(&engine), ["b", "a", "c"]);
        put(&engine, "a", Some("b"), Some("c")).unwrap();
        assert_eq!(order(&engine), ["a", "b", "c"], "of two places the one before a rule counts");
    }

    #[test]
    fn a_moved_rule_stays_off() {
        let engine = engine();
        put(&engine, "a", None, None).unwrap();
        put(&engine, "b", None, None).unwrap();
        let (kind, rule_id) = (RuleKind::Content, "a".to_owned());
        change(&engine, PushRuleChange::Enable { kind, rule_id, enabled: false }).unwrap();
        put(&engine, "a", Some("b"), None).unwrap();
        let ruleset = engine.read(&PushRules { user_id: ALICE.to_owned() }).unwrap();
        assert_eq!(order(&engine), ["a", "b"]);
        assert!(!ruleset.get(RuleKind::Content, "a").unwrap().enabled());
    }

    #[test]
    fn a_rule_that_is_nested_deeply_costs_nobody_the_others() {
        let engine = engine();
        put(&engine, "a", None, None).unwrap();
        let (nested, end) = ("[".repeat(124), "]".repeat(124));
        let deep: Action = serde_json::from_str(&format!(r#"{{"a":{nested}{end}}}"#)).unwrap();
        let rule = NewPatternedPushRule::new("deep".to_owned(), "carrot".to_owned(), vec![deep.clone()]);
        let set = PushRuleChange::Set { rule: NewPushRule::Content(rule), before: None, after: None };
        change(&engine, set).unwrap();
        put(&engine, "b", None, None).unwrap();
        assert_eq!(order(&engine), ["b", "deep", "a"]);
        let ruleset = engine.read(&PushRules { user_id: ALICE.to_owned() }).unwrap();
        let shown = ruleset.get(RuleKind::Content, "deep").unwrap().actions().to_vec();
        assert_eq!(serde_json::to_string(&shown).unwrap(), serde_json::to_string(&[deep]).unwrap());
        assert!(engine.read(&Content).is_ok());
    }

    #[test]
    fn what_is_not_there_or_not_the_users_is_refused() {
        let engine = engine();
        let rule_id = || ".m.rule.message".to_owned();
        let remove = |rule_id| change(&engine, PushRuleChange::Remove { kind: RuleKind::Underride, rule_id });
        assert!(matches!(remove(rule_id()), Err(Error::Invalid(Invalid::Parameter { .. }))));
        assert!(matches!(remove("none".to_owned()), Err(Error::NotFound(What::PushRule))));
        for reserved in [".mine", "a/b", "a\\b"] {
            assert!(matches!(put(&engine, reserved, None, None), Err(Error::Invalid(_))));
        }
        let actions =
            PushRuleChange::SetActions { kind: RuleKind::Underride, rule_id: rule_id(), actions: vec![] };
        change(&engine, actions).unwrap();
        let ruleset = engine.read(&PushRules { user_id: ALICE.to_owned() }).unwrap();
        assert!(ruleset.get(RuleKind::Underride, rule_id()).unwrap().actions().is_empty());
    }

    #[test]
    fn the_account_data_has_every_kind() {
        let engine = engine();
        let content: serde_json::Value = serde_json::from_slice(&engine.read(&Content).unwrap()).unwrap();
        for kind in ["override", "content", "room", "sender", "underride"] {
            assert!(content["global"][kind].is_array(), "{kind}");
        }
    }
}
