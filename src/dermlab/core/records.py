"""One append-only, content-addressed store of arrays: what the pixel cache and the feature store both stand on.

A store is a folder of *sealed shards*. A shard is one file: the records one after another, then an index (keys, places,
shapes, a checksum for each record), then a footer with the checksum of the index. A shard appears whole, by a rename
after fsync, under a name nobody else can choose, so any number of processes write into one folder without waiting for
each other, and a process killed at any moment loses only the records that it had not yet sealed. Reading is by memory
map; the first touch of a record in a process checks its checksum, and a record that fails is dropped, so that its owner
makes it again. Where two shards hold one key, the newer shard is right.
"""

from __future__ import annotations

import contextlib
import errno
import json
import mmap
import os
import struct
import threading
import time
import uuid
import weakref
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import xxhash

from dermlab.core import files, progress
from dermlab.core.errors import DermlabError
from dermlab.core.fingerprint import hash_bytes

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows has no flock; leftovers are then told by their age alone
    fcntl = None  # type: ignore[assignment]

SUFFIX = ".shard"
META_FILE = "meta.json"
MAGIC = b"DERMREC1"
FOOTER = struct.Struct("<8sQQQQ")  # magic, index offset, header bytes, records, checksum of the index
FOOTER_BYTES = FOOTER.size + 8  # and the checksum of the footer itself
ALIGNMENT = 64  # a record starts on a cache line, whatever its dtype
MAX_OPEN_SHARDS = 400  # a memory map holds a file descriptor; the usual limit is 1,024 a process
LEFTOVER_SECONDS = 86_400.0
LAST_USE_SECONDS = 3_600.0  # a shard's mtime is its last use, kept to the hour
BIG_RECORD_BYTES = 16 << 10  # from here on copying record by record beats numpy's fancy indexing

ABSENT, IN_MEMORY = -1, -2  # values of a row's shard number where it is in none

_warned: set[str] = set()


@dataclass(frozen=True)
class Report:
    """What :meth:`RecordStore.verify` found."""

    n_shards: int
    n_records: int
    n_corrupt: int
    n_superseded: int
    n_failures: int
    size_bytes: int
    corrupt_shards: tuple[str, ...] = ()


@dataclass(frozen=True)
class ShardFile:
    """A sealed shard on disk: where, how big, and when a process last used it (seconds since the epoch)."""

    path: Path
    size_bytes: int
    last_used: float


@dataclass(frozen=True)
class Pruned:
    """What :func:`prune` removed, or would remove."""

    n_shards: int
    size_bytes: int
    kept_bytes: int


@dataclass
class _Shard:
    """The index of one sealed shard."""

    path: Path
    dtype: np.dtype[Any]
    shapes: tuple[tuple[int, ...], ...]
    digests: np.ndarray  # (n, 2) uint64
    offsets: np.ndarray  # (n,) int64
    checksums: np.ndarray  # (n,) uint64
    shape_codes: np.ndarray  # (n,) int64
    failures: dict[str, str]
    stride: int = 0  # bytes from one record to the next where all have one shape and none is missing, else 0

    def record_bytes(self) -> np.ndarray:
        """Return the size of each record, (n,) int64."""
        sizes = [int(np.prod(shape, dtype=np.int64)) * self.dtype.itemsize for shape in self.shapes]
        return np.array(sizes, np.int64)[self.shape_codes]


class _Unsealed:
    """A shard in hand: records laid out in memory as they will lie in the file, and failures that are not on disk yet.

    One block of memory for all records: given back whole when the shard is sealed, where a million small ones would
    stay with the allocator.
    """

    def __init__(self, folder: Path, capacity: int) -> None:
        self.folder = folder
        self.capacity = capacity
        self.since = time.monotonic()
        self.size_bytes = 0
        self.rows: list[int] = []
        self.digests: list[bytes] = []
        self.offsets: list[int] = []
        self.checksums: list[int] = []
        self.shapes: list[tuple[int, ...]] = []
        self.failures: dict[str, str] = {}
        self._buffer: np.ndarray | None = None
        self._dtype = np.dtype(np.uint8)

    def __bool__(self) -> bool:
        return bool(self.digests or self.failures)

    def has_room(self, n_bytes: int) -> bool:
        return not self.digests or self.size_bytes + _padded(n_bytes) <= self.capacity

    def add(self, row: int, digest: bytes, value: np.ndarray, checksum: int) -> np.ndarray:
        """Take in a copy of a C-contiguous array and return the copy, read-only."""
        padded = _padded(value.nbytes)
        if self._buffer is None:
            self._buffer = np.empty(max(self.capacity, padded), np.uint8)
        start, self._dtype = self.size_bytes, value.dtype
        self._buffer[start + value.nbytes : start + padded] = 0
        copy = self._buffer[start : start + value.nbytes].view(value.dtype).reshape(value.shape)
        copy[...] = value
        copy.setflags(write=False)
        self.rows.append(row)
        self.digests.append(digest)
        self.offsets.append(start)
        self.checksums.append(checksum)
        self.shapes.append(value.shape)
        self.size_bytes += padded
        return copy

    def seal(self) -> Path | None:
        """Write everything held to a new shard; None where there is nothing. Raises OSError where the disk refuses."""
        if not self:
            return None
        data = np.empty(0, np.uint8) if self._buffer is None else self._buffer[: self.size_bytes]
        digests = b"".join(self.digests)
        return _write_shard(
            self.folder, data, self._dtype, digests, self.offsets, self.checksums, self.shapes, self.failures
        )


