"""Push rules and pushers (spec: Push Notifications)."""

import pytest

RULE = "pushrules/global/{kind}/{ruleId}"
CONTENT = {"pattern": "carrot", "actions": ["notify"]}


def rule_ids(client, kind):
    return [rule["rule_id"] for rule in client.get("pushrules/")["global"][kind]]


def test_the_default_rules(alice):
    ruleset = alice.get("pushrules/")["global"]
    assert alice.get("pushrules/global/") == ruleset
    overrides = [rule["rule_id"] for rule in ruleset["override"]]
    assert overrides[0] == ".m.rule.master"
    wanted = [
        ".m.rule.suppress_notices", ".m.rule.invite_for_me", ".m.rule.member_event", ".m.rule.is_user_mention",
        ".m.rule.is_room_mention", ".m.rule.tombstone", ".m.rule.reaction", ".m.rule.room.server_acl",
    ]  # fmt: skip
    assert [rule for rule in overrides if rule in wanted] == wanted
    underrides = {rule["rule_id"] for rule in ruleset["underride"]}
    wanted = {".m.rule.call", ".m.rule.room_one_to_one", ".m.rule.message", ".m.rule.encrypted"}
    assert wanted <= underrides


@pytest.mark.parametrize(
    "kind, rule_id, body",
    [
        ("content", "carrot", CONTENT),
        ("room", "!burrow:example.org", {"actions": []}),
        ("sender", "@bob:example.org", {"actions": ["notify", {"set_tweak": "sound", "value": "default"}]}),
        ("override", "mine", {"conditions": [{"kind": "event_match", "key": "type", "pattern": "m.*"}], "actions": []}),
        ("underride", "mine", {"conditions": [], "actions": ["notify"]}),
    ],
)
def test_a_rule_from_making_to_removing(alice, kind, rule_id, body):
    assert alice.put(RULE, kind, rule_id, json=body) == {}
    rule = alice.get(RULE, kind, rule_id)
    assert (rule["rule_id"], rule["default"], rule["enabled"]) == (rule_id, False, True)
    assert {name: rule[name] for name in body} == body
    assert alice.delete(RULE, kind, rule_id) == {}
    alice.get(RULE, kind, rule_id, status=404, errcode="M_NOT_FOUND")


def test_null_for_conditions_is_none(alice):
    assert alice.put(RULE, "override", "mine", json={"conditions": None, "actions": ["notify"]}) == {}
    rule = alice.get(RULE, "override", "mine")
    assert rule["actions"] == ["notify"] and not rule.get("conditions")


def test_the_newest_rule_comes_first_unless_placed(alice):
    for name in ("one", "two", "three"):
        alice.put(RULE, "content", name, json=CONTENT)
    assert [rule for rule in rule_ids(alice, "content") if not rule.startswith(".")] == ["three", "two", "one"]
    alice.put(RULE, "content", "four", json=CONTENT, query={"after": "two"})
    alice.put(RULE, "content", "five", json=CONTENT, query={"before": "three"})
    mine = [rule for rule in rule_ids(alice, "content") if not rule.startswith(".")]
    assert mine == ["five", "three", "two", "four", "one"]


def test_of_two_places_the_one_before_a_rule_counts(alice):
    for name in ("one", "two", "three"):
        alice.put(RULE, "content", name, json=CONTENT)
    for after in ("one", "none"):
        alice.put(RULE, "content", "four", json=CONTENT, query={"before": "two", "after": after})
        mine = [rule for rule in rule_ids(alice, "content") if not rule.startswith(".")]
        assert mine == ["three", "four", "two", "one"]


def test_own_overrides_come_after_the_master_rule(alice):
    alice.put(RULE, "override", "mine", json={"conditions": [], "actions": []})
    assert rule_ids(alice, "override")[:2] == [".m.rule.master", "mine"]


def test_enabling_and_actions(alice):
    path = (RULE + "/enabled", "underride", ".m.rule.message")
    assert alice.get(*path) == {"enabled": True}
    alice.put(*path, json={"enabled": False})
    assert alice.get(*path) == {"enabled": False}
    path = (RULE + "/actions", "underride", ".m.rule.message")
    alice.put(*path, json={"actions": []})
    assert alice.get(*path) == {"actions": []}


def test_a_change_comes_by_sync(alice):
    alice.sync()
    alice.put(RULE, "content", "carrot", json=CONTENT)

    def rules(answer):
        events = answer.get("account_data", {}).get("events", [])
        return [event for event in events if event["type"] == "m.push_rules"]

    content = alice.sync_until(rules)[0]["content"]
    assert "carrot" in [rule["rule_id"] for rule in content["global"]["content"]]


def test_rules_decide_what_counts(alice, bob, room):
    bob.put(RULE, "room", room, json={"actions": []})
    bob.sync()
    alice.send(room, "muted")
    assert bob.sync()["rooms"]["join"][room]["unread_notifications"]["notification_count"] == 0


@pytest.mark.parametrize(
    "kind, rule_id, body",
    [
        ("content", ".m.mine", CONTENT),
        ("burrow", "mine", {"actions": []}),
        ("content", "mine", {"actions": []}),
        ("content", "mine", {"pattern": "x"}),
        ("override", "mine", {"conditions": "x", "actions": []}),
        ("content", "mine", {"pattern": "x", "actions": "notify"}),
    ],
)
def test_malformed_rules(alice, kind, rule_id, body):
    alice.put(RULE, kind, rule_id, json=body, status=(400, 404))


def test_unknown_rules(alice):
    alice.get(RULE, "content", "none", status=404, errcode="M_NOT_FOUND")
    alice.delete(RULE, "content", "none", status=404, errcode="M_NOT_FOUND")
    alice.put(RULE + "/enabled", "content", "none", json={"enabled": True}, status=404, errcode="M_NOT_FOUND")
    alice.put(RULE, "content", "x", json=CONTENT, query={"before": "none"}, status=(400, 404))


def test_a_default_rule_cannot_be_removed(alice):
    alice.delete(RULE, "underride", ".m.rule.message", status=(400, 404))
