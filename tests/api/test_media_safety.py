"""Media that is out to hurt, and what downloads promise to caches and browsers (spec: Content Repository, Security
considerations)."""

import contextlib
import http.client
import json
import socket
import threading
import urllib.parse

import pytest

from harness.client import Client
from harness.pictures import png_claiming
from harness.server import Server

DOWNLOAD = "/_matrix/client/v1/media/download/{}/{}"
OLD_DOWNLOAD = "/_matrix/media/{}/download/{}/{}"
THUMBNAIL = "/_matrix/client/v1/media/thumbnail/{}/{}"
UPLOAD = "/_matrix/media/v3/upload"


def upload(client, data, content_type, **query):
    answer = client.post(UPLOAD, data=data, headers={"Content-Type": content_type}, query=query)
    return answer["content_uri"].removeprefix("mxc://").split("/")


def refused(response, status, errcode):
    assert (response.status_code, response.json()["errcode"]) == (status, errcode), response.text


def test_a_decoder_bomb_is_refused_by_its_header(alice):
    parts = upload(alice, png_claiming(50_000, 50_000), "image/png")
    response = alice.send_raw("GET", THUMBNAIL.format(*parts), params={"width": 96, "height": 96, "method": "crop"})
    refused(response, 413, "M_TOO_LARGE")
    assert alice.send_raw("GET", DOWNLOAD.format(*parts)).content == png_claiming(50_000, 50_000)


@pytest.mark.parametrize("data", [png_claiming(200, 200), b"\xff\xd8\xff\xe0\0\x10JFIF", b"<svg/>", b""])
def test_broken_and_foreign_images_have_no_thumbnail(alice, data):
    parts = upload(alice, data, "image/png")
    response = alice.send_raw("GET", THUMBNAIL.format(*parts), params={"width": 96, "height": 96})
    refused(response, 400, "M_UNKNOWN")


@pytest.mark.parametrize("media_id", ["..%2f..%2fstore", "%2e%2e", "a%00b", "a.b", "a" * 300, "%c3%a9"])
def test_media_ids_do_not_leave_their_folder(alice, media_id):
    path = DOWNLOAD.format(alice.server_name, media_id)
    refused(alice.send_raw("GET", path), 400, "M_INVALID_PARAM")


@pytest.mark.parametrize("server_name", ["..%2f..", "a%2fb", "%20", "a%0d%0ab"])
def test_server_names_are_checked(alice, server_name):
    refused(alice.send_raw("GET", DOWNLOAD.format(server_name, "abc")), 400, "M_INVALID_PARAM")


def test_other_servers_media_is_not_here(alice):
    refused(alice.send_raw("GET", DOWNLOAD.format("elsewhere.example", "abc")), 404, "M_NOT_FOUND")


def test_file_names_stay_in_their_header(alice):
    parts = upload(alice, b"x", "text/plain", filename='a"\r\nSet-Cookie: b=c; filename="d.html')
    for path in (DOWNLOAD.format(*parts), DOWNLOAD.format(*parts) + "/a%0d%0aSet-Cookie%3a%20b%3dc"):
        response = alice.send_raw("GET", path)
        assert response.status_code == 200
        assert "Set-Cookie" not in response.headers
        assert response.headers["X-Content-Type-Options"] == "nosniff"


def test_content_types_cannot_hide_another(alice):
    for claimed in ("image/png, text/html", "image/png;a=b,text/html", "text/html", "image/svg+xml", "nonsense"):
        parts = upload(alice, b"<script>alert(1)</script>", claimed)
        headers = alice.send_raw("GET", DOWNLOAD.format(*parts)).headers
        assert "text/html" not in headers["Content-Type"] or headers["Content-Disposition"] == "attachment"
        assert "," not in headers["Content-Type"]


def test_an_upload_that_breaks_off_is_no_upload(alice, base_url):
    address = urllib.parse.urlsplit(base_url)
    head = f"POST {UPLOAD} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {alice.token}\r\nContent-Length: 1000\r\n\r\n"
    with socket.create_connection((address.hostname, address.port)) as connection:
        connection.sendall(head.encode() + b"half")
        connection.shutdown(socket.SHUT_WR)
        answer = connection.recv(4096)
    assert b" 200 " not in answer.split(b"\r\n", 1)[0]


