"""The pixel cache: photos decoded and resized once, kept as ``uint8`` RGB, shared by data sets, runs and processes.

A record's name is what it is made of: the content of the photo, the recipe, the version of the decoder. The first pass
over a data set writes through while it is used; later passes read memory maps and never decode. One decode writes every
recipe that a run asks for.
"""

from __future__ import annotations

import io
import math
import threading
import weakref
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Literal, overload

import cv2
import numpy as np
from PIL import Image
from pydantic import Field, model_validator

from dermlab.core import progress
from dermlab.core.config import Config
from dermlab.core.fingerprint import hash_json
from dermlab.core.folders import cache_root
from dermlab.core.records import RecordStore
from dermlab.data.decode import (
    DECODER_VERSION,
    MAX_PIXELS,
    DecodeError,
    available_cores,
    content_hashes,
    decode_image,
    hash_content,
    read_file,
)

FOLDER = "pixels"

Fit = Literal["squash", "crop", "pad", "square", "short"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos", "area"]

_PILLOW = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "area": Image.Resampling.BOX,
}
_OPENCV = {
    "nearest": cv2.INTER_NEAREST,
    "bilinear": cv2.INTER_LINEAR,
    "bicubic": cv2.INTER_CUBIC,
    "lanczos": cv2.INTER_LANCZOS4,
    "area": cv2.INTER_AREA,
}


class PixelRecipe(Config):
    """How a decoded photo becomes a record."""

    size_px: int = Field(ge=1, le=8192, description="side of the square in pixels; for 'short' the shorter side")
    fit: Fit = Field(
        "crop",
        description="squash: both sides to the size; crop: shorter side to the size, centre crop; "
        "pad: longer side to the size, black borders; square: black borders first, then both sides to the size; "
        "short: shorter side to the size, all of the photo kept",
    )
    crop_fraction: float = Field(
        1.0, gt=0, le=1, description="resize to floor(size_px / crop_fraction), then take the centre (timm's crop_pct)"
    )
    interpolation: Interpolation = Field("bicubic", description="resampling filter, Pillow's; area is Pillow's box")
    antialias: bool = Field(True, description="False: OpenCV's filters, which skip pixels when they shrink")
    codec: Literal["raw", "jpeg95"] = Field(
        "raw", description="raw: the pixels themselves; jpeg95: JPEG at quality 95, 4:4:4, about a sixth of the size"
    )

    @model_validator(mode="after")
    def _keeps_all_of_a_short_photo(self) -> PixelRecipe:
        if self.fit == "short" and self.crop_fraction != 1:
            raise ValueError("crop_fraction must be 1 where fit is 'short', which crops nothing")
        return self

    @property
    def name(self) -> str:
        """The folder of this recipe's records: readable, and different for whatever changes a pixel."""
        fingerprint = hash_json({"recipe": self.model_dump(), "decoder": DECODER_VERSION})[:10]
        return f"{self.size_px}px-{self.fit}-{self.interpolation}-{self.codec}-{fingerprint}"

    def estimated_bytes(self, n: int) -> int:
        """Return about how many bytes ``n`` photos will take (photos taken as 4:3)."""
        pixels = self.size_px**2 * (4 / 3 if self.fit == "short" else 1)
        return int(n * pixels * (0.5 if self.codec == "jpeg95" else 3))