class RecordStore:
    """A folder of arrays by key, written by any number of processes, read through memory maps.

    Args:
        folder: where the shards lie; made where it is missing.
        shard_bytes: a shard is sealed when it holds this much.
        seal_seconds: and when its oldest record has waited this long, so that a kill loses no more than that.

    Keys are any strings; a key of 32 hexadecimal digits (:mod:`dermlab.core.fingerprint`) is stored as it is, any other
    by its hash. All records of a store have one dtype and any shapes. A *row* is the number by which this process knows
    a key; it stays the same as long as the store is open, whoever rewrites the files.

    A full or read-only disk is one warning: from then on ``append`` keeps nothing (``writable`` is False) and ``rows``
    says -1 for what it would have kept, so callers use the array they hold.
    """

    def __init__(self, folder: Path, shard_bytes: int = 64 << 20, *, seal_seconds: float = 60.0) -> None:
        self.folder = Path(folder)
        self.shard_bytes = int(shard_bytes)
        self.seal_seconds = float(seal_seconds)
        self.writable = True
        self._lock = threading.RLock()
        self._seal_lock = threading.Lock()
        self._shards: list[_Shard | None] = []
        self._known: set[str] = set()
        self._complained: set[str] = set()
        self._maps: OrderedDict[int, np.ndarray] = OrderedDict()
        self._dtype: np.dtype[Any] | None = None
        self._failures: dict[str, str] = {}
        self._n_rows = 0
        self._n_live = 0
        self._digest = np.empty((0, 2), np.uint64)
        self._shard = np.empty(0, np.int32)
        self._local = np.empty(0, np.int32)
        self._verified = np.empty(0, bool)
        self._sorted = np.empty(0, np.uint64)  # first halves of the digests, sorted,
        self._sorted_rows = np.empty(0, np.int64)  # and the rows they belong to
        self._recent: dict[bytes, int] = {}  # rows younger than the sorted arrays
        self._memory: dict[int, np.ndarray] = {}
        # Shards in hand, the oldest first; records go into the last one. When the store is forgotten or the program
        # ends, all are sealed.
        self._in_hand = [_Unsealed(self.folder, self.shard_bytes)]
        self._finalizer = weakref.finalize(self, _seal_quietly, self._in_hand)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            _remove_leftovers(self.folder)
        except OSError as error:
            self._degrade(error)
        self.refresh()

    # ---------------------------------------------------------------- finding

    def __len__(self) -> int:
        """Return the number of different keys that can be read."""
        return self._n_live

    def refresh(self) -> None:
        """Pick up the shards that other processes have sealed since the last look."""
        with self._lock:
            fresh: list[_Shard] = []
            for name in sorted(_shard_names(self.folder)):
                if name in self._known:
                    continue
                self._known.add(name)
                path = self.folder / name
                try:
                    fresh.append(_read_index(path))
                except FileNotFoundError:
                    continue  # pruned or compacted since the folder was listed
                except OSError as error:
                    progress.warn(f"{path}: cannot be read ({error.strerror or error}); its records are made again")
                except ValueError as error:
                    # Nothing in it can be trusted any more and everything in it can be made again.
                    progress.warn(f"{path}: {error}; its records are made again")
                    with contextlib.suppress(OSError):
                        path.unlink()
            if fresh:
                self._adopt(fresh)

    def rows(self, keys: Sequence[str]) -> np.ndarray:
        """Return the row of each key as int64 (N,), -1 where the store has none. Keys may repeat."""
        if len(keys) == 0:
            return np.empty(0, np.int64)
        digests = _digests(keys)
        with self._lock:
            if self._recent and len(keys) > 1024:
                self._sort()
            rows = self._find(digests)
            live = rows >= 0
            rows[live] = np.where(self._shard[rows[live]] != ABSENT, rows[live], -1)
            return rows

    def _find(self, digests: np.ndarray) -> np.ndarray:
        """Return the row of each digest, dropped rows included, -1 where there never was one."""
        rows = np.full(len(digests), -1, np.int64)
        n = len(self._sorted)
        if n:
            # Sorting the needles first keeps the binary searches of a million keys inside the processor's cache.
            order = np.argsort(digests[:, 0]) if len(digests) > 1024 else np.arange(len(digests))
            place = np.empty(len(digests), np.int64)
            place[order] = np.searchsorted(self._sorted, digests[order, 0])
            searching = np.flatnonzero(place < n)
            while len(searching):  # once, but for two keys that share their first 64 bits
                at = place[searching]
                same_half = self._sorted[at] == digests[searching, 0]
                searching, at = searching[same_half], at[same_half]
                candidates = self._sorted_rows[at]
                hit = self._digest[candidates, 1] == digests[searching, 1]
                rows[searching[hit]] = candidates[hit]
                searching = searching[~hit]
                place[searching] += 1
                searching = searching[place[searching] < n]
        if self._recent:
            recent = self._recent
            for i in np.flatnonzero(rows < 0):
                rows[i] = recent.get(digests[i].tobytes(), -1)
        return rows

    def _sort(self) -> None:
        digests = self._digest[: self._n_rows]
        self._sorted_rows = np.argsort(digests[:, 0], kind="stable")
        self._sorted = digests[self._sorted_rows, 0]
        self._recent = {}

    def _new_rows(self, digests: np.ndarray) -> np.ndarray:
        """Add a row for each digest (unknown so far) and return the row numbers."""
        start, stop = self._n_rows, self._n_rows + len(digests)
        if stop > len(self._shard):
            size = max(stop, 2 * len(self._shard), 1024)
            self._digest = _grown(self._digest, size)
            self._shard = _grown(self._shard, size)
            self._local = _grown(self._local, size)
            self._verified = _grown(self._verified, size)
        self._digest[start:stop] = digests
        self._shard[start:stop] = ABSENT
        self._verified[start:stop] = False
        self._n_rows = stop
        return np.arange(start, stop, dtype=np.int64)

    def _adopt(self, shards: list[_Shard]) -> None:
        """Enter the records of sealed shards into the tables; of several records of one key the last one counts."""
        for shard in shards:
            if len(shard.digests):
                self._check_dtype(shard.dtype, shard.path)
            self._failures.update(shard.failures)
        numbers = np.concatenate(
            [np.full(len(s.digests), len(self._shards) + i, np.int32) for i, s in enumerate(shards)]
        )
        locals_ = np.concatenate([np.arange(len(s.digests), dtype=np.int32) for s in shards])
        digests = np.concatenate([s.digests for s in shards])
        self._shards.extend(shards)
        if not len(digests):
            return
        order = np.argsort(digests[:, 0], kind="stable")  # stable: of one key the newest shard's record comes last
        steps = np.diff(digests[order], axis=0) != 0
        if (~steps[:, 0] & steps[:, 1]).any():  # two keys share their first half: sort by the second half too
            order = np.lexsort((numbers, digests[:, 1], digests[:, 0]))
            steps = np.diff(digests[order], axis=0) != 0
        chosen = order[np.append(steps.any(axis=1), True)]
        numbers, locals_, digests = numbers[chosen], locals_[chosen], digests[chosen]
        rows = self._find(digests)
        unknown = rows < 0
        rows[unknown] = self._new_rows(digests[unknown])
        # A row that this process holds in memory or has already checked stays where it is.
        state = self._shard[rows]
        move = (state == ABSENT) | ((state != IN_MEMORY) & ~self._verified[rows])
        rows, numbers, locals_ = rows[move], numbers[move], locals_[move]
        self._n_live += int((self._shard[rows] == ABSENT).sum())
        self._shard[rows], self._local[rows], self._verified[rows] = numbers, locals_, False
        self._sort()

    def _check_dtype(self, dtype: np.dtype[Any], source: Path) -> None:
        if self._dtype is None:
            self._dtype = dtype
        elif self._dtype != dtype:
            raise ValueError(f"{source}: a store holds one dtype, this one {self._dtype}, not {dtype}")

    # ---------------------------------------------------------------- writing

    def append(self, key: str, value: np.ndarray) -> None:
        """Keep ``value`` (any shape, the store's dtype) under ``key``; readable at once by this process.

        A key that is there already keeps the value it has: keys name contents. Safe to call from several threads.
        """
        if not self.writable:
            return
        value = np.ascontiguousarray(value).reshape(np.shape(value))  # ascontiguousarray makes a scalar an array
        checksum = _checksum(value)
        digests = _digests([key])
        with self._lock:
            self._check_dtype(value.dtype, self.folder)
            row = int(self._find(digests)[0])
            if row < 0:
                row = int(self._new_rows(digests)[0])
                self._recent[digests[0].tobytes()] = row
            elif self._shard[row] != ABSENT:
                return
            unsealed = self._current(value.nbytes)
            self._memory[row] = unsealed.add(row, digests[0].tobytes(), value, checksum)
            self._shard[row], self._verified[row] = IN_MEMORY, True
            self._n_live += 1
            due = len(self._in_hand) > 1 or self._is_due(unsealed)
        if due:
            self._seal(everything=False)

    def _current(self, n_bytes: int = 0) -> _Unsealed:
        """Return the shard in hand that has room for a record."""
        unsealed = self._in_hand[-1]
        if not unsealed.has_room(n_bytes):
            unsealed = _Unsealed(self.folder, self.shard_bytes)
            self._in_hand.append(unsealed)
        elif not unsealed:
            unsealed.since = time.monotonic()
        return unsealed

    def _is_due(self, unsealed: _Unsealed) -> bool:
        return unsealed.size_bytes >= self.shard_bytes or time.monotonic() - unsealed.since >= self.seal_seconds

    def fail(self, key: str, reason: str) -> None:
        """Remember that ``key`` cannot be made, and why, so that nobody tries again."""
        with self._lock:
            self._failures[key] = reason
            self._current().failures[key] = reason

    def failures(self) -> dict[str, str]:
        """Return the reason of every key that failed and that nobody has made since."""
        with self._lock:
            if not self._failures:
                return {}
            keys = list(self._failures)
            made = self.rows(keys) >= 0
            return {key: self._failures[key] for key, known in zip(keys, made, strict=True) if not known}

    def flush(self) -> None:
        """Seal what is in memory: written, checksummed, fsynced and renamed into place."""
        self._seal(everything=True)

    def _seal(self, *, everything: bool) -> None:
        with self._seal_lock:
            while self.writable:
                with self._lock:
                    unsealed = self._in_hand[0]
                    full = len(self._in_hand) > 1 or self._is_due(unsealed)
                    if not unsealed or not (everything or full):
                        return  # nothing there, or another thread sealed it while this one waited
                    if len(self._in_hand) == 1:
                        self._in_hand.append(_Unsealed(self.folder, self.shard_bytes))
                # The disk is waited for without the lock: other threads go on appending and reading.
                try:
                    path = unsealed.seal()
                    shard = _read_index(path) if path else None
                except (OSError, ValueError) as error:
                    with self._lock:
                        self._degrade(error)
                        self._in_hand[:] = [_Unsealed(self.folder, self.shard_bytes)]
                    return
                with self._lock:
                    self._in_hand.remove(unsealed)
                    if shard is not None:
                        self._take_over(shard, unsealed.rows)

    def _take_over(self, shard: _Shard, rows: list[int]) -> None:
        """Read rows from their sealed shard from now on, no longer from memory."""
        self._known.add(shard.path.name)
        self._shards.append(shard)
        self._shard[rows] = len(self._shards) - 1
        self._local[rows] = np.arange(len(rows))
        for row in rows:
            del self._memory[row]

    def _degrade(self, error: Exception) -> None:
        """Go on without writing. What is in memory stays readable."""
        self.writable = False
        reason = getattr(error, "strerror", None) or str(error)
        if reason not in _warned:
            _warned.add(reason)
            progress.warn(f"{self.folder}: cannot be written ({reason}); going on without keeping what is computed")

    def describe(self, meta: Mapping[str, Any]) -> None:
        """Write ``meta.json`` beside the shards, where it is missing: what the records are, for a person to read."""
        path = self.folder / META_FILE
        if self.writable and not path.exists():
            with contextlib.suppress(DermlabError):  # a disk that cannot be written has had its warning
                files.write_json(path, dict(meta))

    # ---------------------------------------------------------------- reading

    def get(self, row: int) -> np.ndarray:
        """Return the record of a row as a read-only array, a view into the memory map.

        Raises:
            KeyError: the row was dropped, is corrupt, or its shard is gone; the key's row is -1 from now on.
        """
        return self.views(np.array([row], np.int64))[0]

    def views(self, rows: np.ndarray) -> list[np.ndarray]:
        """Return the records of rows, of any shapes, as :meth:`get` does."""
        self._demand(np.asarray(rows, np.int64))
        return [self._view(int(row)) for row in rows]

    def gather(self, rows: np.ndarray, out: np.ndarray | None = None, *, copy: bool = True) -> np.ndarray:
        """Stack records of one shape into an array (B, *shape).

        Args:
            rows: (B,) row numbers, in any order, repeats allowed.
            out: filled and returned where given.
            copy: False allows a read-only view into the memory map where the rows lie one after another in one shard.

        Raises:
            KeyError: as :meth:`get`, for any of the rows.
            ValueError: the shapes differ, or there are no rows and no ``out``.
        """
        rows = np.asarray(rows, np.int64)
        self._demand(rows)
        if not len(rows):
            if out is None:
                raise ValueError("no rows to gather")
            return out
        with self._lock:
            shard_of, local = self._shard[rows], self._local[rows]
        if not copy and out is None and (shard_of == shard_of[0]).all() and (np.diff(local) == 1).all():
            block = self._block(int(shard_of[0]))
            if block is not None:
                return block[local[0] : local[0] + len(rows)]
        sample = self._view(int(rows[0]))
        if out is None:
            out = np.empty((len(rows), *sample.shape), sample.dtype)
        elif out.shape != (len(rows), *sample.shape):
            raise ValueError(f"{len(rows)} records of shape {sample.shape} do not fit an array of shape {out.shape}")
        for number in np.unique(shard_of).tolist():
            mine = np.flatnonzero(shard_of == number)
            block = self._block(number)
            if block is None or block.shape[1:] != sample.shape:
                for i in mine.tolist():
                    view = self._view(int(rows[i]))
                    if view.shape != sample.shape:
                        raise ValueError(f"records of shapes {sample.shape} and {view.shape} cannot be stacked")
                    out[i] = view
            elif sample.nbytes < BIG_RECORD_BYTES:
                out[mine] = block[local[mine]]
            else:
                for i, j in zip(mine.tolist(), local[mine].tolist(), strict=True):
                    out[i] = block[j]
        return out

    def intact(self, rows: np.ndarray) -> np.ndarray:
        """Return a mask (B,) of the rows that can be read; each is checked against its checksum once a process.

        A record that fails is dropped: its key's row is -1 until somebody appends it again.
        """
        rows = np.asarray(rows, np.int64)
        inside = (rows >= 0) & (rows < self._n_rows)
        checked = np.zeros(len(rows), bool)
        checked[inside] = self._verified[rows[inside]]
        if checked.all():
            return checked
        for row in np.unique(rows[inside & ~checked]):
            self._check(int(row))
        checked[inside] = self._verified[rows[inside]]
        return checked

    def _demand(self, rows: np.ndarray) -> None:
        intact = self.intact(rows)
        if not intact.all():
            raise KeyError(f"{self.folder}: row {int(rows[np.flatnonzero(~intact)[0]])} is not in the store")

    def _check(self, row: int) -> None:
        """Compare one record with its checksum; drop it where they differ or its file is gone."""
        with self._lock:
            if self._verified[row] or self._shard[row] == ABSENT:
                return
            try:
                view = self._view(row)
            except KeyError:  # pruned, or compacted into a shard that this process has not seen
                self.refresh()
                self._check(row)
                return
            except (OSError, ValueError, TypeError):  # unreadable, or shorter than its index says
                self._drop(row)
                return
            shard = self._shards[self._shard[row]]
            assert shard is not None
            if _checksum(view) == int(shard.checksums[self._local[row]]):
                self._verified[row] = True
                return
            self._drop(row)
            if shard.path.name not in self._complained:
                self._complained.add(shard.path.name)
                progress.warn(f"{shard.path}: a record does not match its checksum; such records are made again")

    def _drop(self, row: int) -> None:
        self._shard[row], self._verified[row] = ABSENT, False
        self._n_live -= 1

    def _lose(self, number: int) -> None:
        """Forget a shard whose file is gone; what this process had checked and mapped is forgotten with it."""
        lost = np.flatnonzero(self._shard[: self._n_rows] == number)
        self._shard[lost], self._verified[lost] = ABSENT, False
        self._n_live -= len(lost)
        self._maps.pop(number, None)
        self._shards[number] = None

    def _view(self, row: int) -> np.ndarray:
        with self._lock:
            held = self._memory.get(row)
            if held is not None:
                return held
            number, local = int(self._shard[row]), int(self._local[row])
            shard = self._shards[number] if number >= 0 else None
            if shard is None:
                raise KeyError(f"{self.folder}: row {row} is not in the store")
            data = self._map(number)
        shape = shard.shapes[int(shard.shape_codes[local])]
        return np.ndarray(shape, shard.dtype, data.data, int(shard.offsets[local]))

    def _block(self, number: int) -> np.ndarray | None:
        """Return all records of a shard as one read-only array (n, *shape) where they have one shape."""
        if number < 0:
            return None
        with self._lock:
            shard = self._shards[number]
            if shard is None or not shard.stride:
                return None
            data = self._map(number)
        shape = shard.shapes[0]
        inner = np.empty(0, shard.dtype).itemsize * np.cumprod((1, *shape[:0:-1]), dtype=np.int64)[::-1]
        strides = (shard.stride, *(int(step) for step in inner[: len(shape)]))
        return np.ndarray((len(shard.digests), *shape), shard.dtype, data.data, 0, strides)

    def _map(self, number: int) -> np.ndarray:
        data = self._maps.get(number)
        if data is not None:
            self._maps.move_to_end(number)
            return data
        shard = self._shards[number]
        assert shard is not None
        try:
            file = open(shard.path, "rb")  # noqa: SIM115 - closed below
        except FileNotFoundError:
            self._lose(number)
            raise KeyError(f"{shard.path}: the shard is gone") from None
        with file:
            data = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
            _note_use(file, shard.path)
        self._maps[number] = data
        if len(self._maps) > MAX_OPEN_SHARDS:
            self._maps.popitem(last=False)  # views handed out keep their map alive by themselves
        return data

    # ---------------------------------------------------------------- keeping

    def size_bytes(self) -> int:
        """Return the size of the sealed shards on disk."""
        return sum(shard.size_bytes for shard in shard_files(self.folder))

    def verify(self) -> Report:
        """Read every record of every shard against its checksum. Records that fail are dropped."""
        self.flush()
        self.refresh()
        n_records = n_corrupt = n_superseded = 0
        corrupt_shards: list[str] = []
        for number in range(len(self._shards)):
            bad, superseded = self._verify_shard(number)
            shard = self._shards[number]
            if shard is None:
                continue
            n_records += len(shard.digests)
            n_superseded += superseded
            n_corrupt += len(bad)
            if len(bad):
                corrupt_shards.append(shard.path.name)
        return Report(
            n_shards=sum(shard is not None for shard in self._shards),
            n_records=n_records,
            n_corrupt=n_corrupt,
            n_superseded=n_superseded,
            n_failures=len(self.failures()),
            size_bytes=self.size_bytes(),
            corrupt_shards=tuple(corrupt_shards),
        )

    def _verify_shard(self, number: int) -> tuple[np.ndarray, int]:
        """Return the places of a shard's corrupt records and the number of records another shard has replaced."""
        shard = self._shards[number]
        if shard is None:
            return np.empty(0, np.int64), 0
        with self._lock:
            rows = self._find(shard.digests)
        current = (self._shard[rows] == number) & (self._local[rows] == np.arange(len(rows)))
        bad: list[int] = []
        try:
            data = self._map(number)
        except KeyError:
            return np.empty(0, np.int64), 0
        except (OSError, ValueError):
            bad = list(range(len(rows)))
        else:
            places = zip(shard.offsets.tolist(), shard.record_bytes().tolist(), shard.checksums.tolist(), strict=True)
            for i, (offset, size, checksum) in enumerate(places):
                if _checksum(data[offset : offset + size]) != checksum:
                    bad.append(i)
        good = np.ones(len(rows), bool)
        good[bad] = False
        with self._lock:
            self._verified[rows[current & good]] = True
            for row in rows[current & ~good]:
                self._drop(int(row))
        return np.array(bad, np.int64), int((~current & good).sum())

    def compact(self) -> int:
        """Write small shards together, leave out corrupt and superseded records, and return the bytes won.

        Other processes go on: what they have mapped stays readable, what they have not they find in the new shards.
        """
        self.flush()
        self.refresh()
        before = self.size_bytes()
        chosen: list[int] = []
        for number, shard in enumerate(self._shards):
            if shard is None:
                continue
            bad, superseded = self._verify_shard(number)
            with contextlib.suppress(FileNotFoundError):
                if len(bad) or superseded or shard.path.stat().st_size < self.shard_bytes // 2:
                    chosen.append(number)
        dirty = [n for n in chosen if self._is_dirty(n)]
        if len(chosen) < 2 and not dirty:
            return 0
        copies = _Unsealed(self.folder, self.shard_bytes)
        old: list[Path] = []
        last_used = 0.0
        try:
            for number in chosen:
                shard = self._shards[number]
                if shard is None:
                    continue
                try:
                    last_used = max(last_used, shard.path.stat().st_mtime)
                except FileNotFoundError:  # pruned or compacted by another process since it was chosen
                    continue
                copies.failures.update(shard.failures)
                rows = self._find(shard.digests)
                for i, row in enumerate(rows.tolist()):
                    if self._shard[row] != number or self._local[row] != i:
                        continue
                    view = self._view(row)
                    if not copies.has_room(view.nbytes):
                        _seal_as_used(copies, last_used)
                        copies = _Unsealed(self.folder, self.shard_bytes)
                    copies.add(row, self._digest[row].tobytes(), view, int(shard.checksums[i]))
                old.append(shard.path)
            _seal_as_used(copies, last_used)
        except OSError as error:
            raise files.cannot_write(self.folder, error) from error
        for path in old:
            path.unlink(missing_ok=True)
        with self._lock:
            for number in chosen:
                self._lose(number)
            self.refresh()
        return before - self.size_bytes()

    def _is_dirty(self, number: int) -> bool:
        shard = self._shards[number]
        return shard is not None and int((self._shard[self._find(shard.digests)] == number).sum()) < len(shard.digests)

    def close(self) -> None:
        """Seal what is in memory and let go of the memory maps."""
        self.flush()
        with self._lock:
            self._maps.clear()

    def __enter__(self) -> RecordStore:
        """Return the store itself; it is closed when the block ends, however it ends."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close the store."""
        self.close()


