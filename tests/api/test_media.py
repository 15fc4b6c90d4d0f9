"""The content repository: upload, download, thumbnails (spec: Content Repository)."""

import hashlib
import http.client
import json
import pathlib
import struct
import urllib.parse
import zlib

import pytest

from harness.client import Client
from harness.server import Server

DOWNLOAD = "/_matrix/client/v1/media/download/{serverName}/{mediaId}"
THUMBNAIL = "/_matrix/client/v1/media/thumbnail/{serverName}/{mediaId}"
UPLOAD = "/_matrix/media/v3/upload"


def png(width, height):
    """A picture of one colour."""

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    rows = b"".join(b"\0" + b"\x80\x50\x20" * width for _ in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def png_size(data):
    return struct.unpack(">II", data[16:24])


def upload(client, data, content_type, **query):
    answer = client.post(UPLOAD, data=data, headers={"Content-Type": content_type}, query=query)
    return answer["content_uri"].removeprefix("mxc://").split("/")


def fetch(client, template, parts, **query):
    path = template.replace("{serverName}", parts[0]).replace("{mediaId}", parts[1])
    return client.send_raw("GET", path, params=query)


def test_upload_and_download(alice, bob):
    data = bytes(range(256)) * 10
    parts = upload(alice, data, "application/octet-stream")
    assert parts[0] == alice.server_name
    response = fetch(bob, DOWNLOAD, parts)
    assert (response.status_code, response.content) == (200, data)
    assert response.headers["Content-Type"] == "application/octet-stream"
    assert response.headers["Content-Disposition"].startswith("attachment")
    assert "sandbox" in response.headers["Content-Security-Policy"]
    assert response.headers["Cross-Origin-Resource-Policy"] == "cross-origin"


def test_file_names(alice, bob):
    parts = upload(alice, b"text", "text/plain", filename="Möhre.txt")
    assert "M%C3%B6hre.txt" in fetch(bob, DOWNLOAD, parts).headers["Content-Disposition"]
    response = fetch(bob, DOWNLOAD + "/other.txt", parts)
    assert "other.txt" in response.headers["Content-Disposition"]


@pytest.mark.parametrize("content_type, disposition", [("image/png", "inline"), ("text/html", "attachment")])
def test_only_harmless_types_are_shown_inline(alice, content_type, disposition):
    parts = upload(alice, png(2, 2), content_type)
    assert fetch(alice, DOWNLOAD, parts).headers["Content-Disposition"].startswith(disposition)


def test_the_old_paths_do_not_show_new_media(alice):
    parts = upload(alice, b"secret", "text/plain")
    response = fetch(alice, "/_matrix/media/v3/download/{serverName}/{mediaId}", parts)
    assert response.status_code == 404
    assert response.json()["errcode"] == "M_NOT_FOUND"


@pytest.mark.ours("Synapse says nothing but that it is not there")
@pytest.mark.parametrize("kind", ["download", "thumbnail"])
def test_who_asks_under_the_old_paths_is_told_of_the_new(alice, kind):
    parts = upload(alice, png(2, 2), "image/png")
    answer = fetch(alice, f"/_matrix/media/v3/{kind}/{{serverName}}/{{mediaId}}", parts, width=1, height=1)
    assert f"/_matrix/client/v1/media/{kind}" in answer.json()["error"]


def test_what_was_uploaded_before_the_freeze_stays_under_the_old_paths(tmp_path):
    with Server(tmp_path / "data", "--freeze-unauthenticated-media", "off") as server:
        nobody = Client(server.base_url)
        picture = png(40, 20)
        parts = upload(nobody.register("old"), picture, "image/png", filename="carrot.png")
        assert fetch(nobody, "/_matrix/media/v3/download/{serverName}/{mediaId}", parts).content == picture
        named = fetch(nobody, "/_matrix/media/v3/download/{serverName}/{mediaId}/beet.png", parts)
        assert named.content == picture and "beet.png" in named.headers["Content-Disposition"]
        small = fetch(nobody, "/_matrix/media/v3/thumbnail/{serverName}/{mediaId}", parts, width=20, height=10)
        assert small.status_code == 200 and small.headers["Content-Type"].startswith("image/")


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("damage", [pathlib.Path.unlink, cut_short])
def test_a_file_that_is_lost_is_not_there_and_the_operator_is_told(tmp_path, damage):
    with Server(tmp_path / "data") as server:
        alice, picture = Client(server.base_url).register("alice"), png(40, 20)
        parts, name = upload(alice, picture, "image/png"), hashlib.sha256(picture).hexdigest()
        path = server.data_dir / "media" / "content" / name[:2] / name
        damage(path)
        asked = [fetch(alice, DOWNLOAD, parts), fetch(alice, THUMBNAIL, parts, width=10, height=10)]
        part = DOWNLOAD.replace("{serverName}", parts[0]).replace("{mediaId}", parts[1])
        asked.append(alice.send_raw("GET", part, headers={"Range": "bytes=0-9"}))
        for answer in asked:
            assert (answer.status_code, answer.json()["errcode"]) == (404, "M_NOT_FOUND")
        assert any("WARN" in line and name in line for line in server.log_path.read_text().splitlines())
        path.write_bytes(picture)
        assert fetch(alice, DOWNLOAD, parts).content == picture


def test_downloads_want_a_token(alice, nobody):
    parts = upload(alice, b"secret", "text/plain")
    response = fetch(nobody, DOWNLOAD, parts)
    assert response.status_code == 401
    assert response.json()["errcode"] == "M_MISSING_TOKEN"
    nobody.post(UPLOAD, data=b"x", headers={"Content-Type": "text/plain"}, status=401, errcode="M_MISSING_TOKEN")


def test_unknown_media(alice):
    old = "/_matrix/media/v3/download/{serverName}/{mediaId}/name.txt"
    for template in (DOWNLOAD, DOWNLOAD + "/name.txt", THUMBNAIL, old):
        response = fetch(alice, template, (alice.server_name, "nothing"), width=32, height=32)
        assert response.status_code == 404
        assert response.json()["errcode"] == "M_NOT_FOUND"


@pytest.mark.parametrize("method, width, height", [("scale", 100, 50), ("crop", 96, 96)])
def test_thumbnails(alice, method, width, height):
    parts = upload(alice, png(400, 200), "image/png")
    response = fetch(alice, THUMBNAIL, parts, width=width, height=height, method=method)
    assert response.status_code == 200
    assert response.headers["Content-Type"] in ("image/png", "image/jpeg", "image/webp")
    if response.headers["Content-Type"] == "image/png":
        shown = png_size(response.content)
        assert shown[0] >= width or shown[1] >= height
        assert shown[0] / shown[1] == (2 if method == "scale" else 1)


def test_a_thumbnail_is_never_larger_than_its_picture(alice):
    parts = upload(alice, png(40, 20), "image/png")
    response = fetch(alice, THUMBNAIL, parts, width=800, height=600, method="scale")
    assert response.status_code == 200
    assert png_size(response.content) == (40, 20)


def test_no_thumbnail_of_what_is_no_picture(alice):
    parts = upload(alice, b"not a picture", "image/png")
    assert fetch(alice, THUMBNAIL, parts, width=32, height=32).status_code in (400, 404)


@pytest.mark.parametrize("query", [{}, {"width": "x", "height": "y"}, {"width": -1, "height": 10}])
def test_malformed_thumbnails(alice, query):
    parts = upload(alice, png(4, 4), "image/png")
    response = fetch(alice, THUMBNAIL, parts, **query)
    assert response.status_code == 400
    assert response.json()["errcode"]


def test_config(alice):
    config = alice.get("/_matrix/client/v1/media/config")
    assert config["m.upload.size"] > 0
    assert alice.get("/_matrix/media/v3/config") == config


@pytest.mark.ours("Synapse waits for the whole body")
def test_an_upload_over_the_limit(alice):
    limit = alice.get("/_matrix/client/v1/media/config")["m.upload.size"]
    address = urllib.parse.urlsplit(alice.base_url)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=10)
    connection.putrequest("POST", UPLOAD)
    connection.putheader("Authorization", f"Bearer {alice.token}")
    connection.putheader("Content-Length", str(limit + 1))
    connection.endheaders()
    # Nothing of the body is sent: the length alone is enough to refuse it.
    response = connection.getresponse()
    assert response.status == 413
    assert json.load(response)["errcode"] == "M_TOO_LARGE"


def test_upload_in_two_steps(alice, bob):
    created = alice.post("/_matrix/media/v1/create")
    parts = created["content_uri"].removeprefix("mxc://").split("/")
    path = "/_matrix/media/v3/upload/{serverName}/{mediaId}"
    headers = {"Content-Type": "text/plain"}
    bob.put(path, *parts, data=b"not mine", headers=headers, status=403, errcode="M_FORBIDDEN")
    alice.put(path, *parts, data=b"later", headers=headers)
    alice.put(path, *parts, data=b"again", headers=headers, status=409, errcode="M_CANNOT_OVERWRITE_MEDIA")
    assert fetch(bob, DOWNLOAD, parts).content == b"later"
