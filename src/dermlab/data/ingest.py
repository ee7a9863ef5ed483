"""From a source to a data set folder: photos copied, checked and freed of metadata, then manifest, card and split.

Every photo is decoded once before it is taken; what cannot be decoded goes to ``quarantine.csv`` with a reason and
stops nothing. A journal in the folder remembers what is done: an interrupted import goes on where it was, and a
repeated one takes only new photos.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import re
from collections import Counter, deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import pandas as pd
from PIL import Image

from dermlab.core.errors import InputError
from dermlab.core.files import cannot_write, write_text
from dermlab.core.fingerprint import hash_bytes
from dermlab.core.progress import progress, warn
from dermlab.data.card import read_card, write_card
from dermlab.data.card_merge import merge_cards
from dermlab.data.dataset import CARD, MANIFEST, QUARANTINE, Dataset
from dermlab.data.decode import DecodeError, available_cores, decode_image, read_file, sniff
from dermlab.data.deidentify import UnusualFileError, strip_metadata
from dermlab.data.sources import SourceData

JOURNAL = ".import.jsonl"
IMPORTED_CARD = ".import-card.yaml"  # the card as the import wrote it: what differs from it, a person has written
OFFICIAL = "official"
_EXTENSION_OF = {"JPEG": ".jpg", "PNG": ".png", "WebP": ".webp", "BMP": ".bmp"}
_FOLDER_OF = {"path": "images", "mask_path": "masks"}
_WINDOW = 256  # photos in flight: enough for every thread, few enough for the memory


@dataclass(frozen=True)
class ImportReport:
    """What an import brought.

    Attributes:
        dataset: the data set written.
        n_new: photos copied now; the others were there from an earlier, interrupted or repeated import.
        reasons: reason -> number of photos in quarantine for it.
        notes: what was decided on the way.
    """

    dataset: Dataset
    n_new: int
    reasons: dict[str, int]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Job:
    """One file to bring in: a row's image or mask."""

    row: int
    column: str
    key: str  # names source, its size and time, and the target: the same key is the same work
    stem: str  # of the file in the data set folder, without extension
    path: str | None = None
    array: np.ndarray | None = None
    label: str = ""  # what the quarantine calls it


@dataclass(frozen=True)
class _Outcome:
    file: str | None = None
    size: int = 0
    reason: str | None = None
    lasting: bool = True


@dataclass
class _Journal:
    """What was done: key -> outcome, appended line by line."""

    folder: Path
    header: dict[str, str]
    done: dict[str, _Outcome] = field(default_factory=dict)

    def read(self) -> None:
        """Take over what an earlier import did, as far as its files are still there."""
        path = self.folder / JOURNAL
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        for line in lines[1:]:
            with contextlib.suppress(ValueError, TypeError, KeyError):  # a kill may have cut the last line
                entry = json.loads(line)
                key = entry.pop("key")
                self.done[key] = _Outcome(**entry)
        sizes = {
            f"{folder}/{entry.name}": entry.stat().st_size
            for folder in _FOLDER_OF.values()
            if (self.folder / folder).is_dir()
            for entry in os.scandir(self.folder / folder)
        }
        self.done = {
            key: outcome
            for key, outcome in self.done.items()
            if outcome.file is None or sizes.get(outcome.file) == outcome.size > 0
        }

    @contextlib.contextmanager
    def appending(self) -> Iterator[IO[str]]:
        """Open the journal for appending, with its header line where it is new."""
        path = self.folder / JOURNAL
        if not path.exists():
            write_text(path, json.dumps(self.header) + "\n")
        with open(path, "a", encoding="utf-8", buffering=1) as file:
            file.write("\n")  # ends a line that a kill has cut
            yield file

    def add(self, file: IO[str], key: str, outcome: _Outcome) -> None:
        """Remember an outcome, in memory and on disk; one that may be another tomorrow is not remembered."""
        self.done[key] = outcome
        if outcome.file is not None or outcome.lasting:
            file.write(json.dumps({"key": key, **_entry(outcome)}) + "\n")

    def compact(self, keys: Iterable[str]) -> None:
        """Rewrite the journal with these keys only and delete the copies of photos that are no longer in the source."""
        wanted = set(keys)
        kept = {key: outcome for key, outcome in self.done.items() if key in wanted}
        files = {outcome.file for outcome in kept.values()}
        for outcome in self.done.values():
            if outcome.file is not None and outcome.file not in files:
                (self.folder / outcome.file).unlink(missing_ok=True)
        lines = [json.dumps({"key": key, **_entry(outcome)}) for key, outcome in kept.items() if outcome.lasting]
        write_text(self.folder / JOURNAL, "\n".join([json.dumps(self.header), *lines]) + "\n")


