"""Photos without what they tell beside their pixels: no EXIF, GPS, maker's notes, XMP, IPTC, comments or thumbnails.

The compressed pixels are copied as they are, so nothing is lost. What stays is what the pixels need to be seen right:
orientation, ICC profile, Adobe's colour transform.
"""

from __future__ import annotations

import contextlib
import io
import re
import struct

from PIL import ExifTags, Image

from dermlab.data.decode import DecodeError

# A marker that ends the entropy-coded data of a scan: not a stuffed zero, a restart marker or a fill byte.
_END_OF_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_SOI, _EOI, _SOS, _APP0, _APP2, _APP14 = 0xD8, 0xD9, 0xDA, 0xE0, 0xE2, 0xEE
# Frames, tables and restart intervals (ITU-T T.81, table B.1); application data and comments are chosen one by one.
_JPEG_KEPT = frozenset(range(0xC0, 0xD0)) | frozenset(range(0xDA, 0xE0))
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Chunks that change how the pixels look (PNG, third edition, 11.2 and 11.3.2), and the pixels' size.
_PNG_KEPT = frozenset(
    [b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"sBIT", b"cICP", b"pHYs"]
)
_WEBP_KEPT = frozenset([b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ICCP"])
_WEBP_PIXELS = frozenset([b"VP8 ", b"VP8L"])
_FILLING = bytes(64)  # compressed pixels do not end so: a transfer that broke off was filled up to the announced length
_WEBP_HAS_XMP, _WEBP_HAS_EXIF, _WEBP_IS_ANIMATED = 0x04, 0x08, 0x02


class UnusualFileError(Exception):
    """A file whose structure this module does not follow; its pixels must be decoded and written anew."""


def strip_metadata(data: bytes, kind: str) -> bytes:
    """Return a JPEG, PNG or WebP file without metadata; its compressed pixels are the same bytes.

    Args:
        data: the file.
        kind: ``JPEG``, ``PNG`` or ``WebP``.

    Raises:
        DecodeError: the file is truncated, although a decoder may not notice: a copy would hide it for good.
        UnusualFileError: the structure is damaged or unusual (an animation).
    """
    strip = {"JPEG": _strip_jpeg, "PNG": _strip_png, "WebP": _strip_webp}[kind]
    try:
        return strip(data, _orientation(data, kind))
    except (IndexError, struct.error):
        raise UnusualFileError(f"a {kind} file that ends too early") from None


def _orientation(data: bytes, kind: str) -> int:
    """Return the EXIF orientation, 1 to 8; 1 (upright) where there is none or it is damaged."""
    with contextlib.suppress(Exception), Image.open(io.BytesIO(data), formats=[kind.upper()]) as image:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
        return value if value in range(1, 9) else 1
    return 1


def _exif(orientation: int) -> bytes:
    """Return the smallest EXIF block (TIFF 6.0, one directory, one entry) that holds an orientation."""
    return struct.pack(">2sHIHHHIHHI", b"MM", 42, 8, 1, ExifTags.Base.Orientation, 3, 1, orientation, 0, 0)


def _strip_jpeg(data: bytes, orientation: int) -> bytes:
    parts: list[bytes] = [b"\xff\xd8"]
    position = 2
    # The EXIF segment goes behind JFIF's, which must be the first.
    waiting = _segment(0xE1, b"Exif\0\0" + _exif(orientation)) if orientation != 1 else b""
    while True:
        if data[position] != 0xFF:
            raise UnusualFileError("bytes between a JPEG's segments")
        while data[position] == 0xFF:
            position += 1
        marker = data[position]
        position += 1
        if marker == _EOI:
            break
        if marker in (0x00, 0x01, _SOI) or 0xD0 <= marker <= 0xD7:
            raise UnusualFileError(f"marker {marker:#x} between a JPEG's segments")
        length = struct.unpack_from(">H", data, position)[0]
        body = data[position + 2 : position + length]
        if len(body) != length - 2:
            raise UnusualFileError("a JPEG segment that ends too early")
        position += length
        if marker == _APP0 and body.startswith(b"JFIF\0"):
            parts.append(_segment(marker, body[:12] + b"\0\0"))  # without its thumbnail
            continue
        if waiting:
            parts.append(waiting)
            waiting = b""
        if marker in _JPEG_KEPT or (marker == _APP2 and body.startswith(b"ICC_PROFILE\0")):
            parts.append(_segment(marker, body))
        elif marker == _APP14 and body.startswith(b"Adobe"):
            parts.append(_segment(marker, body[:12]))
        if marker == _SOS:
            end = _END_OF_SCAN.search(data, position)
            if end is None:  # zeros that fill up a truncated file decode as grey
                raise DecodeError("truncated JPEG (it has no end of image)")
            parts.append(data[position : end.start()])
            position = end.start()
    return b"".join([*parts, b"\xff\xd9"])  # whatever follows (a second picture, a film) stays behind


def _segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def _strip_png(data: bytes, orientation: int) -> bytes:
    from zlib import crc32

    parts = [_PNG_SIGNATURE]
    position = len(_PNG_SIGNATURE)
    while True:
        length, name = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if end > len(data):
            raise UnusualFileError("a PNG chunk that ends too early")
        if name == b"IDAT" and crc32(data[position + 4 : end - 4]) != struct.unpack_from(">I", data, end - 4)[0]:
            raise DecodeError("damaged PNG (the checksum of its pixels is wrong)")
        if name in _PNG_KEPT:
            parts.append(data[position:end])
        if name == b"IHDR" and orientation != 1:
            body = b"eXIf" + _exif(orientation)
            parts.append(struct.pack(">I", len(body) - 4) + body + struct.pack(">I", crc32(body)))
        position = end
        if name == b"IEND":
            return b"".join(parts)


def _strip_webp(data: bytes, orientation: int) -> bytes:
    parts: list[bytes] = []
    position = 12
    while position + 8 <= len(data):
        name, length = struct.unpack_from("<4sI", data, position)
        body = data[position + 8 : position + 8 + length]
        if len(body) != length:
            raise UnusualFileError("a WebP chunk that ends too early")
        if name == b"VP8X":
            flags = body[0]
            if flags & _WEBP_IS_ANIMATED:
                raise UnusualFileError("an animated WebP")
            flags &= ~(_WEBP_HAS_EXIF | _WEBP_HAS_XMP)
            body = bytes([flags | (_WEBP_HAS_EXIF if orientation != 1 else 0)]) + body[1:]
        if name in _WEBP_PIXELS and body.endswith(_FILLING):
            raise DecodeError("truncated WebP (its pixels end in zero bytes)")
        if name in _WEBP_KEPT:
            parts.append(_chunk(name, body))
        position += 8 + length + length % 2
    if orientation != 1:
        parts.append(_chunk(b"EXIF", _exif(orientation)))
    body = b"WEBP" + b"".join(parts)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _chunk(name: bytes, body: bytes) -> bytes:
    return name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)
