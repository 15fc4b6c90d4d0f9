"""Hand-written servers that keep answers back until a test lets them give these, or is over."""

import threading

from harness.participant import SECONDS_MAX, Participant


class Withholding(Participant):
    def __init__(self, *arguments, **more):
        super().__init__(*arguments, **more)
        self.may_answer = threading.Event()

    def until_it_may(self):
        self.may_answer.wait(SECONDS_MAX)

    def close(self):
        self.may_answer.set()
        super().close()


class Hasty(Withholding):
    """Lets others' users in, and keeps the answer to that back."""

    def __init__(self, *arguments, **more):
        super().__init__(*arguments, **more)
        self.was_handed_in = threading.Event()

    def answer_send_join(self, values, query, body):
        answer = super().answer_send_join(values, query, body)
        self.was_handed_in.set()
        self.until_it_may()
        return answer