def _entry(outcome: _Outcome) -> dict[str, Any]:
    return {"file": outcome.file, "size": outcome.size} if outcome.file else {"reason": outcome.reason}


def import_source(
    source: SourceData,
    out: str | Path,
    *,
    images: Literal["copy", "hardlink"] = "copy",
    threads: int | None = None,
    said: Collection[str] = (),
) -> ImportReport:
    """Write a data set folder from a source.

    Args:
        source: what a source's ``read`` returned.
        out: the folder to write: new, empty, or of an earlier import of the same source, which is then brought up to
            date.
        images: ``copy`` takes JPEG, PNG and WebP without loss and without metadata, BMP as it is, and everything else
            as PNG; ``hardlink`` spares the disk but leaves the originals' metadata (EXIF, GPS) in place.
        threads: decoding threads; None is one for each CPU.
        said: fields of the card that were asked for with this import: they win over what a person wrote into the card
            of an earlier one, which else stays.

    Raises:
        InputError: ``out`` holds something else or a card that cannot be read, or no image is usable.
    """
    out = Path(out).expanduser()
    header = {"name": source.card.name, "images": images}
    _require_usable(out, header)
    edited = read_card(out / CARD) if (out / CARD).is_file() else None
    journal = _Journal(out, header)
    with _writing(out):
        out.mkdir(parents=True, exist_ok=True)
        for folder in _FOLDER_OF.values():
            _remove_parts(out / folder)
        journal.read()
        jobs = list(_jobs(source)) if source.arrays is None else None
        n_new, results = _bring_in(source, jobs, journal, images == "hardlink", threads)
    quarantined = list(source.quarantined)
    manifest = source.manifest.drop(columns=["source_path", "source_mask_path"], errors="ignore")
    usable = np.ones(len(manifest), dtype=bool)
    for column in _FOLDER_OF:
        files = np.full(len(manifest), None, dtype=object)
        for (row, name), (label, outcome) in results.items():
            if name != column:
                continue
            files[row] = outcome.file
            if outcome.reason is not None:
                quarantined.append((label, outcome.reason if column == "path" else f"mask: {outcome.reason}"))
        if column == "path":
            usable = pd.notna(files)
            manifest.insert(1, "path", files)
        elif pd.notna(files).any():
            manifest[column] = files
    if not usable.any():
        first = f", the first: {quarantined[0][0]}: {quarantined[0][1]}" if quarantined else ""
        raise InputError(f"{source.root}: none of {len(manifest):,} images is usable{first}")
    card, notes = source.card, list(source.notes)
    if edited is not None:
        earlier = read_card(out / IMPORTED_CARD) if (out / IMPORTED_CARD).is_file() else None
        card, kept = merge_cards(card, edited, earlier, columns=manifest.columns, said=said)
        if kept:
            notes.append(f"kept as {out / CARD} has it: {', '.join(kept)}")
    dataset = Dataset.write(out, manifest[usable], card)
    write_card(out / IMPORTED_CARD, source.card)
    if source.official is not None:
        frame = pd.DataFrame({"image_id": dataset.image_ids, "split": source.official[usable], "fold": 0, "repeat": 0})
        dataset.write_split(OFFICIAL, frame)
    write_text(out / QUARANTINE, pd.DataFrame(sorted(quarantined), columns=["path", "reason"]).to_csv(index=False))
    journal.compact(journal.done if jobs is None else (job.key for job in jobs))
    _warn_of_stale_splits(dataset)
    reasons = Counter(re.sub(r"\d[\d,]*", "N", reason) for _, reason in quarantined)
    return ImportReport(dataset, n_new, dict(reasons.most_common()), tuple(notes))


