"""Decoding: any photo becomes (H, W, 3) ``uint8`` sRGB, or a :class:`DecodeError` with a short reason.

The type is told by the content, never by the name. Nothing but pixels comes out: EXIF, GPS and DICOM headers stay
behind.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import sqlite3
import stat
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError

from dermlab.core import progress
from dermlab.core.errors import DermlabError, first_line
from dermlab.core.fingerprint import DIGEST_BYTES, hash_file
from dermlab.core.folders import cache_root

MAX_PIXELS = 89_000_000  # a third of a gigabyte once decoded; also where Pillow begins to warn of bombs
MAX_FILE_BYTES = 1 << 29
DECODER_VERSION = (
    f"1-pillow{PIL.__version__.split('.')[0]}"  # part of every pixel cache key: raise it when pixels change
)

FORMATS = "JPEG, PNG, WebP, BMP, TIFF, HEIC, DICOM"
# A warning for each odd tag of each photo helps nobody, and filters set for a moment are not safe between threads.
warnings.filterwarnings("ignore", module=r"(PIL|pydicom)\.")

_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_IMAGE_TAGS = ("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "BitsStored", "BitsAllocated")


class DecodeError(DermlabError):
    """A file that holds no usable image.

    Attributes:
        reason: a short phrase, the same for the same file on every machine, for quarantine lists and reports.
        lasting: True where the content is at fault, so that trying again is in vain; False where this machine is (a
            missing package, no permission, no memory).
    """

    def __init__(self, reason: str, *, lasting: bool = True) -> None:
        super().__init__(reason)
        self.reason = reason
        self.lasting = lasting


# -------------------------------------------------------------------- files


def read_file(path: str | os.PathLike[str]) -> bytes:
    """Return a regular file's bytes. Devices, pipes and sockets are never opened, links are followed.

    Raises:
        DecodeError: there is no such file, it is none, it is empty, too large or not readable.
    """
    try:
        _check_file(os.stat(path))
        # Between the look and the opening somebody may have put a pipe there: O_NONBLOCK would not wait for its writer.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with io.FileIO(descriptor, "rb") as file:
            _check_file(os.fstat(descriptor))
            return file.readall()
    except ValueError:
        raise DecodeError("not a usable path") from None
    except OSError as error:
        raise _cannot_read(path, error) from None


def _check_file(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        kinds: dict[str, Callable[[int], bool]] = {
            "a folder": stat.S_ISDIR,
            "a named pipe": stat.S_ISFIFO,
            "a socket": stat.S_ISSOCK,
        }
        kind = next((name for name, is_kind in kinds.items() if is_kind(status.st_mode)), "a device")
        raise DecodeError(f"not a file but {kind}")
    if status.st_size == 0:
        raise DecodeError("empty file")
    if status.st_size > MAX_FILE_BYTES:
        raise DecodeError(f"the file is larger than {MAX_FILE_BYTES >> 20} MiB")


def _cannot_read(path: str | os.PathLike[str], error: OSError) -> DecodeError:
    if error.errno in {errno.ENOENT, errno.ENOTDIR}:
        return DecodeError("broken link" if os.path.islink(path) else "no such file", lasting=False)
    if error.errno == errno.ELOOP:
        return DecodeError("a link that leads to itself", lasting=False)
    return DecodeError(f"cannot be read ({error.strerror or error})", lasting=False)


def sniff(data: bytes) -> str:
    """Return the format a file's first bytes show: one of JPEG, PNG, WebP, BMP, TIFF, HEIC, DICOM.

    Raises:
        DecodeError: it is none of them; the reason says what it looks like.
    """
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WebP"
    if data.startswith((b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")):
        return "TIFF"
    if data[4:8] == b"ftyp":
        if data[8:12] in _HEIC_BRANDS:
            return "HEIC"
        raise DecodeError("an AVIF image" if data[8:12] in {b"avif", b"avis"} else "a video")
    if data[128:132] == b"DICM":
        return "DICOM"
    if data.startswith(b"BM"):
        return "BMP"
    raise DecodeError(_guess(data))


def _guess(data: bytes) -> str:
    if not data:
        return "empty file"
    head = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not data.strip(b"\x00"):
        return "nothing but zero bytes"
    if head.startswith((b"<!doctype html", b"<html")) or b"<html" in head:
        return "a web page, not an image"
    if head.startswith((b"<svg", b"<?xml")):
        return "an XML or SVG text, not an image"
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the image itself: run git lfs pull"
    known = {
        b"gif8": "a GIF image",
        b"%pdf": "a PDF",
        b"pk\x03\x04": "a ZIP archive",
        b"\x1f\x8b": "a gzip archive",
        b"\x00\x00\x00\x0cjp": "a JPEG 2000 image",
        b"8bps": "a Photoshop document",
    }
    for magic, name in known.items():
        if head.startswith(magic):
            return f"{name}; what can be read is {FORMATS}"
    return f"not an image in {FORMATS}"


# -------------------------------------------------------------------- pixels


def decode_file(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Return a file's image as (H, W, 3) uint8 sRGB, upright. See :func:`decode`."""
    return decode(read_file(path), max_pixels=max_pixels)