def test_an_upload_over_the_limit_without_a_length(alice, base_url):
    limit = alice.get("/_matrix/client/v1/media/config")["m.upload.size"]
    address = urllib.parse.urlsplit(base_url)
    with contextlib.closing(http.client.HTTPConnection(address.hostname, address.port, timeout=60)) as connection:
        connection.putrequest("POST", UPLOAD)
        connection.putheader("Authorization", f"Bearer {alice.token}")
        connection.putheader("Transfer-Encoding", "chunked")
        connection.endheaders()
        while limit > 0:
            piece = bytes(min(limit, 1 << 20))
            connection.send(b"%x\r\n%b\r\n" % (len(piece), piece))
            limit -= len(piece)
        # One byte too many and nothing behind it, not even the end: what is sent to a server that has closed takes its
        # answer away.
        connection.send(b"1\r\n\0\r\n")
        answer = connection.getresponse()
        assert (answer.status, json.load(answer)["errcode"]) == (413, "M_TOO_LARGE")


def test_parts_and_entity_tags(alice):
    data = bytes(range(256)) * 1000
    path = DOWNLOAD.format(*upload(alice, data, "video/mp4"))
    whole = alice.send_raw("GET", path)
    assert whole.content == data and whole.headers["Accept-Ranges"] == "bytes"
    part = alice.send_raw("GET", path, headers={"Range": "bytes=1000-1999"})
    assert (part.status_code, part.content) == (206, data[1000:2000])
    assert part.headers["Content-Range"] == f"bytes 1000-1999/{len(data)}"
    behind = alice.send_raw("GET", path, headers={"Range": f"bytes={len(data)}-"})
    assert (behind.status_code, behind.headers["Content-Range"]) == (416, f"bytes */{len(data)}")
    known = alice.send_raw("GET", path, headers={"If-None-Match": whole.headers["ETag"]})
    assert (known.status_code, known.content) == (304, b"")
    assert "immutable" in known.headers["Cache-Control"]


def test_a_download_waits_for_its_upload(alice, bob):
    uri = alice.post("/_matrix/media/v1/create")["content_uri"]
    parts = uri.removeprefix("mxc://").split("/")
    refused(bob.send_raw("GET", DOWNLOAD.format(*parts), params={"timeout_ms": 0}), 504, "M_NOT_YET_UPLOADED")
    answers = []
    waiting = threading.Thread(target=lambda: answers.append(bob.send_raw("GET", DOWNLOAD.format(*parts))))
    waiting.start()
    path = "/_matrix/media/v3/upload/{serverName}/{mediaId}"
    alice.put(path, *parts, data=b"at last", headers={"Content-Type": "text/plain"})
    waiting.join()
    assert (answers[0].status_code, answers[0].content) == (200, b"at last")


@pytest.mark.parametrize("version", ["r0", "v1", "v3"])
def test_every_prefix_uploads(alice, version):
    answer = alice.send_raw("POST", f"/_matrix/media/{version}/upload", data=b"x")
    assert answer.json()["content_uri"].startswith(f"mxc://{alice.server_name}/")


def test_old_paths_serve_until_they_are_frozen(tmp_path):
    folder = tmp_path / "data"
    with Server(folder, "--freeze-unauthenticated-media", "off") as server:
        alice = Client(server.base_url).register("alice")
        before = upload(alice, b"before", "text/plain")
        for version in ("r0", "v1", "v3"):
            response = Client(server.base_url).send_raw("GET", OLD_DOWNLOAD.format(version, *before))
            assert (response.status_code, response.content) == (200, b"before")
        port = server.port
    with Server(folder, "--freeze-unauthenticated-media", "on", port=port) as server:
        after = upload(alice, b"after", "text/plain")
        nobody = Client(server.base_url)
        assert nobody.send_raw("GET", OLD_DOWNLOAD.format("v3", *before)).content == b"before"
        refused(nobody.send_raw("GET", OLD_DOWNLOAD.format("v3", *after)), 404, "M_NOT_FOUND")
        old_thumbnail = THUMBNAIL.replace("client/v1/media", "media/v3").format(*after)
        refused(nobody.send_raw("GET", old_thumbnail, params={"width": 32, "height": 32}), 404, "M_NOT_FOUND")
        assert alice.send_raw("GET", DOWNLOAD.format(*after)).content == b"after"
