"""Thumbnails are made for few at a time, and whoever asks for many keeps nobody from theirs."""

import concurrent.futures

from harness.participant import path
from harness.pictures import png
from harness.waiting import until

# A large picture, which takes its time, and heights that are all made anew.
SIDE, HEIGHTS = 5_000, range(100, 1_600, 100)


def test_who_asks_for_many_thumbnails_keeps_nobody_waiting(server, hostile, alice):
    upload = alice.send_raw("POST", "/_matrix/media/v3/upload", data=png(SIDE), headers={"Content-Type": "image/png"})
    assert upload.status_code == 200, upload.text
    media_id = upload.json()["content_uri"].rsplit("/", 1)[1]
    answered = []

    def ask(height):
        target = path("v1/media/thumbnail/{}", media_id) + f"?width=1600&height={height}&method=crop"
        answered.append(hostile.send_raw(server, "GET", target)[0])

    with concurrent.futures.ThreadPoolExecutor(len(HEIGHTS)) as pool:
        asked = [pool.submit(ask, height) for height in HEIGHTS]
        until(lambda: answered)
        own = f"/_matrix/client/v1/media/thumbnail/{server.name}/{media_id}"
        answer = alice.send_raw("GET", own, params={"width": 32, "height": 32})
        before = len(answered)
        for one in asked:
            one.result()
    assert answer.status_code == 200, answer.text
    assert answered == [200] * len(HEIGHTS)
    assert before <= len(HEIGHTS) / 2