def resize(image: Image.Image, recipe: PixelRecipe) -> np.ndarray:
    """Return an RGB image fitted to a recipe as (H, W, 3) uint8.

    With antialiasing the pixels are those of torchvision's and timm's transforms on PIL images, bit for bit: the same
    roundings (shorter side to ``floor(size / crop_fraction)``, the other truncated, crop offsets rounded half to even)
    and Pillow's filters.

    Raises:
        DecodeError: the photo is so long and narrow that the resized one would hold more than ``MAX_PIXELS``.
    """
    size = recipe.size_px
    scaled = math.floor(size / recipe.crop_fraction)
    short, long = sorted(image.size)
    if recipe.fit == "square" and short != long and long * long <= MAX_PIXELS:
        left, top = ((long - side) // 2 for side in image.size)  # as torchvision's CenterCrop(max(size)) pads
        image = image.crop((-left, -top, long - left, long - top))
        short = long
    if recipe.fit in ("squash", "square") and (recipe.fit == "squash" or short == long):
        target = (scaled, scaled)
    else:
        if recipe.fit == "pad":
            sides = (max(1, round(scaled * short / long)), scaled)
        else:
            sides = (scaled, int(scaled * long / short))
        target = sides if image.width <= image.height else sides[::-1]
    if target[0] * target[1] > MAX_PIXELS:
        raise DecodeError(f"{image.width:,} × {image.height:,} is too long and narrow")
    if image.size == target:
        resized = image
    elif recipe.antialias:
        resized = image.resize(target, _PILLOW[recipe.interpolation])
    else:
        resized = Image.fromarray(cv2.resize(np.asarray(image), target, interpolation=_OPENCV[recipe.interpolation]))
    if recipe.fit == "short" or resized.size == (size, size):
        return np.asarray(resized)
    # Python rounds half to even, as torchvision does; Pillow's crop fills what lies outside with black.
    left, top = (round((side - size) / 2.0) for side in resized.size)
    return np.asarray(resized.crop((left, top, left + size, top + size)))


class _Photos:
    """Files that are decoded at most once for all the recipes asked for; shared by the :class:`Pixels` of one call."""

    def __init__(self, paths: Sequence[Path], recipes: Sequence[PixelRecipe], root: Path, threads: int | None) -> None:
        self.paths = [Path(path) for path in paths]
        self.recipes = tuple(recipes)
        self.threads = threads or available_cores()
        self.n_decoded = 0
        self.stores = [_open_store(root / FOLDER / recipe.name, recipe) for recipe in self.recipes]
        found = content_hashes(self.paths, threads=self.threads)
        self.hashes = [content if isinstance(content, str) else "" for content in found]
        unreadable = {i: error.reason for i, error in enumerate(found) if isinstance(error, DecodeError)}
        self.failures = [dict(unreadable) for _ in self.recipes]
        for failures, store in zip(self.failures, self.stores, strict=True):
            known = store.failures()
            if known:
                failures.update({i: known[key] for i, key in enumerate(self.hashes) if key in known})
        self._same_content: dict[str, list[int]] = {}
        self._pool: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()

    def make(self, index: int) -> list[np.ndarray | DecodeError]:
        """Decode one file and keep it under every recipe; return the records in the order of the recipes."""
        key = self.hashes[index]
        try:
            data = read_file(self.paths[index])
            if hash_content(data) != key:
                raise DecodeError("the file changed while it was being read", lasting=False)
            with self._lock:
                self.n_decoded += 1
            image = decode_image(data)
        except DecodeError as error:
            return [self._fail(place, index, error) for place in range(len(self.recipes))]
        records: list[np.ndarray | DecodeError] = []
        for place, (recipe, store) in enumerate(zip(self.recipes, self.stores, strict=True)):
            try:
                record = resize(image, recipe)
            except DecodeError as error:
                records.append(self._fail(place, index, error))
                continue
            if recipe.codec == "jpeg95":
                record = _to_jpeg(record)
            store.append(key, record)
            records.append(record)
        return records

    def _fail(self, place: int, index: int, error: DecodeError) -> DecodeError:
        if error.lasting:
            self.stores[place].fail(self.hashes[index], error.reason)
        same = self.same_content(index) if error.lasting else [index]  # a copy elsewhere may still be readable
        self.failures[place].update(dict.fromkeys(same, error.reason))
        return error

    def same_content(self, index: int) -> list[int]:
        """Return every index whose file holds the same bytes, the given one included."""
        with self._lock:
            if not self._same_content:
                for i, key in enumerate(self.hashes):
                    self._same_content.setdefault(key, []).append(i)
            return self._same_content[self.hashes[index]]

    def make_all(self, indices: Iterable[int]) -> Iterator[tuple[int, list[np.ndarray | DecodeError]]]:
        """Yield (index, records) in order; decoding runs in threads, a few files ahead."""
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="dermlab-decode")
        ahead: deque[tuple[int, Future[list[np.ndarray | DecodeError]]]] = deque()
        try:
            for index in indices:
                ahead.append((index, self._pool.submit(self.make, index)))
                if len(ahead) > 4 * self.threads:
                    first, future = ahead.popleft()
                    yield first, future.result()
            while ahead:
                first, future = ahead.popleft()
                yield first, future.result()
        finally:
            for _, future in ahead:
                future.cancel()