# -------------------------------------------------------------------- pruning


def shard_files(folder: Path) -> list[ShardFile]:
    """Return the sealed shards of one store, as they lie on disk."""
    found: list[ShardFile] = []
    for name in _shard_names(folder):
        with contextlib.suppress(FileNotFoundError):
            status = (Path(folder) / name).stat()
            found.append(ShardFile(Path(folder) / name, status.st_size, status.st_mtime))
    return found


def prune(
    folders: Iterable[Path],
    *,
    older_than_seconds: float | None = None,
    max_bytes: int | None = None,
    dry_run: bool = False,
) -> Pruned:
    """Remove shards nobody has used for a time, then the least recently used until the stores fit a size.

    Args:
        folders: the stores; the size is that of all of them together.
        older_than_seconds: shards not used for so long go.
        max_bytes: what may stay.
        dry_run: only tell.

    Processes that have a removed shard mapped go on reading it; others make its records again.
    """
    shards = sorted((s for folder in folders for s in shard_files(folder)), key=lambda shard: shard.last_used)
    kept = sum(shard.size_bytes for shard in shards)
    oldest = time.time() - older_than_seconds if older_than_seconds is not None else None
    removed: list[ShardFile] = []
    for shard in shards:
        too_old = oldest is not None and shard.last_used <= oldest
        too_much = max_bytes is not None and kept > max_bytes
        if not (too_old or too_much):
            continue
        if not dry_run:
            try:
                shard.path.unlink(missing_ok=True)
            except OSError as error:
                raise DermlabError(f"{shard.path}: cannot be removed ({error.strerror or error})") from error
        removed.append(shard)
        kept -= shard.size_bytes
    return Pruned(len(removed), sum(shard.size_bytes for shard in removed), kept)


