"""Decoding: known colours come back from every format, and nothing hostile gets further than a reason."""

from __future__ import annotations

import base64
import io
import os
import socket
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms, ImageOps

from dermlab.core.fingerprint import hash_file
from dermlab.core.folders import cache_root
from dermlab.data import decode as module
from dermlab.data.decode import DecodeError, content_hash, content_hashes, decode, decode_file

COLOURS = np.array([[(220, 40, 40), (40, 180, 60)], [(50, 60, 200), (230, 200, 170)]], np.uint8)

# 64 × 48 in the four colours above, stored with the orientation "turn by 90°"; made with libheif, 814 bytes.
HEIC = base64.b64decode(
    "AAAAHGZ0eXBoZWl4AAAAAG1pZjFoZWl4bWlhZgAAAcltZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAAADRpbG9j"
    "AAAAAERAAAIAAQAAAAAB7QABAAAAAAAAAR0AAgAAAAADCgABAAAAAAAAACQAAAA4aWluZgAAAAAAAgAAABVpbmZlAgAAAAABAABodmMxAAAA"
    "ABVpbmZlAgAAAQACAABFeGlmAAAAAA5waXRtAAAAAAABAAABCGlwcnAAAADnaXBjbwAAAHdodmNDAQQIAAAAnjgAAAAAHvAA/P/4+AAADwNg"
    "AAEAF0ABDAH//wQIAAADAJ44AAADAAAeugJAYQABACpCAQEECAAAAwCeOAAAAwAAHpAEECCy3VyU1zcBDQYEAAADAGQAAAMABCBiAAEACEQB"
    "wXMYMAiQAAAAE2NvbHJuY2x4AAEADQAGgAAAABRpc3BlAAAAAAAAAEAAAABAAAAAKGNsYXAAAABAAAAAAQAAADAAAAABAAAAAAAAAAL////w"
    "AAAAAgAAABBwaXhpAAAAAAMICAgAAAAJaXJvdAMAAAAZaXBtYQAAAAAAAAABAAEGgQIDBYSGAAAAGmlyZWYAAAAAAAAADmNkc2MAAgABAAEA"
    "AAFJbWRhdAAAARkoAa8GOFr3tt+xe///1lH6H9PX6J+zqWnVez3K+/Hsj//DUj+J89Cbe4JMdMcO7DMOYXh+PDyW9/gbjngoXiUAfZkeXCji"
    "suXPzOQNZmsiW5igT/p1/hk/agxBJJ5Pz+cXxuX4DBg71fg/9UAf/yPTK3GDjprfwa0ol2pdeUocX/Ar8vsvR/sVvthiPjLtR/mRLFuVb5pY"
    "oPyfste/sQYXzGKDVZMrT0tXEhVfEoP4gOYc9Oi//WHUBrgxAg4Y5emACmEPsNfwOun+2rpAtr9EYLgqX2zbsB3q5bbXm9UOo1wlFjMyaMU6"
    "72dxh/d+jxymhXh8/JUpAd0QblYCwhZCv/c/O6+GZF2JP6JO+Pidw+4jPn1fWhCJ4AAAAAZFeGlmAABNTQAqAAAACAABARIAAwAAAAEABgAA"
    "AAAAAA=="
)


