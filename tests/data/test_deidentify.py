"""Metadata is gone, every pixel is the same, and what the pixels need to be seen right is still there."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms, PngImagePlugin

from dermlab.data.decode import DecodeError, decode
from dermlab.data.deidentify import UnusualFileError, strip_metadata

SECRETS = [b"Erika Mustermann", b"GPSsecret", b"Clinic Camera 9", b"2031:12:24", b"\x01\x02secretnote"]


def picture(mode: str = "RGB", size: tuple[int, int] = (40, 24)) -> Image.Image:
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (6, 10, 4), dtype=np.uint8), "RGBA").resize(size)
    return small.convert(mode)


def exif(orientation: int = 6) -> Image.Exif:
    tags = Image.Exif()
    tags[ExifTags.Base.Orientation] = orientation
    tags[ExifTags.Base.Artist] = "Erika Mustermann"
    tags[ExifTags.Base.Model] = "Clinic Camera 9"
    tags[ExifTags.Base.DateTime] = "2031:12:24 10:00:00"
    gps = tags.get_ifd(ExifTags.IFD.GPSInfo)
    gps[ExifTags.GPS.GPSLatitudeRef] = "N"
    gps[ExifTags.GPS.GPSLatitude] = (48.0, 12.0, 30.0)
    gps[ExifTags.GPS.GPSAreaInformation] = b"GPSsecret"
    return tags


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def assert_clean(before: bytes, after: bytes, kind: str, orientation: int) -> None:
    assert all(secret not in after for secret in SECRETS)
    np.testing.assert_array_equal(decode(after), decode(before))
    with Image.open(io.BytesIO(after)) as image:
        image.load()
        assert image.format == kind.upper()
        tags = dict(image.getexif())
        assert tags == ({ExifTags.Base.Orientation: orientation} if orientation != 1 else {})
        assert not image.getexif().get_ifd(ExifTags.IFD.GPSInfo)
        assert "comment" not in image.info
        assert "xmp" not in image.info
        assert not getattr(image, "text", None)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WebP"])
def test_exif_and_gps_are_gone_and_the_photo_stays_upright(kind, orientation):
    options = {"xmp": b"<x:xmpmeta xmlns:x='adobe:ns:meta/'>Erika Mustermann</x:xmpmeta>"} if kind != "PNG" else {}
    before = saved(picture(), kind, exif=exif(orientation), **options)
    assert b"Erika Mustermann" in before
    after = strip_metadata(before, kind)
    assert_clean(before, after, kind, orientation)
    assert strip_metadata(after, kind) == after
    upright = (24, 40) if orientation <= 4 else (40, 24)
    assert decode(after).shape[:2] == upright


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_scans_are_copied_byte_for_byte(mode, progressive):
    before = saved(
        picture(mode), "JPEG", progressive=progressive, comment=b"Erika Mustermann", exif=exif(1), restart_marker_rows=1
    )
    after = strip_metadata(before, "JPEG")
    assert_clean(before, after, "JPEG", 1)
    start = before.index(b"\xff\xda")
    assert after.endswith(before[start:])


@pytest.mark.filterwarnings("ignore:Image appears to be a malformed MPO")
def test_iptc_second_pictures_and_thumbnails_in_a_jpeg_are_gone():
    plain = saved(picture(), "JPEG", dpi=(72, 72))
    jfif_end = 2 + 2 + struct.unpack(">H", plain[4:6])[0]
    thumbnail = b"JFIF\0\x01\x02\0\0\x01\0\x01" + b"\x02\x01" + b"abcdef"  # 2 × 1 pixels of thumbnail
    segments = [
        (0xE0, thumbnail),
        (0xE0, b"JFXX\0\x10Erika Mustermann"),
        (0xED, b"Photoshop 3.0\x008BIM\x04\x04Erika Mustermann"),
        (0xE2, b"MPF\0GPSsecret"),
        (0xEC, b"Ducky\x01\x02secretnote"),
        (0xFE, b"2031:12:24"),
    ]
    packed = b"".join(struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body for marker, body in segments)
    before = plain[:2] + packed + plain[jfif_end:] + plain + b"Erika Mustermann"
    after = strip_metadata(before, "JPEG")
    assert_clean(before, after, "JPEG", 1)
    assert b"abcdef" not in after
    assert after.count(b"\xff\xd8\xff") == 1
    assert len(after) <= len(plain)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WebP"])
def test_the_colour_profile_stays(kind):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    before = saved(picture(), kind, icc_profile=profile, exif=exif(3))
    after = strip_metadata(before, kind)
    assert_clean(before, after, kind, 3)
    with Image.open(io.BytesIO(after)) as image:
        assert image.info["icc_profile"] == profile


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_text_and_time_in_a_png_are_gone_in_every_mode(mode):
    text = PngImagePlugin.PngInfo()
    text.add_text("Author", "Erika Mustermann")
    text.add_itxt("Comment", "GPSsecret", zip=True)
    text.add(b"tIME", struct.pack(">HBBBBB", 2031, 12, 24, 10, 0, 0))
    text.add(b"prVt", b"\x01\x02secretnote")
    image = Image.fromarray(np.arange(960, dtype=np.uint16).reshape(24, 40) * 60) if mode == "I;16" else picture(mode)
    before = saved(image, "PNG", pnginfo=text, gamma=0.45)
    after = strip_metadata(before + b"Erika Mustermann", "PNG")
    assert_clean(before, after, "PNG", 1)
    assert b"tIME" not in after
    with Image.open(io.BytesIO(after)) as stripped, Image.open(io.BytesIO(before)) as original:
        assert stripped.mode == original.mode
        np.testing.assert_array_equal(np.asarray(stripped), np.asarray(original))


@pytest.mark.parametrize("options", [{"lossless": True}, {"quality": 80}])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_webp_of_every_kind(options, mode):
    for orientation in (1, 8):
        before = saved(picture(mode), "WebP", exif=exif(orientation), **options)
        assert_clean(before, strip_metadata(before, "WebP"), "WebP", orientation)


def test_what_cannot_be_followed_is_said_not_guessed():
    jpeg = saved(picture(), "JPEG", exif=exif())
    with pytest.raises(UnusualFileError):
        strip_metadata(jpeg[:40], "JPEG")
    with pytest.raises(UnusualFileError):
        strip_metadata(jpeg[:2] + b"junk" + jpeg[2:], "JPEG")
    with pytest.raises(UnusualFileError):
        strip_metadata(saved(picture(), "PNG")[:60], "PNG")
    frames = [picture(), picture().rotate(90)]
    with pytest.raises(UnusualFileError, match="animated"):
        strip_metadata(saved(frames[0], "WebP", save_all=True, append_images=frames[1:]), "WebP")


@pytest.mark.filterwarnings("ignore")
def test_random_damage_raises_nothing_else():
    rng = np.random.default_rng(0)
    for kind in ("JPEG", "PNG", "WebP"):
        data = saved(picture(), kind, exif=exif())
        for _ in range(200):
            broken = bytearray(data)
            for position in rng.integers(0, len(data), 3):
                broken[position] = rng.integers(0, 256)
            try:
                strip_metadata(bytes(broken[: rng.integers(8, len(data) + 1)]), kind)
            except (UnusualFileError, DecodeError):
                continue