# -------------------------------------------------------------------- the file format


def _digests(keys: Sequence[str]) -> np.ndarray:
    """Return keys as (N, 2) uint64: 32 hexadecimal digits as they are, anything else hashed."""
    if set(map(len, keys)) == {32}:
        with contextlib.suppress(ValueError):
            raw = bytes.fromhex("".join(keys))
            if len(raw) == 16 * len(keys):  # fromhex skips blanks, so a key with a blank shows here
                return np.frombuffer(raw, "<u8").reshape(-1, 2)
    raw = b"".join(_digest(key) for key in keys)
    return np.frombuffer(raw, "<u8").reshape(-1, 2)


def _digest(key: str) -> bytes:
    if len(key) == 32:
        with contextlib.suppress(ValueError):
            raw = bytes.fromhex(key)
            if len(raw) == 16:
                return raw
    return bytes.fromhex(hash_bytes(key.encode()))


def _write_shard(
    folder: Path,
    data: np.ndarray,
    dtype: np.dtype[Any],
    digests: bytes,
    offsets: Sequence[int],
    checksums: Sequence[int],
    shapes: Sequence[tuple[int, ...]],
    failures: Mapping[str, str],
) -> Path:
    """Write one shard and publish it under a name of its own. Raises OSError; nothing is left behind then."""
    # Names sort by the time of sealing; the random part makes two processes in one nanosecond no problem.
    name = f"{time.time_ns():016x}-{uuid.uuid4().hex[:12]}{SUFFIX}"
    temporary, final = Path(folder) / f".{name}.tmp", Path(folder) / name
    codes: dict[tuple[int, ...], int] = {}
    shape_codes = [codes.setdefault(shape, len(codes)) for shape in shapes]
    description = {"dtype": dtype.str, "shapes": [list(shape) for shape in codes], "failures": dict(failures)}
    header = json.dumps(description).encode()
    columns = np.array(offsets, "<i8"), np.array(checksums, "<u8"), np.array(shape_codes, "<i8")
    index = b"".join((header, digests, *(column.tobytes() for column in columns)))
    footer = FOOTER.pack(MAGIC, data.nbytes, len(header), len(offsets), xxhash.xxh3_64_intdigest(index))
    Path(folder).mkdir(parents=True, exist_ok=True)  # somebody may have emptied the cache under a running process
    try:
        with _open_new(temporary) as file:
            file.write(data.data)
            file.write(index)
            file.write(footer + struct.pack("<Q", xxhash.xxh3_64_intdigest(footer)))
            file.flush()
            os.fsync(file.fileno())
            os.replace(temporary, final)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    _sync_folder(Path(folder))
    return final