def _require_usable(out: Path, header: Mapping[str, str]) -> None:
    """Refuse a folder that an import would spoil: anything but a new one or one of the same source."""
    if not out.exists():
        return
    if not out.is_dir():
        raise InputError(f"{out}: is a file; --out names the folder to write")
    if not any(out.iterdir()):
        return
    journal = out / JOURNAL
    if not journal.is_file():
        what = "a data set that no import made" if (out / MANIFEST).exists() or (out / CARD).exists() else "other files"
        raise InputError(f"{out}: holds {what}; choose a new folder for --out")
    try:
        earlier = json.loads(journal.read_text(encoding="utf-8").split("\n", 1)[0])
    except ValueError:
        earlier = {}
    for key, value in header.items():
        if earlier.get(key) != value:
            raise InputError(
                f"{out}: holds an import with {key} {earlier.get(key)!r}, this one has {value!r}; choose another --out"
            )


@contextlib.contextmanager
def _writing(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise cannot_write(error.filename or out, error) from error


def _remove_parts(folder: Path) -> None:
    """Remove half-written copies that a killed import left."""
    if folder.is_dir():
        for path in folder.glob(".*.part"):
            path.unlink(missing_ok=True)


# --- jobs -----------------------------------------------------------------------------------------------------------


def _jobs(source: SourceData) -> Iterator[_Job]:
    stems = file_stems(source.manifest["image_id"])
    for column, name in (("path", "source_path"), ("mask_path", "source_mask_path")):
        if name not in source.manifest:
            continue
        for row, path in enumerate(source.manifest[name]):
            if not isinstance(path, str):
                continue
            try:
                status = os.stat(path)
                state = f"{status.st_size}:{status.st_mtime_ns}"
            except (OSError, ValueError):
                state = "absent"
            key = hash_bytes(
                path.encode(errors="surrogateescape"), state.encode(), column.encode(), stems[row].encode()
            )
            yield _Job(row, column, key, stems[row], path=path, label=_label(path, source.root))


def _label(path: str, root: Path) -> str:
    return os.path.relpath(path, root) if Path(path).is_relative_to(root) else Path(path).name


def _array_jobs(source: SourceData) -> Iterator[_Job]:
    assert source.arrays is not None
    stems = file_stems(source.manifest["image_id"])
    ids = source.manifest["image_id"].tolist()
    for start, block in source.arrays.blocks():
        for offset, array in enumerate(block):
            row = start + offset
            key = hash_bytes(source.arrays.fingerprint.encode(), str(row).encode(), stems[row].encode())
            yield _Job(row, "path", key, stems[row], array=array, label=ids[row])


def file_stems(image_ids: Iterable[str]) -> list[str]:
    """Return for each id a file name without extension: safe on every file system and unique in any letter case."""
    ids = list(image_ids)
    stems = [re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._")[:100] or "image" for name in ids]
    count = Counter(stem.casefold() for stem in stems)
    return [
        stem if count[stem.casefold()] == 1 else f"{stem}-{hash_bytes(name.encode())[:10]}"
        for stem, name in zip(stems, ids, strict=True)
    ]


def _bring_in(
    source: SourceData, jobs: list[_Job] | None, journal: _Journal, link: bool, threads: int | None
) -> tuple[int, dict[tuple[int, str], tuple[str, _Outcome]]]:
    """Do every job that the journal does not know; return how many that were and what came of each."""
    results: dict[tuple[int, str], tuple[str, _Outcome]] = {}
    n_new = 0
    for folder in _FOLDER_OF.values():
        if folder == "images" or "source_mask_path" in source.manifest:
            (journal.folder / folder).mkdir(exist_ok=True)
    total = len(source.manifest) if jobs is None else len(jobs)
    flying: deque[tuple[_Job, Future[_Outcome]]] = deque()
    with (
        journal.appending() as file,
        progress("importing", total, "files") as advance,
        ThreadPoolExecutor(threads or available_cores()) as pool,
    ):

        def land() -> None:
            job, future = flying.popleft()
            outcome = future.result()
            journal.add(file, job.key, outcome)
            results[job.row, job.column] = (job.label, outcome)
            advance(1)

        try:
            for job in _array_jobs(source) if jobs is None else jobs:
                known = journal.done.get(job.key)
                if known is not None:
                    results[job.row, job.column] = (job.label, known)
                    advance(1)
                    continue
                n_new += 1
                flying.append((job, pool.submit(_take, job, journal.folder, link)))
                if len(flying) >= _WINDOW:
                    land()
            while flying:
                land()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return n_new, results


# --- one photo ------------------------------------------------------------------------------------------------------


def _take(job: _Job, out: Path, link: bool) -> _Outcome:
    """Check one photo and put it into the folder, whole or not at all."""
    try:
        if job.array is not None:
            data, extension, is_copy = _png(Image.fromarray(job.array)), ".png", False
        else:
            assert job.path is not None
            data, extension, is_copy = _clean(read_file(job.path), is_mask=job.column == "mask_path")
    except DecodeError as error:
        return _Outcome(reason=error.reason, lasting=error.lasting)
    folder = _FOLDER_OF[job.column]
    part = out / folder / f".{job.stem}.part"
    if link and is_copy and job.path is not None:
        _link(job.path, part)
    else:
        part.write_bytes(data)
    relative = f"{folder}/{job.stem}{extension}"
    os.replace(part, out / relative)
    return _Outcome(relative, os.stat(out / relative).st_size)


def _clean(data: bytes, is_mask: bool) -> tuple[bytes, str, bool]:
    """Return a photo without metadata, its extension, and whether its compressed pixels are the original's.

    The photo has been decoded once. Raises :class:`DecodeError` where it cannot be, or ends before its end.
    """
    kind = sniff(data)
    # The bytes as they came, before anything is cut off: a copy of a truncated file can look whole.
    image = decode_image(data)
    if kind == "BMP":
        return data, _EXTENSION_OF[kind], True
    if kind in _EXTENSION_OF:
        # A file whose structure is odd, or that without its metadata is another picture, is written anew below.
        with contextlib.suppress(UnusualFileError):
            stripped = strip_metadata(data, kind)
            if _opens_alike(stripped, kind, image):
                return stripped, _EXTENSION_OF[kind], True
    if is_mask:  # decoding makes sRGB photos, and would scale the values that a mask means
        raise DecodeError(f"a mask in {kind}, which would lose its values; write it as PNG")
    return _png(image), ".png", False


def _opens_alike(stripped: bytes, kind: str, image: Image.Image) -> bool:
    """Tell whether a photo without its metadata opens at its old size; its compressed pixels are the same bytes."""
    try:
        with Image.open(io.BytesIO(stripped), formats=[kind.upper()]) as opened:
            return sorted(opened.size) == sorted(image.size)
    except Exception:  # decoders fed with odd bytes raise anything
        return False


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _link(path: str, target: Path) -> None:
    try:
        target.unlink(missing_ok=True)
        os.link(os.path.realpath(path), target)
    except OSError as error:
        if error.errno in (errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EMLINK):
            raise InputError(f"{path}: cannot be hard-linked ({error.strerror}); use --images copy") from None
        raise


def _warn_of_stale_splits(dataset: Dataset) -> None:
    for name in dataset.split_names():
        try:
            dataset.read_split(name)
        except InputError as error:
            warn(str(error))