def decode(source: str | os.PathLike[str] | bytes, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Return an image as an array.

    Args:
        source: a path, or the file's bytes.
        max_pixels: an image whose header announces more is not decoded.

    Returns:
        (H, W, 3) uint8, sRGB, EXIF orientation applied; transparency on white; the first frame of several.

    Raises:
        DecodeError: with a short ``reason``. No other exception leaves this function.
    """
    data = source if isinstance(source, bytes) else read_file(source)
    return np.array(decode_image(data, max_pixels=max_pixels))


def decode_image(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Return a file's bytes as an RGB Pillow image without metadata; arguments and faults as :func:`decode`."""
    kind = sniff(data)
    try:
        if kind == "DICOM":
            return _decode_dicom(data, max_pixels)
        if kind == "HEIC":
            return _to_srgb(_open_heic(data, max_pixels))
        return _decode_pillow(data, kind, max_pixels)
    except DecodeError:
        raise
    except MemoryError:
        raise DecodeError("there is not enough memory to decode it", lasting=False) from None
    except UnidentifiedImageError:
        raise DecodeError(f"damaged {kind} (unreadable header)") from None
    except Image.DecompressionBombError:
        raise DecodeError(f"more than {max_pixels:,} pixels") from None
    except Exception as error:  # decoders fed with hostile bytes raise anything; a run of thousands goes on
        text = first_line(error) if kind != "DICOM" else type(error).__name__  # a DICOM fault may quote a patient's tag
        raise DecodeError(f"damaged {kind} ({_short(text)})") from None


def _short(text: str) -> str:
    printable = "".join(letter if letter.isprintable() else " " for letter in text)
    return printable if len(printable) <= 100 else printable[:97] + "..."


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise DecodeError("an image without pixels")
    if width * height > max_pixels:
        raise DecodeError(f"{width:,} × {height:,} is more than {max_pixels:,} pixels")


def _decode_pillow(data: bytes, kind: str, max_pixels: int) -> Image.Image:
    # The one decoder that the content calls for: neither a name nor a second guess opens another.
    with Image.open(io.BytesIO(data), formats=[kind.upper()]) as image:
        _check_size(image.width, image.height, max_pixels)
        image.load()
        method = None
        with contextlib.suppress(Exception):  # damaged EXIF is no reason to lose the photo
            method = _TRANSPOSE.get(image.getexif().get(ExifTags.Base.Orientation, 1))
        return _to_srgb(image if method is None else image.transpose(method))


def _open_heic(data: bytes, max_pixels: int) -> Image.Image:
    try:
        import pi_heif
    except ImportError:
        raise DecodeError("HEIC needs the package pi-heif: pip install 'dermlab[heic]'", lasting=False) from None
    file = pi_heif.open_heif(io.BytesIO(data), convert_hdr_to_8bit=True)
    _check_size(file.size[0], file.size[1], max_pixels)
    return file.to_pillow()  # libheif has turned it upright already


def _to_srgb(image: Image.Image) -> Image.Image:
    """Return any Pillow mode as 8-bit sRGB without metadata."""
    profile = image.info.get("icc_profile")
    if image.mode in {"I", "F"} or image.mode.startswith("I;16"):
        image = Image.fromarray(_to_8_bit(np.asarray(image)))
    if image.mode in {"LA", "La", "PA", "RGBa", "RGBA"} or "transparency" in image.info:
        rgba = image.convert("RGBA")
        image = Image.new("RGB", image.size, (255, 255, 255))
        image.paste(rgba, mask=rgba.getchannel("A"))
    elif image.mode not in {"L", "RGB", "CMYK", "LAB"}:
        image = image.convert("RGB")
    transform = _transform(profile, image.mode) if isinstance(profile, bytes) and profile else None
    if image.mode == "LAB" and transform is None:
        transform = _transform(None, "LAB")
    if transform is not None:
        with contextlib.suppress(ImageCms.PyCMSError, ValueError):
            converted = ImageCms.applyTransform(image, transform)
            if converted is not None:
                image = converted
    image = image.convert("RGB")
    image.info = {}
    return image


@lru_cache(maxsize=64)
def _transform(profile: bytes | None, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Return the transform from a profile to sRGB; None where none is needed or the profile is broken or misplaced."""
    try:
        if profile is None:
            source = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
        else:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            if mode == "RGB" and ImageCms.getProfileDescription(source).strip().startswith("sRGB"):
                return None
        target = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
        # No cache of the last pixel inside the transform: threads share it.
        return ImageCms.buildTransform(source, target, mode, "RGB", flags=ImageCms.Flags.NOCACHE)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None


def _to_8_bit(values: np.ndarray) -> np.ndarray:
    """Scale grey values of more than 8 bits: 65,535 (or 1.0 where the numbers are fractions) becomes 255."""
    if values.dtype.kind == "f":
        if not np.isfinite(values).all() or values.min() < 0 or values.max() > 1:
            raise DecodeError("floating-point pixels outside 0 to 1, whose white is unknown")
        return np.rint(values * 255).astype(np.uint8)
    if values.min() < 0 or values.max() > 65_535:
        raise DecodeError("32-bit pixels, whose white is unknown")
    return ((values.astype(np.uint32) * 255 + 32_767) // 65_535).astype(np.uint8)


# -------------------------------------------------------------------- DICOM


def _decode_dicom(data: bytes, max_pixels: int) -> Image.Image:
    """Decode the first frame of a DICOM image (PS3.3 C.7.6.3 pixels, C.11 modality and VOI transformations)."""
    try:
        import pydicom
        from pydicom import pixels
    except ImportError:
        raise DecodeError("DICOM needs the package pydicom: pip install 'dermlab[dicom]'", lasting=False) from None
    dataset = pydicom.dcmread(io.BytesIO(data))
    if "PixelData" not in dataset:
        raise DecodeError("a DICOM file without pixels")
    if any(tag not in dataset for tag in _IMAGE_TAGS):
        raise DecodeError("a DICOM file whose pixels are not described")
    _check_size(int(dataset.Columns), int(dataset.Rows), max_pixels)
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax.is_compressed and syntax.is_encapsulated:
        _check_plugin(syntax)
    array = pixels.pixel_array(dataset, index=0)  # turns YBR into RGB
    interpretation = str(dataset.PhotometricInterpretation).strip()
    if interpretation == "PALETTE COLOR":
        array = pixels.apply_color_lut(array, dataset)
        array = _scaled(array, 0, 255 if array.dtype.itemsize == 1 else 65_535)
    elif interpretation.startswith("MONOCHROME"):
        array = _window(array, dataset)
        if interpretation == "MONOCHROME1":  # its lowest value is white
            array = 255 - array
    else:
        array = _scaled(array, 0, (1 << int(dataset.BitsStored)) - 1)
    image = Image.fromarray(np.ascontiguousarray(array))
    profile = dataset.get("ICCProfile")
    if profile is None and dataset.get("OpticalPathSequence"):
        profile = dataset.OpticalPathSequence[0].get("ICCProfile")
    if profile is not None:
        image.info["icc_profile"] = bytes(profile)
    return _to_srgb(image)


def _check_plugin(syntax: Any) -> None:
    from pydicom.pixels import get_decoder

    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise DecodeError(f"DICOM compressed as {syntax.name}, which cannot be read") from None
    if not decoder.is_available:
        packages = sorted({line.split(" - ")[0] for line in decoder.missing_dependencies})
        raise DecodeError(
            f"DICOM compressed as {syntax.name} needs one of the packages {', '.join(packages)}", lasting=False
        )


def _window(stored: np.ndarray, dataset: Any) -> np.ndarray:
    """Return grey values as 8 bits: rescaled, through the file's first window or table, else over the whole range."""
    from pydicom import pixels

    bits = int(dataset.BitsStored)
    signed = int(dataset.get("PixelRepresentation", 0)) == 1
    ends = np.array([-(1 << bits - 1), (1 << bits - 1) - 1] if signed else [0, (1 << bits) - 1])
    values = pixels.apply_modality_lut(stored, dataset)
    if dataset.get("ModalityLUTSequence"):
        low, high = 0.0, float((1 << int(dataset.ModalityLUTSequence[0].LUTDescriptor[2])) - 1)
    else:
        low, high = sorted(pixels.apply_modality_lut(ends, dataset).astype(float).tolist())
    if dataset.get("VOILUTSequence"):
        values = pixels.apply_voi(values, dataset)
        low, high = 0.0, float((1 << int(dataset.VOILUTSequence[0].LUTDescriptor[2])) - 1)
    elif dataset.get("WindowCenter") is not None and dataset.get("WindowWidth") is not None:
        values = pixels.apply_windowing(values, dataset)  # spreads the window over the range of the stored values
    return _scaled(values, low, high)


def _scaled(values: np.ndarray, low: float, high: float) -> np.ndarray:
    if values.dtype == np.uint8 and (low, high) == (0, 255):
        return values
    if high <= low:
        raise DecodeError("a DICOM file whose pixel values have no range")
    scaled = (values.astype(np.float32) - low) * (255 / (high - low))
    return np.rint(scaled.clip(0, 255)).astype(np.uint8)


# -------------------------------------------------------------------- content hashes

HASH_FILE = "content_hashes.sqlite"
SETTLED_SECONDS = 2.0  # a file changed twice within a file system's clock tick looks unchanged: hash the young again


def content_hash(path: str | os.PathLike[str]) -> str:
    """Return the fingerprint of a file's bytes, remembered under the cache folder by (path, size, mtime).

    Raises:
        DecodeError: the file cannot be read.
    """
    (found,) = content_hashes([path], threads=1)
    if isinstance(found, DecodeError):
        raise found
    return found


def hash_content(data: bytes) -> str:
    """Return the content hash of bytes already read: what :func:`content_hash` says of a file that holds them."""
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES).hexdigest()


def content_hashes(
    paths: Sequence[str | os.PathLike[str]], *, threads: int | None = None, description: str = "reading files"
) -> list[str | DecodeError]:
    """Return the content hash of each file in order, or the :class:`DecodeError` that says why it has none.

    Hashes that are not remembered are computed in ``threads`` threads, with progress; several processes may share the
    memory. Where it cannot be written, files are simply hashed again.
    """
    names = [os.path.abspath(path) for path in paths]
    found: list[str | DecodeError | None] = [None] * len(names)
    with _HashMemory(cache_root() / HASH_FILE) as memory:
        unknown: list[int] = []
        states: dict[int, tuple[int, int]] = {}
        known = memory.look_up(names)
        for i, name in enumerate(names):
            try:
                status = os.stat(name)
            except (OSError, ValueError):
                unknown.append(i)  # read_file tells what is wrong
                continue
            states[i] = (status.st_size, status.st_mtime_ns)
            remembered = known.get(name)
            if remembered is not None and remembered[:2] == states[i]:
                found[i] = remembered[2]
            else:
                unknown.append(i)
        if unknown:
            with (
                ThreadPoolExecutor(threads or available_cores()) as pool,
                progress.progress(description, len(unknown), "files") as advance,
            ):
                for i, result in zip(unknown, pool.map(lambda i: _hash_file(names[i]), unknown), strict=True):
                    found[i] = result
                    settled = i in states and time.time() - states[i][1] / 1e9 > SETTLED_SECONDS
                    if isinstance(result, str) and settled:
                        memory.remember(names[i], *states[i], result)
                    advance(1)
    return [result for result in found if result is not None]


def available_cores() -> int:
    """Return how many processor cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        return os.cpu_count() or 1


def _hash_file(path: str) -> str | DecodeError:
    try:
        _check_file(os.stat(path))
        return hash_file(path)
    except DecodeError as error:
        return error
    except ValueError:
        return DecodeError("not a usable path")
    except OSError as error:
        return _cannot_read(path, error)


class _HashMemory:
    """Content hashes by path, size and mtime in one SQLite file that processes share; without a disk it forgets."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._connection: sqlite3.Connection | None = None
        self._fresh: list[tuple[bytes, int, int, str]] = []
        self._written = time.monotonic()

    def __enter__(self) -> _HashMemory:
        for attempt in range(2):
            try:
                self.file.parent.mkdir(parents=True, exist_ok=True)
                self._connection = sqlite3.connect(self.file, timeout=30)
                self._connection.execute("PRAGMA journal_mode=WAL")
                self._connection.execute("PRAGMA synchronous=NORMAL")
                self._connection.execute(
                    "CREATE TABLE IF NOT EXISTS hashes"
                    " (path BLOB PRIMARY KEY, size INTEGER, mtime_ns INTEGER, hash TEXT) WITHOUT ROWID"
                )
                break
            except sqlite3.OperationalError:  # no place to write, or locked for too long
                self._forget()
                break
            except sqlite3.DatabaseError:  # damaged: everything in it can be computed again
                self._forget()
                if attempt == 0:
                    with contextlib.suppress(OSError):
                        self.file.unlink()
            except OSError:
                self._forget()
                break
        return self

    def __exit__(self, *exception: object) -> None:
        self._write()
        self._forget()

    def _forget(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None

    def look_up(self, names: Sequence[str]) -> dict[str, tuple[int, int, str]]:
        """Return (size, mtime_ns, hash) of the paths that are remembered."""
        known: dict[str, tuple[int, int, str]] = {}
        if self._connection is None:
            return known
        try:
            for start in range(0, len(names), 500):
                part = [os.fsencode(name) for name in names[start : start + 500]]
                marks = ",".join("?" * len(part))
                query = f"SELECT path, size, mtime_ns, hash FROM hashes WHERE path IN ({marks})"
                for path, size, mtime_ns, content in self._connection.execute(query, part):
                    known[os.fsdecode(path)] = (size, mtime_ns, content)
        except sqlite3.Error:
            self._forget()
        return known

    def remember(self, name: str, size: int, mtime_ns: int, content: str) -> None:
        """Keep one hash; what is kept is written every few seconds, so that a kill costs little."""
        self._fresh.append((os.fsencode(name), size, mtime_ns, content))
        if len(self._fresh) >= 10_000 or time.monotonic() - self._written > 5:
            self._write()

    def _write(self) -> None:
        if self._connection is not None and self._fresh:
            try:
                with self._connection:
                    self._connection.executemany("INSERT OR REPLACE INTO hashes VALUES (?, ?, ?, ?)", self._fresh)
            except sqlite3.Error:
                self._forget()
        self._fresh = []
        self._written = time.monotonic()