class Pixels:
    """N photos under one recipe, written through on first use. Made by :func:`open_pixels`.

    Attributes:
        recipe: how the photos are fitted.
        content_hashes: one for each photo, "" where the file cannot be read at all.
        failures: index → reason of the photos known to hold no usable image. It grows as photos are first decoded; in
            arrays and lists a failed photo is black.
    """

    def __init__(self, photos: _Photos, place: int) -> None:
        self.recipe = photos.recipes[place]
        self.content_hashes = photos.hashes
        self.failures = photos.failures[place]
        self._photos = photos
        self._place = place
        self._store = photos.stores[place]
        self._rows = self._store.rows(self.content_hashes)

    def __len__(self) -> int:
        """Return the number of photos, failed ones included."""
        return len(self.content_hashes)

    @property
    def n_decoded(self) -> int:
        """How many files were decoded through this object and its siblings of one :func:`open_pixels`."""
        return self._photos.n_decoded

    @property
    def n_missing(self) -> int:
        """How many photos have no record yet and are not known to have failed."""
        return sum(index not in self.failures for index in np.flatnonzero(self._rows < 0).tolist())

    @property
    def folder(self) -> Path:
        """Where the records of this recipe lie."""
        return self._store.folder

    @property
    def writable(self) -> bool:
        """False once the disk has refused a write: photos are then decoded anew each time."""
        return self._store.writable

    def size_bytes(self) -> int:
        """Return the size on disk of all records of this recipe, other data sets' included."""
        return self._store.size_bytes()

    def batch(self, indices: Sequence[int] | np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Return photos as (B, S, S, 3) uint8 RGB in the order asked for; what is missing is decoded and kept.

        Args:
            indices: (B,) positions in the list of paths, repeats allowed.
            out: filled and returned where given.

        Raises:
            ValueError: the recipe is 'short', whose photos differ in shape: use :meth:`images`.
        """
        if self.recipe.fit == "short":
            raise ValueError("photos of a 'short' recipe differ in shape: use images(indices)")
        indices = np.asarray(indices, np.int64)
        size = self.recipe.size_px
        if out is None:
            out = np.empty((len(indices), size, size, 3), np.uint8)
        for _ in range(3):
            rows, made = self._ready(indices)
            try:
                if self.recipe.codec == "raw" and not made and (rows >= 0).all():
                    return self._store.gather(rows, out) if len(rows) else out
                for i, image in enumerate(self._images(indices, rows, made)):
                    out[i] = image
                return out
            except KeyError:  # pruned by another process between the look and the reading
                continue
        raise RuntimeError(f"{self._store.folder}: records vanish faster than they are made")

    def images(self, indices: Sequence[int] | np.ndarray) -> list[np.ndarray]:
        """Return photos as a list of read-only (H, W, 3) uint8 views; what is missing is decoded and kept."""
        indices = np.asarray(indices, np.int64)
        for _ in range(3):
            rows, made = self._ready(indices)
            try:
                return self._images(indices, rows, made)
            except KeyError:  # as in batch
                continue
        raise RuntimeError(f"{self._store.folder}: records vanish faster than they are made")

    def _images(self, indices: np.ndarray, rows: np.ndarray, made: dict[int, np.ndarray]) -> list[np.ndarray]:
        records = dict(made)
        there = rows >= 0
        records.update(zip(indices[there].tolist(), self._store.views(rows[there]), strict=True))
        black = np.zeros((self.recipe.size_px, self.recipe.size_px, 3), np.uint8)
        if self.recipe.codec == "jpeg95":
            return [_from_jpeg(records[i]) if i in records else black for i in indices.tolist()]
        return [records.get(i, black) for i in indices.tolist()]

    def fill(self, description: str = "pixels") -> None:
        """Decode and keep every photo that is not in the cache yet, with progress, and seal the shards."""
        # What cannot be kept is better decoded when it is asked for. A second turn is rare: see _ready.
        while self.writable and (todo := self._missing(np.flatnonzero(self._rows < 0))):
            with progress.progress(description, len(todo)) as advance:
                for index, records in self._photos.make_all(todo):
                    self._note(index, records)
                    advance(1)
                    if not self.writable:
                        break
        self.flush()

    def flush(self) -> None:
        """Seal what is not on disk yet, of all the recipes opened together."""
        for store in self._photos.stores:
            store.flush()

    def _ready(self, indices: np.ndarray) -> tuple[np.ndarray, dict[int, np.ndarray]]:
        """Return the rows of photos, -1 for failed ones, and the records that could not be kept, by index."""
        rows = self._rows[indices]
        made: dict[int, np.ndarray] = {}
        if self._store.intact(rows).all():
            return rows, made
        # A second turn only where a file vanished or changed and a copy of it is among the photos.
        while missing := [index for index in self._missing(indices) if index not in made]:
            for index, records in self._photos.make_all(missing):
                record = self._note(index, records)
                if record is not None and self._rows[index] < 0:  # the disk is full
                    made.update(dict.fromkeys(self._photos.same_content(index), record))
        rows = self._rows[indices]
        return np.where(self._store.intact(rows), rows, -1), made

    def _missing(self, indices: np.ndarray) -> list[int]:
        """Look again for photos without a row, and return one index for each content that has to be decoded."""
        indices = indices[~self._store.intact(self._rows[indices])]
        if not len(indices):
            return []
        self._store.refresh()  # another process, or another object of this one, may have made them
        rows = self._store.rows([self.content_hashes[i] for i in indices.tolist()])
        self._rows[indices] = rows
        first: dict[str, int] = {}
        for index in indices[~self._store.intact(rows)].tolist():
            self._rows[index] = -1
            if index not in self.failures:
                first.setdefault(self.content_hashes[index], index)
        return list(first.values())

    def _note(self, index: int, records: list[np.ndarray | DecodeError]) -> np.ndarray | None:
        """Enter what became of a photo into the rows of all photos of that content; return its record if it has one."""
        record = records[self._place]
        if isinstance(record, DecodeError):
            return None
        self._rows[self._photos.same_content(index)] = self._store.rows([self.content_hashes[index]])[0]
        return record


@overload
def open_pixels(
    paths: Sequence[Path], recipes: PixelRecipe, *, threads: int | None = ..., root: Path | None = ...
) -> Pixels: ...
@overload
def open_pixels(
    paths: Sequence[Path], recipes: Sequence[PixelRecipe], *, threads: int | None = ..., root: Path | None = ...
) -> list[Pixels]: ...
def open_pixels(
    paths: Sequence[Path],
    recipes: PixelRecipe | Sequence[PixelRecipe],
    *,
    threads: int | None = None,
    root: Path | None = None,
) -> Pixels | list[Pixels]:
    """Open photos under one recipe or several; nothing is decoded yet, but each file's content is hashed.

    Args:
        paths: the photos, N of them.
        recipes: one recipe, or several of which each decode then writes all.
        threads: decoding threads (default: the cores of this process).
        root: the cache folder (default: :func:`dermlab.core.folders.cache_root`).

    Returns:
        :class:`Pixels`, or a list of them in the order of the recipes.
    """
    several = [recipes] if isinstance(recipes, PixelRecipe) else list(recipes)
    photos = _Photos(paths, several, root or cache_root(), threads)
    opened = [Pixels(photos, place) for place in range(len(several))]
    return opened[0] if isinstance(recipes, PixelRecipe) else opened


# Two objects of one process over one folder would not see each other's records before they are sealed.
_open_stores: weakref.WeakValueDictionary[Path, RecordStore] = weakref.WeakValueDictionary()
_open_stores_lock = threading.Lock()


def _open_store(folder: Path, recipe: PixelRecipe) -> RecordStore:
    with _open_stores_lock:
        folder = folder.absolute()
        store = _open_stores.get(folder)
        if store is None:
            store = _open_stores[folder] = RecordStore(folder)
            store.describe({"kind": "pixels", "recipe": recipe.model_dump(), "decoder": DECODER_VERSION})
        else:
            store.refresh()
        return store


def _to_jpeg(image: np.ndarray) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=95, subsampling=0)
    return np.frombuffer(buffer.getvalue(), np.uint8)


def _from_jpeg(record: np.ndarray) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(record.tobytes()), formats=["JPEG"]))
