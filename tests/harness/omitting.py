"""A hand-written server that lets others into its rooms without the members, and tells these when a test lets it."""

import threading

from harness.events import id_of
from harness.participant import SECONDS_MAX, Participant
from harness.waiting import until

PARTIAL_JOINS = "/_warren/admin/v1/partial_joins"


class Omitting(Participant):
    def __init__(self, *arguments, **more):
        super().__init__(*arguments, **more)
        # Other servers that it says are in its rooms; whether it was asked for members, and may tell them.
        self.others, self.was_asked, self.may_tell = [], threading.Event(), threading.Event()

    def answer_send_join(self, values, query, body):
        status, answer = super().answer_send_join(values, query, body)
        state = [event for event in answer["state"] if event["type"] != "m.room.member"]
        # What allows the join may be a member that is left out.
        chain = [*answer["auth_chain"], *self.told({"": id_of(body)})["auth_chain"]]
        chain = list({id_of(event): event for event in chain}.values())
        told = {"state": state, "auth_chain": chain, "servers_in_room": [self.name, *self.others]}
        return status, {**answer, **told, "members_omitted": True}

    def answer_state(self, values, query, body):
        self.was_asked.set()
        self.may_tell.wait(SECONDS_MAX)
        return super().answer_state(values, query, body)

    def close(self):
        self.may_tell.set()
        super().close()


def until_all_whole(admin):
    """Waits until the server knows the members of all rooms, as administrators are told."""
    until(lambda: admin.get(PARTIAL_JOINS)["total"] == 0)
