"""Files of other servers (server-server API, "Content Repository"): where they are, and how older servers give them."""

import email.message
import os

import pytest

from harness.client import Client, unique
from harness.pictures import png, png_claiming

DOWNLOAD = "/_matrix/federation/v1/media/download/"
IMAGE = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40


def download(alice, peer, media_id):
    return alice.send_raw("GET", f"/_matrix/client/v1/media/download/{peer.name}/{media_id}")


def multipart(headers, body=b""):
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    content = b"--here\r\nContent-Type: application/json\r\n\r\n{}\r\n--here\r\n" + head.encode() + b"\r\n" + body
    return 200, content + b"\r\n--here--\r\n", {"Content-Type": "multipart/mixed; boundary=here"}


def assert_image(response):
    assert (response.status_code, response.content) == (200, IMAGE)
    assert response.headers["Content-Type"] == "image/png"
    assert 'filename=' in response.headers["Content-Disposition"] and "a.png" in response.headers["Content-Disposition"]


SHOWN = {"Content-Type": "image/png", "Content-Disposition": 'inline; filename="a.png"'}


def test_a_file_in_the_answer(alice, peer):
    peer.answers[DOWNLOAD + "plain"] = lambda _: multipart(SHOWN, IMAGE)
    assert_image(download(alice, peer, "plain"))
    assert_image(download(alice, peer, "plain"))
    (request,) = peer.asked(DOWNLOAD + "plain")
    assert request.headers["Authorization"].startswith("X-Matrix "), "it is fetched once, with a signature"


def test_an_empty_file(alice, peer):
    """Also as Synapse gives one: the end of an answer without any part."""
    without_parts = 200, b"\r\n--here--\r\n", {"Content-Type": "multipart/mixed; boundary=here"}
    for media_id, answer in (("empty", multipart(SHOWN)), ("nothing", without_parts)):
        peer.answers[DOWNLOAD + media_id] = lambda _, answer=answer: answer
        response = download(alice, peer, media_id)
        assert (response.status_code, response.content) == (200, b""), media_id


@pytest.mark.parametrize("lose", [os.unlink, lambda path: os.truncate(path, 10)], ids=["gone", "cut short"])
def test_a_file_that_is_lost_here_is_fetched_again(warren, peer, lose):
    """As after the database was put back without the media."""
    alice = Client(warren.base_url).register("alice")
    peer.answers[DOWNLOAD + "lost"] = lambda _: multipart(SHOWN, IMAGE)
    assert_image(download(alice, peer, "lost"))
    (content,) = (path for path in (warren.data_dir / "media" / "content").rglob("*") if path.is_file())
    lose(content)
    for _ in range(2):
        assert_image(download(alice, peer, "lost"))
    assert len(peer.asked(DOWNLOAD + "lost")) == 2
    # Nobody has it any more.
    lose(content)
    peer.answers[DOWNLOAD + "lost"] = lambda _: (404, {"errcode": "M_NOT_FOUND", "error": "it is gone"})
    response = download(alice, peer, "lost")
    assert (response.status_code, response.json()["errcode"]) == (404, "M_NOT_FOUND")


NAMES = [
    ('inline; filename="a; b.txt"', "a; b.txt"),
    ('attachment; size=5; filename="a=b; filename=c.txt"; x', "a=b; filename=c.txt"),
    (r'inline; filename="say \"a; b\".txt"', 'say "a; b".txt'),
    ("inline; filename=a b.txt", "a b.txt"),
    ("inline; filename=\"a;.txt\"; filename*=utf-8''%3B%C3%BC.txt", ";ü.txt"),
]


@pytest.mark.parametrize("written, name", NAMES)
def test_names_of_files(alice, peer, written, name):
    media_id = unique("named")
    peer.answers[DOWNLOAD + media_id] = lambda _: multipart({**SHOWN, "Content-Disposition": written}, IMAGE)
    shown = email.message.Message()
    shown["Content-Disposition"] = download(alice, peer, media_id).headers["Content-Disposition"]
    assert shown.get_filename() == name


@pytest.mark.parametrize("status, errcode", [(504, "M_NOT_YET_UPLOADED"), (502, "M_TOO_LARGE")])
def test_what_a_server_says_of_a_file_is_passed_on(alice, peer, status, errcode):
    media_id = unique("said")
    peer.answers[DOWNLOAD + media_id] = lambda _: (status, {"errcode": errcode, "error": "not now"})
    response = download(alice, peer, media_id)
    assert (response.status_code, response.json()["errcode"]) == (status, errcode)


PARTS = [b"--here", b"Content-Type: application/json", b"", b"{}", b"--here"]
HEAD = [b"Content-Type: image/png", b'Content-Disposition: inline; filename="a.png"', b""]
# What stands before the first boundary, by RFC 2046 of no meaning, and what ends lines.
WRITTEN = {
    "an empty line": ([b""], b"\r\n"),
    "a preamble": ([b"This answer has several parts.", b"", b"--there", b"or --here"], b"\r\n"),
    "line feeds": ([], b"\n"),
    "a preamble and line feeds": ([b"Several parts", b""], b"\n"),
}