def _padded(n_bytes: int) -> int:
    return -(-n_bytes // ALIGNMENT) * ALIGNMENT


def _checksum(record: np.ndarray) -> int:
    return xxhash.xxh3_64_intdigest(record.data if record.size else b"")


def _open_new(path: Path) -> BinaryIO:
    """Create a file that no :func:`_remove_leftovers` takes away while this process lives."""
    file = open(path, "xb", buffering=1 << 20)  # noqa: SIM115 - the caller closes it
    if fcntl is not None:
        with contextlib.suppress(OSError):  # a file system without flock: leftovers are told by their age alone
            fcntl.flock(file.fileno(), fcntl.LOCK_EX)
    if not path.exists():  # a cleaner came between the two lines above
        file.close()
        return _open_new(path)
    return file


def _remove_leftovers(folder: Path) -> None:
    """Remove the unfinished files of processes that are dead: nobody holds the lock on them any more."""
    for entry in os.scandir(folder):
        if not entry.name.endswith(f"{SUFFIX}.tmp"):
            continue
        with contextlib.suppress(OSError), open(entry.path, "rb") as file:
            old = time.time() - os.fstat(file.fileno()).st_mtime > LEFTOVER_SECONDS
            if fcntl is not None:
                try:
                    fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError as error:
                    if error.errno in {errno.EWOULDBLOCK, errno.EACCES} or not old:
                        continue
            elif not old:
                continue
            os.unlink(entry.path)


def _read_index(path: Path) -> _Shard:
    """Read a shard's footer and index. Raises ValueError where they are not what was written."""
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        if size < FOOTER_BYTES:
            raise ValueError("the shard is too short")
        file.seek(size - FOOTER_BYTES)
        footer = file.read(FOOTER_BYTES)
        magic, index_offset, header_bytes, n, index_checksum = FOOTER.unpack(footer[: FOOTER.size])
        if xxhash.xxh3_64_intdigest(footer[: FOOTER.size]) != struct.unpack("<Q", footer[FOOTER.size :])[0]:
            raise ValueError("the shard's footer does not match its checksum")
        if magic != MAGIC:
            raise ValueError("not a shard of this version")
        length = header_bytes + n * 40
        if index_offset + length + FOOTER_BYTES != size:
            raise ValueError("the shard is not as long as it should be")
        file.seek(index_offset)
        index = file.read(length)
    if xxhash.xxh3_64_intdigest(index) != index_checksum:
        raise ValueError("the shard's index does not match its checksum")
    header = json.loads(index[:header_bytes])
    at = header_bytes
    offsets = np.frombuffer(index, "<i8", n, at + 16 * n)
    shard = _Shard(
        path=path,
        dtype=np.dtype(header["dtype"]),
        shapes=tuple(tuple(shape) for shape in header["shapes"]),
        digests=np.frombuffer(index, "<u8", 2 * n, at).reshape(n, 2),
        offsets=offsets,
        checksums=np.frombuffer(index, "<u8", n, at + 24 * n),
        shape_codes=np.frombuffer(index, "<i8", n, at + 32 * n),
        failures=header["failures"],
    )
    if len(shard.shapes) == 1 and n:
        shard.stride = int(index_offset) // n
    return shard


def _shard_names(folder: Path) -> list[str]:
    try:
        return [entry.name for entry in os.scandir(folder) if entry.name.endswith(SUFFIX)]
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return []


def _note_use(file: BinaryIO, path: Path) -> None:
    """Set the file's time to now where it is an hour old: pruning goes by last use."""
    if time.time() - os.fstat(file.fileno()).st_mtime > LAST_USE_SECONDS:
        with contextlib.suppress(OSError):
            os.utime(path)


def _sync_folder(folder: Path) -> None:
    """Make the rename itself survive a power cut, where the system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _seal_quietly(holder: list[_Unsealed]) -> None:
    """Seal what a forgotten store still holds; at this point there is nobody left to tell of a full disk."""
    for unsealed in holder:
        if unsealed.folder.is_dir():  # a cache that was removed meanwhile does not come back as one shard
            with contextlib.suppress(OSError):
                unsealed.seal()


def _seal_as_used(unsealed: _Unsealed, last_used: float) -> None:
    """Seal copies of old records: that they were copied does not make them younger for :func:`prune`."""
    path = unsealed.seal()
    if path is not None:
        os.utime(path, (last_used, last_used))


def _grown(array: np.ndarray, size: int) -> np.ndarray:
    grown = np.empty((size, *array.shape[1:]), array.dtype)
    grown[: len(array)] = array
    return grown