def photo(height: int = 48, width: int = 64) -> np.ndarray:
    """Four quadrants in known colours."""
    return COLOURS[(np.arange(height) * 2 // height)[:, None], (np.arange(width) * 2 // width)[None, :]]


def encode(array: np.ndarray | Image.Image, kind: str, **options: object) -> bytes:
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def centres(image: np.ndarray) -> np.ndarray:
    """The colours in the middle of the four quadrants."""
    h, w = image.shape[:2]
    return image[[h // 4, 3 * h // 4]][:, [w // 4, 3 * w // 4]].astype(int)


def reason(data: bytes, **options: int) -> str:
    with pytest.raises(DecodeError) as caught:
        decode(data, **options)
    assert "\n" not in caught.value.reason
    assert len(caught.value.reason) < 160
    return caught.value.reason


@pytest.mark.parametrize(
    ("kind", "options", "tolerance"),
    [
        ("PNG", {}, 0),
        ("BMP", {}, 0),
        ("TIFF", {}, 0),
        ("TIFF", {"compression": "tiff_lzw"}, 0),
        ("TIFF", {"compression": "tiff_adobe_deflate"}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("WEBP", {"quality": 95}, 4),
        ("JPEG", {"quality": 95, "subsampling": 0}, 3),
        ("JPEG", {"quality": 95, "progressive": True}, 3),
    ],
)
def test_known_colours_come_back_from_every_format(kind, options, tolerance):
    image = decode(encode(photo(), kind, **options))
    assert image.shape == (48, 64, 3)
    assert image.dtype == np.uint8
    assert np.abs(centres(image) - COLOURS).max() <= tolerance


def test_heic_comes_back_upright():
    image = decode(HEIC)
    assert image.shape == (64, 48, 3)
    assert np.abs(centres(image) - np.rot90(COLOURS, -1)).max() <= 6


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(kind, orientation):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    data = encode(photo(), kind, exif=exif.tobytes(), **({"quality": 95} if kind in {"JPEG", "WEBP"} else {}))
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    np.testing.assert_array_equal(decode(data), np.asarray(expected))
    upside = {1: photo(), 3: photo()[::-1, ::-1], 6: np.rot90(photo(), -1), 8: np.rot90(photo())}
    if orientation in upside:
        assert np.abs(decode(data).astype(int) - upside[orientation])[::7, ::7].mean() < 6


def test_broken_exif_does_not_lose_the_photo():
    data = encode(photo(), "JPEG", quality=95, exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff" + b"\xff" * 40)
    assert decode(data).shape == (48, 64, 3)


def test_exif_and_gps_stay_behind():
    exif = Image.Exif()
    exif[ExifTags.Base.Artist] = "A Patient"
    exif.get_ifd(ExifTags.IFD.GPSInfo)[1] = "N"
    image = module.decode_image(encode(photo(), "JPEG", exif=exif.tobytes()))
    assert image.info == {}
    assert type(decode(encode(photo(), "JPEG", exif=exif.tobytes()))) is np.ndarray


def test_an_icc_profile_is_brought_to_srgb():
    swapped = _swapped_profile()
    array = np.full((16, 16, 3), (200, 60, 30), np.uint8)
    image = decode(encode(array, "PNG", icc_profile=swapped))
    expected = ImageCms.profileToProfile(
        Image.fromarray(array), ImageCms.ImageCmsProfile(io.BytesIO(swapped)), ImageCms.createProfile("sRGB")
    )
    np.testing.assert_array_equal(image, np.asarray(expected))
    assert image[0, 0, 1] > image[0, 0, 0]  # the profile says that the first channel is green


def _swapped_profile() -> bytes:
    """Return an sRGB profile whose red and green primaries have changed places, under another description."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    at = {bytes(profile[i : i + 4]): i for i in range(132, 132 + 12 * struct.unpack(">I", profile[128:132])[0], 12)}
    red, green = at[b"rXYZ"], at[b"gXYZ"]
    profile[red : red + 4], profile[green : green + 4] = profile[green : green + 4], profile[red : red + 4]
    where = struct.unpack(">I", profile[at[b"desc"] + 4 : at[b"desc"] + 8])[0]
    profile[where : where + 90] = profile[where : where + 90].replace(b"s\x00R\x00G\x00B", b"x\x00R\x00G\x00B")
    return bytes(profile)


def test_an_srgb_profile_changes_no_bit_and_a_broken_one_is_ignored():
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    noise = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    for profile in (srgb, b"no profile at all", srgb[:200], _swapped_profile()[:300]):
        np.testing.assert_array_equal(decode(encode(noise, "PNG", icc_profile=profile)), noise)
    grey = encode(noise[..., 0], "PNG", icc_profile=_swapped_profile())  # an RGB profile on a grey image
    np.testing.assert_array_equal(decode(grey)[..., 1], noise[..., 0])


def test_grey_palette_and_bilevel_images_become_rgb():
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    np.testing.assert_array_equal(decode(encode(ramp, "PNG")), np.repeat(ramp[..., None], 3, 2))
    palette = Image.fromarray(photo()).quantize(4)
    assert np.abs(centres(decode(encode(palette, "PNG"))) - COLOURS).max() <= 1
    bilevel = decode(encode(Image.fromarray(ramp > 99), "PNG"))
    np.testing.assert_array_equal(bilevel[..., 0], np.where(ramp > 99, 255, 0))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_to_eight(kind):
    deep = np.linspace(0, 65_535, 64 * 64).reshape(64, 64).astype(np.uint16)
    grey = decode(encode(deep, kind))
    np.testing.assert_allclose(grey[..., 0], deep / 257, atol=0.51)
    colour = np.stack([deep, deep[::-1], deep.T], 2)
    ok, data = cv2.imencode("." + kind.lower(), colour[..., ::-1])
    assert ok
    np.testing.assert_allclose(decode(data.tobytes()), colour / 257, atol=1.01)


def test_floating_point_and_32_bit_tiffs_are_scaled_where_their_white_is_known():
    unit = np.linspace(0, 1, 100, dtype=np.float32).reshape(10, 10)
    np.testing.assert_array_equal(decode(encode(unit, "TIFF"))[..., 0], np.rint(unit * 255))
    assert "white is unknown" in reason(encode(unit * 1000, "TIFF"))
    assert "white is unknown" in reason(encode(np.full((4, 4), 1 << 20, np.int32), "TIFF"))


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_transparency_lies_on_white(kind):
    rgba = np.dstack([photo(), np.full((48, 64), 255, np.uint8)])
    rgba[:24, :, 3] = 0
    rgba[24:, :, 3] = 128
    image = decode(encode(rgba, kind, **({"lossless": True, "exact": True} if kind == "WEBP" else {})))
    assert (image[:24] == 255).all()
    expected = photo()[24:] * (128 / 255) + 255 * (127 / 255)
    np.testing.assert_allclose(image[24:], expected, atol=1)


def test_grey_with_alpha_and_a_transparent_palette_lie_on_white():
    grey = Image.merge("LA", [Image.new("L", (8, 8), 0), Image.new("L", (8, 8), 0)])
    assert (decode(encode(grey, "PNG")) == 255).all()
    palette = Image.new("P", (8, 8), 0)
    palette.putpalette([10, 20, 30] * 256)
    assert (decode(encode(palette, "PNG", transparency=0)) == 255).all()
    assert (decode(encode(palette, "PNG"))[0, 0] == (10, 20, 30)).all()


def test_cmyk_is_read_the_way_adobe_writes_it():
    cmyk = Image.fromarray(photo()).convert("CMYK")
    jpeg = encode(cmyk, "JPEG", quality=98, subsampling=0)
    assert b"Adobe" in jpeg
    assert np.abs(centres(decode(jpeg)) - COLOURS).max() <= 6
    assert np.abs(centres(decode(encode(cmyk, "TIFF"))) - COLOURS).max() <= 2
    opencv = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert np.abs(decode(jpeg).astype(int) - opencv).mean() < 2


def test_the_first_frame_of_several_is_taken():
    frames = [Image.new("RGB", (9, 7), colour) for colour in [(250, 0, 0), (0, 250, 0), (0, 0, 250)]]
    for kind, options in (("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})):
        data = encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        np.testing.assert_array_equal(decode(data), np.full((7, 9, 3), (250, 0, 0)))


def test_the_content_tells_the_type_and_not_the_name(tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(encode(photo(), "PNG"))
    np.testing.assert_array_equal(decode_file(path), photo())
    (tmp_path / "no_extension").write_bytes(encode(photo(), "BMP"))
    np.testing.assert_array_equal(decode_file(tmp_path / "no_extension"), photo())


# -------------------------------------------------------------------- DICOM


def dicom(array: np.ndarray, interpretation: str, bits: int | None = None, **tags: object) -> bytes:
    """Return a VL Photographic Image holding ``array`` uncompressed, or encoded by the transfer syntax in ``tags``."""
    import pydicom
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.77.1.4"
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    meta.TransferSyntaxUID = tags.pop("syntax", ExplicitVRLittleEndian)
    buffer = io.BytesIO()
    dataset = FileDataset(buffer, {}, file_meta=meta, preamble=b"\x00" * 128)
    dataset.PatientName = "Secret^Name"
    frames = int(tags.get("NumberOfFrames", 1))
    shape = array.shape[1:] if frames > 1 else array.shape
    dataset.Rows, dataset.Columns = shape[:2]
    dataset.SamplesPerPixel = 3 if len(shape) == 3 else 1
    dataset.PhotometricInterpretation = interpretation
    dataset.BitsAllocated = array.dtype.itemsize * 8
    dataset.BitsStored = bits or dataset.BitsAllocated
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(array.dtype.kind == "i")
    if dataset.SamplesPerPixel == 3:
        dataset.PlanarConfiguration = 0
    data = tags.pop("data", None)
    for name, value in tags.items():
        setattr(dataset, name, value)
    dataset.PixelData = array.tobytes() if data is None else data
    if data is not None:
        dataset["PixelData"].VR = "OB"
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def test_dicom_rgb_and_ybr():
    np.testing.assert_array_equal(decode(dicom(photo(), "RGB")), photo())
    ybr = np.asarray(Image.fromarray(photo()).convert("YCbCr"))
    assert np.abs(decode(dicom(ybr, "YBR_FULL")).astype(int) - photo()).max() <= 2


def test_dicom_frames_sixteen_bits_and_profiles():
    frames = np.stack([photo(), 255 - photo()])
    np.testing.assert_array_equal(decode(dicom(frames, "RGB", NumberOfFrames=2)), photo())
    deep = (photo().astype(np.uint16) << 4) + 8
    assert np.abs(decode(dicom(deep, "RGB", bits=12)).astype(int) - photo()).max() <= 1
    swapped = decode(dicom(photo(), "RGB", ICCProfile=_swapped_profile()))
    assert swapped[0, 0, 1] > swapped[0, 0, 0]


def test_dicom_palette():
    def table(channel: int) -> bytes:
        return np.concatenate([COLOURS.reshape(4, 3)[:, channel].astype(np.uint16) * 257]).tobytes()

    tags: dict[str, object] = {}
    for channel, name in enumerate(["Red", "Green", "Blue"]):
        tags[f"{name}PaletteColorLookupTableDescriptor"] = [4, 0, 16]
        tags[f"{name}PaletteColorLookupTableData"] = table(channel)
    indices = np.arange(4, dtype=np.uint8).reshape(2, 2).repeat(8, 0).repeat(8, 1)
    np.testing.assert_array_equal(centres(decode(dicom(indices, "PALETTE COLOR", **tags))), COLOURS)


def test_dicom_grey_is_windowed_and_monochrome1_is_turned_round():
    stored = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    whole = decode(dicom(stored, "MONOCHROME2", bits=12))[..., 0]
    np.testing.assert_allclose(whole, stored / 4095 * 255, atol=0.51)
    window = decode(dicom(stored, "MONOCHROME2", bits=12, WindowCenter=1000, WindowWidth=400))[..., 0]
    # PS3.3 C.11.2.1.2.1, linear: ((x - (c - 0.5)) / (w - 1) + 0.5) over the output range
    expected = np.clip(((stored.astype(float) - 999.5) / 399 + 0.5) * 255, 0, 255)
    np.testing.assert_allclose(window, expected, atol=0.51)
    turned = decode(dicom(stored, "MONOCHROME1", bits=12, WindowCenter=1000, WindowWidth=400))[..., 0]
    np.testing.assert_array_equal(turned, 255 - window)
    rescaled = dicom(
        stored, "MONOCHROME2", bits=12, RescaleSlope=2, RescaleIntercept=-1000, WindowCenter=1000, WindowWidth=800
    )
    np.testing.assert_allclose(
        decode(rescaled)[..., 0],
        np.clip(((stored * 2.0 - 1000 - 999.5) / 799 + 0.5) * 255, 0, 255),
        atol=0.51,
    )
    signed = (stored.astype(np.int16) - 2048).astype(np.int16)
    np.testing.assert_allclose(decode(dicom(signed, "MONOCHROME2", bits=12))[..., 0], whole, atol=1)


def test_dicom_compressed_by_what_is_installed_and_named_where_it_is_not():
    from pydicom.encaps import encapsulate
    from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, JPEGLSLossless

    jpeg = encapsulate([encode(photo(), "JPEG", quality=95, subsampling=0)])
    image = decode(dicom(photo(), "YBR_FULL", syntax=JPEGBaseline8Bit, data=jpeg))
    assert np.abs(centres(image) - COLOURS).max() <= 4
    j2k = encapsulate([encode(photo(), "JPEG2000", irreversible=False, mct=1, no_jp2=True)])
    np.testing.assert_array_equal(decode(dicom(photo(), "YBR_RCT", syntax=JPEG2000Lossless, data=j2k)), photo())
    from pydicom.pixels import get_decoder

    if not get_decoder(JPEGLSLossless).is_available:
        with pytest.raises(DecodeError, match=r"JPEG-LS.*needs one of the packages") as caught:
            decode(dicom(photo(), "RGB", syntax=JPEGLSLossless, data=jpeg))
        assert not caught.value.lasting


def test_dicom_that_is_damaged_says_so_and_names_no_patient():
    good = dicom(photo(), "RGB")
    for data in (good[:400], good[:-5000], good[:132] + os.urandom(300), good[:140]):
        assert "Secret" not in reason(data)
    assert "pixels" in reason(dicom(photo(), "RGB", Rows=60_000, Columns=60_000))


# -------------------------------------------------------------------- hostile files


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"\x00" * 5000, "zero bytes"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "web page"),
        (b"\n\n  <HTML><head>", "web page"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        (b"%PDF-1.7 ....", "PDF"),
        (b"GIF89a\x01\x00\x01\x00", "GIF"),
        (b"PK\x03\x04" + b"x" * 50, "ZIP"),
        (b"\x00\x00\x00\x18ftypmp42" + b"\x00" * 40, "video"),
        (b"hello, this is no image", "not an image"),
        (b"MZ\x90\x00" + b"\x00" * 200, "not an image"),
    ],
)
def test_what_is_no_image_is_named(data, words):
    assert words in reason(data)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP"])
@pytest.mark.parametrize("kept", [0.02, 0.5, 0.9])
def test_a_truncated_file_is_refused(kind, kept):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encode(noise, kind)
    reason(data[: max(12, int(len(data) * kept))])


def test_a_truncated_heic_is_refused():
    for kept in (40, 300, 600):
        reason(HEIC[:kept])


def test_a_bomb_is_refused_from_its_header(monkeypatch):
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    def png(width: int, height: int) -> bytes:
        header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")

    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("the bomb was opened"))
    assert "60,000 × 2,000" in reason(png(60_000, 2_000))
    for width, height in [(2**31 - 1, 2**31 - 1), (1, 2**31 - 1), (100_000, 100_000)]:
        assert "pixels" in reason(png(width, height))
    monkeypatch.undo()
    assert "more than 3,000 pixels" in reason(encode(photo(), "JPEG"), max_pixels=3000)
    assert decode(encode(photo(), "JPEG"), max_pixels=48 * 64).shape == (48, 64, 3)
    assert "pixels" in reason(HEIC, max_pixels=1000)


def test_no_damaged_file_raises_anything_else():
    rng = np.random.default_rng(0)
    small = photo(16, 16)
    originals = [encode(small, kind) for kind in ("JPEG", "PNG", "WEBP", "TIFF", "BMP")]
    originals += [HEIC, dicom(small, "RGB"), encode(small, "TIFF", compression="tiff_lzw")]
    for data in originals:
        for _ in range(40):
            damaged = bytearray(data)
            for at in rng.integers(0, len(data), rng.integers(1, 12)):
                damaged[at] = rng.integers(0, 256)
            try:
                image = decode(bytes(damaged), max_pixels=1_000_000)
            except DecodeError:
                continue
            assert image.dtype == np.uint8
            assert image.shape[2] == 3


def test_only_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "sock"))
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "empty").touch()
    (tmp_path / "good.png").write_bytes(encode(photo(), "PNG"))
    (tmp_path / "link").symlink_to(tmp_path / "good.png")
    expected = {
        "pipe": "named pipe",
        "sock": "socket",
        "dangling": "broken link",
        "loop": "leads to itself",
        "empty": "empty",
        "missing": "no such file",
        ".": "folder",
    }
    for name, words in expected.items():
        with pytest.raises(DecodeError, match=words):
            decode_file(tmp_path / name)
        with pytest.raises(DecodeError, match=words):
            content_hash(tmp_path / name)
    with pytest.raises(DecodeError, match="device"):
        decode_file("/dev/null")
    with pytest.raises(DecodeError, match="path"):
        decode_file("a\x00b")
    np.testing.assert_array_equal(decode_file(tmp_path / "link"), photo())
    server.close()


# -------------------------------------------------------------------- content hashes


@pytest.fixture
def settled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own, and a file old enough for its hash to be remembered."""
    monkeypatch.setenv("DERMLAB_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "a.bin"
    path.write_bytes(b"one")
    os.utime(path, (1_000_000_000, 1_000_000_000))
    return path


def test_a_hash_is_computed_once_and_again_when_the_file_changes(settled, monkeypatch):
    first = content_hash(settled)
    assert first == hash_file(settled)
    with monkeypatch.context() as patch:
        patch.setattr(module, "_hash_file", lambda path: pytest.fail("hashed again"))
        assert content_hash(settled) == first
    settled.write_bytes(b"two")
    assert content_hash(settled) == hash_file(settled) != first
    os.utime(settled, (1_000_000_001, 1_000_000_001))
    assert content_hash(settled) == hash_file(settled)


def test_a_young_file_is_not_trusted_to_its_clock(settled):
    settled.write_bytes(b"one")
    status = settled.stat()
    assert content_hash(settled) == hash_file(settled)
    settled.write_bytes(b"two")
    os.utime(settled, ns=(status.st_mtime_ns, status.st_mtime_ns))
    assert content_hash(settled) == hash_file(settled)


def test_hashes_come_in_order_with_the_reasons_of_those_that_have_none(settled, tmp_path):
    found = content_hashes([settled, tmp_path / "missing", settled])
    assert found[0] == found[2] == hash_file(settled)
    assert isinstance(found[1], DecodeError)
    assert content_hashes([]) == []


def test_a_damaged_memory_is_made_again_and_an_unwritable_one_is_done_without(settled, monkeypatch, tmp_path):
    expected = content_hash(settled)
    file = cache_root() / module.HASH_FILE
    for leftover in file.parent.glob(f"{module.HASH_FILE}*"):
        leftover.unlink()
    file.write_bytes(b"this is not a database, whatever its name says" * 100)
    assert content_hash(settled) == expected
    with monkeypatch.context() as patch:
        patch.setattr(module, "_hash_file", lambda path: pytest.fail("hashed again"))
        assert content_hash(settled) == expected
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("DERMLAB_CACHE", str(tmp_path / "file" / "cache"))
    assert content_hash(settled) == expected


def test_many_threads_and_stores_share_the_memory(settled, tmp_path):
    paths = []
    for i in range(40):
        path = tmp_path / f"{i}.bin"
        path.write_bytes(bytes([i]) * 100)
        os.utime(path, (1_000_000_000, 1_000_000_000))
        paths.append(path)
    expected = [hash_file(path) for path in paths]
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(lambda _: content_hashes(paths, threads=1), range(8)):
            assert found == expected
