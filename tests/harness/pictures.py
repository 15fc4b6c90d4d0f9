"""Pictures for tests."""

import struct
import zlib


def _chunk(kind, content):
    body = kind + content
    return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))


def png(side):
    """A square of one color."""
    rows = b"".join(b"\0" + b"\x33\x66\x99" * side for _ in range(side))
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    parts = [_chunk(b"IHDR", header), _chunk(b"IDAT", zlib.compress(rows)), _chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def png_claiming(width, height):
    """A picture with next to nothing in it, whose header says otherwise."""
    header = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    parts = [_chunk(b"IHDR", header), _chunk(b"IDAT", zlib.compress(b"\0")), _chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def size_of(content):
    """Width and height of a PNG, or of a JPEG as most are."""
    if content.startswith(b"\x89PNG"):
        return struct.unpack(">II", content[16:24])
    at = content.index(b"\xff\xc0") + 5
    height, width = struct.unpack(">HH", content[at : at + 4])
    return width, height