@pytest.mark.parametrize("written", WRITTEN)
@pytest.mark.parametrize("quote", ["", '"'], ids=["bare", "quoted"])
def test_a_file_in_an_answer_that_is_written_otherwise(alice, peer, written, quote):
    before, line_end = WRITTEN[written]
    body = line_end.join([*before, *PARTS, *HEAD, IMAGE, b"--here--", b"what follows"])
    headers = {"Content-Type": f"multipart/mixed; charset=utf-8; boundary={quote}here{quote}"}
    media_id = unique("written")
    peer.answers[DOWNLOAD + media_id] = lambda _: (200, body, headers)
    assert_image(download(alice, peer, media_id))


def test_answers_without_a_file(alice, peer):
    """Also what stands before a boundary, if the answer's head names none."""
    file = b"\r\n".join([*PARTS, *HEAD, IMAGE, b"--here--", b""])
    named = "multipart/mixed; boundary=here"
    for content_type, body in (
        ("multipart/mixed", b"a preamble\r\n" + file),
        ("multipart/mixed; boundary=there", file),
        (named, b"a preamble without end " * 4_000 + b"\r\n" + file),
        (named, file.removesuffix(b"--here--\r\n")),
        (named, b"--here\r\n\r\n{}\r\n--here--\r\n"),
        (named, b""),
    ):
        media_id = unique("none")
        peer.answers[DOWNLOAD + media_id] = lambda _, content_type=content_type, body=body: (200, body, {"Content-Type": content_type})
        response = download(alice, peer, media_id)
        assert (response.status_code, response.json()["errcode"]) == (502, "M_UNKNOWN"), (content_type, body[:100])


def test_a_file_elsewhere(alice, peer, network):
    elsewhere = network.peer()
    elsewhere.answers["/files/x"] = lambda _: (200, IMAGE, SHOWN)
    peer.answers[DOWNLOAD + "moved"] = lambda _: multipart({"Location": f"https://{elsewhere.name}/files/x?key=a%20b"})
    assert_image(download(alice, peer, "moved"))
    assert_image(download(alice, peer, "moved"))
    (request,) = elsewhere.asked("/files/x")
    assert request.target == "/files/x?key=a%20b"
    assert "Authorization" not in request.headers, "what is signed for one server is no other's business"


def test_a_thumbnail_of_a_file_elsewhere(alice, peer, network):
    elsewhere = network.peer()
    elsewhere.answers["/x"] = lambda _: (200, png(1), {"Content-Type": "image/png"})
    peer.answers[DOWNLOAD + "picture"] = lambda _: multipart({"Location": f"https://{elsewhere.name}/x"})
    path = f"/_matrix/client/v1/media/thumbnail/{peer.name}/picture?width=32&height=32"
    response = alice.send_raw("GET", path)
    assert response.status_code == 200 and response.headers["Content-Type"].startswith("image/")


def test_a_thumbnail_of_a_picture_that_is_too_large(alice, peer):
    """Specification: 413 is for "local content", 502 for "remote content"."""
    peer.answers[DOWNLOAD + "large"] = lambda _: multipart(SHOWN, png_claiming(50_000, 50_000))
    for _ in range(2):
        path = f"/_matrix/client/v1/media/thumbnail/{peer.name}/large?width=96&height=96&method=crop"
        response = alice.send_raw("GET", path)
        assert (response.status_code, response.json()["errcode"]) == (502, "M_TOO_LARGE")


def test_addresses_that_lead_nowhere(alice, peer, network):
    elsewhere = network.peer()
    elsewhere.answers["/hop"] = lambda _: (302, b"", {"Location": f"https://{elsewhere.name}/x"})
    elsewhere.answers["/x"] = lambda _: (200, IMAGE, SHOWN)
    bad = ["/x", "mailto:x", "", f"http://{elsewhere.name}/x", f"https://a:b@{elsewhere.name}/x", "https:///x"]
    for address in [*bad, f"https://{elsewhere.name}/hop", f"https://{elsewhere.name}/gone", "https://nowhere.test/x"]:
        media_id = unique("bad")
        peer.answers[DOWNLOAD + media_id] = lambda _, address=address: multipart({"Location": address})
        response = download(alice, peer, media_id)
        assert response.status_code in (404, 502), address
        assert response.json()["errcode"] and response.json()["error"]
    assert elsewhere.asked("/x") == []


UNKNOWN = [(404, {"errcode": "M_UNRECOGNIZED", "error": "?"}), (404, b"<html>"), (405, {"errcode": "M_UNRECOGNIZED"})]


@pytest.mark.parametrize("unknown", UNKNOWN, ids=["unrecognized", "html", "method"])
def test_an_older_server(alice, peer, unknown):
    peer.answers[DOWNLOAD + "old"] = lambda _: unknown
    older = f"/_matrix/media/v3/download/{peer.name.replace(':', '%3A')}/old"
    peer.answers[older] = lambda _: (200, IMAGE, SHOWN)
    assert_image(download(alice, peer, "old"))
    assert_image(download(alice, peer, "old"))
    (request,) = peer.asked(older)
    assert "allow_remote=false" in request.target.split("?")[1].split("&")
    assert "Authorization" not in request.headers
    assert [row.target.split("?")[0] for row in peer.requests if "media" in row.target] == [DOWNLOAD + "old", older]


def test_a_file_that_is_not_there_is_not_looked_for_in_the_old_place(alice, peer):
    peer.answers[DOWNLOAD + "none"] = lambda _: (404, {"errcode": "M_NOT_FOUND", "error": "There is no such file"})
    response = download(alice, peer, "none")
    assert (response.status_code, response.json()["errcode"]) == (404, "M_NOT_FOUND")
    assert [request for request in peer.requests if "/_matrix/media/" in request.target] == []
