"""A server that lets others' users in and keeps its answer back."""

import threading

from harness.participant import SECONDS_MAX, Participant


class Hasty(Participant):
    """Answers a join only when a test lets it."""

    def __init__(self, *arguments, **more):
        super().__init__(*arguments, **more)
        self.was_handed_in, self.may_answer = threading.Event(), threading.Event()

    def answer_send_join(self, values, query, body):
        answer = super().answer_send_join(values, query, body)
        self.was_handed_in.set()
        self.may_answer.wait(SECONDS_MAX)
        return answer
