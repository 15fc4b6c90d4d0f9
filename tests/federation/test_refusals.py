"""What is refused of other servers' input is counted with its reason."""

import re

from harness.client import Client
from harness.events import id_of
from harness.metrics import told
from harness.peer import Key
from harness.server import free_port


def test_events_and_edus_are_counted_by_what_became_of_them(network, tmp_path, resident):
    address = f"http://127.0.0.1:{free_port()}"
    with network.server(tmp_path, "--metrics-listen", address) as server:
        alice = Client(server.base_url).register("alice")
        room_id = alice.create_room(preset="public_chat", room_version="11")
        copy, banned = resident.join(server, room_id), resident.user("carl")
        evading = resident.message(resident.join(server, room_id, banned), "said before the ban")
        alice.post("rooms/{roomId}/ban", room_id, json={"user_id": banned})
        join = resident.make_join(server, room_id, banned, like=copy.user)
        assert resident.send_join(server, join)[0] == 403
        resident.catch_up(server, copy)
        good = resident.message(copy)
        forged = {**resident.message(copy, "forged"), "signatures": good["signatures"]}
        unsigned = {**resident.message(copy, "unsigned"), "signatures": {}}
        # Of an event that the rules refuse it is told by which.
        state = resident.event(copy, "m.room.name", {"name": "mine"}, state_key="")
        malformed = {**good, "depth": "deep"}
        elsewhere = {**good, "room_id": "!unknown:here.test"}
        typing = {"room_id": room_id, "user_id": banned, "typing": True}
        edus = [{"edu_type": "m.typing", "content": typing}, {"edu_type": "m.unheard", "content": {}}]
        pdus = [good, evading, forged, unsigned, state, malformed, elsewhere, {"no": "room"}]
        results = resident.transact(server, pdus, edus)
        assert results[id_of(good)] == {} and results[id_of(evading)] == {}
        events = told(address, "warren_federation_events_total")
        dropped = {reason: count for (outcome, reason), count in events.items() if outcome == "dropped"}
        assert dropped == {"wrong_signature": 1, "unsigned": 1, "format": 2, "unknown_room": 1}
        assert events["accepted", ""] == 3, "two joins and a message"
        outcomes = {outcome: reason for outcome, reason in events if outcome in ("soft_failed", "rejected")}
        assert set(outcomes) == {"soft_failed", "rejected"} and all(re.match(r"\d", rule) for rule in outcomes.values())
        edus = told(address, "warren_federation_edus_dropped_total")
        assert edus == {("not_in_room",): 1, ("not_understood",): 1}
        alice.set_state(room_id, "m.room.server_acl", {"allow": ["*"], "deny": [resident.name.split(":")[0]]})
        assert "error" in resident.transact(server, [good])[id_of(good)]
        assert told(address, "warren_federation_events_total")["dropped", "server_acl"] == 1
        assert resident.send(server, "GET", "/_matrix/federation/v1/publicRooms", key=Key())[0] == 401
        assert told(address, "warren_federation_refusals_total") == {("wrong_signature",): 1}
