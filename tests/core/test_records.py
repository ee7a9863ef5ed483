"""The record store: whole or absent, found or made again, whoever writes and whatever is killed."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from dermlab.core import records
from dermlab.core.fingerprint import hash_bytes
from dermlab.core.records import RecordStore, prune, shard_files


def key(i: int) -> str:
    return hash_bytes(str(i).encode())


def value(i: int, shape: tuple[int, ...] = (6, 5, 3)) -> np.ndarray:
    return np.random.default_rng(i).integers(0, 256, shape, dtype=np.uint8)


def fill(folder: Path, numbers: range, **options: int) -> None:
    with RecordStore(folder, **options) as store:
        for i in numbers:
            store.append(key(i), value(i))


def assert_holds(store: RecordStore, numbers: Iterable[int]) -> None:
    rows = store.rows([key(i) for i in numbers])
    assert (rows >= 0).all()
    np.testing.assert_array_equal(store.gather(rows), np.stack([value(i) for i in numbers]))


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x10
    path.write_bytes(data)


def test_a_record_is_readable_at_once_and_after_sealing_and_by_another_store(tmp_path):
    store = RecordStore(tmp_path, shard_bytes=1000)
    for i in range(50):
        store.append(key(i), value(i))
        np.testing.assert_array_equal(store.get(int(store.rows([key(i)])[0])), value(i))
    before = store.rows([key(i) for i in range(50)])
    store.close()
    assert len(list(tmp_path.glob("*.shard"))) >= 4
    np.testing.assert_array_equal(store.rows([key(i) for i in range(50)]), before)
    other = RecordStore(tmp_path)
    assert len(other) == len(store) == 50
    assert_holds(other, range(50))
    assert other.rows([key(99), key(3)]).tolist()[0] == -1
    assert not list(tmp_path.glob("*.tmp"))


def test_rows_stay_the_same_while_the_shards_are_rewritten(tmp_path):
    for start in range(0, 30, 3):
        fill(tmp_path, range(start, start + 3))
    store = RecordStore(tmp_path)
    rows = store.rows([key(i) for i in range(30)])
    store.gather(rows[:5])
    with RecordStore(tmp_path) as other:
        other.compact()
    assert len(shard_files(tmp_path)) == 1
    np.testing.assert_array_equal(store.gather(rows), np.stack([value(i) for i in range(30)]))
    assert len(store) == 30


def test_any_string_is_a_key_and_no_two_are_confused(tmp_path):
    names = ["a", "", "a b", "é", "0" * 32, "0" * 31 + " ", "zz" * 16, "A" * 33, key(1)]
    with RecordStore(tmp_path) as store:
        for i, name in enumerate(names):
            store.append(name, np.array([i], np.int32))
    store = RecordStore(tmp_path)
    assert store.gather(store.rows(names))[:, 0].tolist() == list(range(len(names)))


def test_keys_that_share_their_first_half_are_told_apart(tmp_path):
    names = ["00" * 8 + f"{i:016x}" for i in range(40)]
    with RecordStore(tmp_path) as store:
        for i, name in enumerate(names):
            store.append(name, np.array([i]))
    store = RecordStore(tmp_path)
    assert store.gather(store.rows(names))[:, 0].tolist() == list(range(40))
    assert store.rows(["00" * 8 + f"{99:016x}"]).tolist() == [-1]


def test_records_of_any_shape_come_back_and_one_dtype_is_demanded(tmp_path):
    shapes = [(), (0,), (7,), (2, 3), (1, 2, 3, 4)]
    with RecordStore(tmp_path) as store:
        for i, shape in enumerate(shapes):
            store.append(str(i), np.full(shape, i, np.float32))
        with pytest.raises(ValueError, match="one dtype"):
            store.append("x", np.zeros(3, np.float64))
        with pytest.raises(ValueError, match="stacked"):
            store.gather(store.rows(["2", "3"]))
    store = RecordStore(tmp_path)
    for i, shape in enumerate(shapes):
        array = store.get(int(store.rows([str(i)])[0]))
        assert array.shape == shape
        assert array.dtype == np.float32
        assert (array == i).all()
        assert not array.flags.writeable


@pytest.mark.parametrize("shape", [(5,), (64, 96, 3)], ids=["small", "big"])
def test_gather_agrees_with_stacking_for_every_order_and_without_copy(tmp_path, shape):
    with RecordStore(tmp_path, shard_bytes=records._padded(int(np.prod(shape))) * 10) as store:
        for i in range(35):
            store.append(key(i), value(i, shape))
        in_memory_too = store.gather(store.rows([key(i) for i in range(35)]))
    store = RecordStore(tmp_path)
    everything = np.stack([value(i, shape) for i in range(35)])
    np.testing.assert_array_equal(in_memory_too, everything)
    order = np.random.default_rng(0).integers(0, 35, 80)
    rows = store.rows([key(int(i)) for i in order])
    np.testing.assert_array_equal(store.gather(rows), everything[order])
    out = np.empty((80, *shape), np.float32)
    assert store.gather(rows, out) is out
    np.testing.assert_array_equal(out, everything[order])
    run = store.rows([key(i) for i in range(3, 9)])
    view = store.gather(run, copy=False)
    np.testing.assert_array_equal(view, everything[3:9])
    assert not view.flags.writeable
    np.testing.assert_array_equal(store.gather(run[::-1], copy=False), everything[3:9][::-1])


def test_a_missing_row_is_a_key_error(tmp_path):
    store = RecordStore(tmp_path)
    for rows in ([-1], [0], [10**6]):
        with pytest.raises(KeyError):
            store.gather(np.array(rows))


def test_a_value_changed_after_append_does_not_change_the_record(tmp_path):
    array = value(1)
    with RecordStore(tmp_path) as store:
        store.append(key(1), array)
        array[:] = 0
        np.testing.assert_array_equal(store.get(int(store.rows([key(1)])[0])), value(1))


@pytest.mark.parametrize("region", ["data", "index", "footer"])
def test_a_flipped_byte_anywhere_is_found_and_the_record_made_again(tmp_path, region, capsys):
    fill(tmp_path, range(20))
    shard = shard_files(tmp_path)[0].path
    size = shard.stat().st_size
    offset = {"data": 128 * 7 + 3, "index": size - records.FOOTER_BYTES - 100, "footer": size - 20}[region]
    flip(shard, offset)
    store = RecordStore(tmp_path)
    rows = store.rows([key(i) for i in range(20)])
    intact = store.intact(rows)
    assert (~intact).sum() == (1 if region == "data" else 20)
    for i in np.flatnonzero(~intact):
        assert store.rows([key(int(i))]).tolist() == [-1]
        store.append(key(int(i)), value(int(i)))
    assert_holds(store, range(20))
    assert "made again" in capsys.readouterr().err
    store.close()
    reopened = RecordStore(tmp_path)
    assert_holds(reopened, range(20))
    reopened.compact()
    report = RecordStore(tmp_path).verify()
    assert (report.n_records, report.n_corrupt, report.n_superseded) == (20, 0, 0)


def test_every_single_flipped_byte_is_found(tmp_path):
    with RecordStore(tmp_path / "good") as store:
        for i in range(3):
            store.append(key(i), value(i, (8,)))
    shard = shard_files(tmp_path / "good")[0].path
    raw = shard.read_bytes()
    used = [at for at in range(len(raw)) if at >= 192 or at % 64 < 8]  # not the padding between records
    for at in random.Random(0).sample(used, 150):
        folder = tmp_path / str(at)
        folder.mkdir()
        damaged = bytearray(raw)
        damaged[at] ^= 1 << (at % 8)
        (folder / shard.name).write_bytes(damaged)
        other = RecordStore(folder)
        assert not other.intact(other.rows([key(i) for i in range(3)])).all(), f"byte {at}"


@pytest.mark.parametrize("kept", [0, 10, 500, -1])
def test_a_truncated_shard_is_found(tmp_path, kept):
    fill(tmp_path, range(20))
    shard = shard_files(tmp_path)[0].path
    shard.write_bytes(shard.read_bytes()[:kept])
    store = RecordStore(tmp_path)
    assert (store.rows([key(i) for i in range(20)]) == -1).all()
    assert len(store) == 0


def test_verify_counts_what_is_wrong(tmp_path):
    fill(tmp_path, range(10))
    fill(tmp_path, range(10, 20))
    flip(min(shard_files(tmp_path), key=lambda s: s.path).path, 0)
    report = RecordStore(tmp_path).verify()
    assert (report.n_shards, report.n_records, report.n_corrupt) == (2, 20, 1)
    assert len(report.corrupt_shards) == 1
    assert report.size_bytes == sum(s.path.stat().st_size for s in shard_files(tmp_path))


def test_failures_are_remembered_until_the_record_is_made(tmp_path):
    with RecordStore(tmp_path) as store:
        store.fail(key(1), "truncated")
        store.fail(key(2), "a bomb")
        store.append(key(3), value(3))
        assert store.failures() == {key(1): "truncated", key(2): "a bomb"}
    store = RecordStore(tmp_path)
    assert store.failures() == {key(1): "truncated", key(2): "a bomb"}
    store.append(key(1), value(1))
    store.close()
    with RecordStore(tmp_path) as store:
        store.compact()
        assert store.failures() == {key(2): "a bomb"}
    assert RecordStore(tmp_path).failures() == {key(2): "a bomb"}


def test_compacting_goes_on_where_another_process_has_taken_a_shard_away(tmp_path, monkeypatch):
    for start in (0, 5, 10):
        fill(tmp_path, range(start, start + 5))
    store = RecordStore(tmp_path)
    taken = sorted(shard.path for shard in shard_files(tmp_path))[1]
    is_dirty = store._is_dirty

    def take_away(number: int) -> bool:  # between the choice of shards and their copying
        taken.unlink(missing_ok=True)
        return is_dirty(number)

    monkeypatch.setattr(store, "_is_dirty", take_away)
    store.compact()
    assert len(shard_files(tmp_path)) == 1
    assert_holds(RecordStore(tmp_path), [*range(5), *range(10, 15)])


def test_another_process_that_sealed_is_seen_after_refresh(tmp_path):
    store = RecordStore(tmp_path)
    fill(tmp_path, range(5))
    assert (store.rows([key(i) for i in range(5)]) == -1).all()
    store.refresh()
    assert_holds(store, range(5))


def test_threads_append_and_read_while_shards_are_sealed(tmp_path):
    store = RecordStore(tmp_path, shard_bytes=2000)
    faults: list[BaseException] = []

    def work(start: int) -> None:
        try:
            for i in range(start, 400, 4):
                store.append(key(i), value(i))
                store.append(key(i // 2), value(i // 2))
                mine = store.rows([key(j) for j in range(start, i + 1, 4)])
                np.testing.assert_array_equal(store.gather(mine[-3:])[-1], value(i))
        except BaseException as fault:
            faults.append(fault)

    threads = [threading.Thread(target=work, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    store.close()
    other = RecordStore(tmp_path)
    assert len(other) == 400
    assert_holds(other, range(400))
    assert other.verify().n_superseded == 0


WRITER = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    sys.path.insert(0, sys.argv[4])
    from test_records import key, value
    from dermlab.core.records import RecordStore
    store = RecordStore(Path(sys.argv[1]), shard_bytes=4000)
    for i in range(int(sys.argv[2]), int(sys.argv[3])):
        store.append(key(i), value(i))
        if i % 50 == 0:
            print(i, flush=True)
    store.close()
    """
)


def writer(folder: Path, start: int, stop: int) -> subprocess.Popen[bytes]:
    arguments = [sys.executable, "-c", WRITER, str(folder), str(start), str(stop), str(Path(__file__).parent)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE)


def test_two_processes_write_one_store_and_a_third_reads_it_meanwhile(tmp_path):
    processes = [writer(tmp_path, 0, 600), writer(tmp_path, 300, 900)]
    store = RecordStore(tmp_path)
    while any(process.poll() is None for process in processes):
        store.refresh()
        rows = store.rows([key(i) for i in range(900)])
        for i in np.flatnonzero(rows >= 0)[::37]:
            np.testing.assert_array_equal(store.get(int(rows[i])), value(int(i)))
    assert [process.wait() for process in processes] == [0, 0]
    for process in processes:
        process.stdout.close()
    store = RecordStore(tmp_path)
    assert len(store) == 900
    assert_holds(store, range(900))
    report = store.verify()
    assert report.n_corrupt == 0
    with RecordStore(tmp_path) as other:
        other.compact()
        assert_holds(other, range(900))
    assert RecordStore(tmp_path).verify().n_records == 900


@pytest.mark.parametrize("seed", range(3))
def test_a_kill_at_any_moment_costs_at_most_the_shard_in_hand(tmp_path, seed):
    process = writer(tmp_path, 0, 100_000)
    seen = 0
    goal = random.Random(seed).randrange(100, 1500)
    while seen < goal:
        seen = int(process.stdout.readline())
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    store = RecordStore(tmp_path, shard_bytes=4000)
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".tmp")]
    kept = len(store)
    in_hand = 4000 // 90 + 1
    assert kept >= seen + 1 - in_hand
    assert_holds(store, range(kept))
    for i in range(kept, kept + 100):
        store.append(key(i), value(i))
    store.close()
    assert_holds(RecordStore(tmp_path), range(kept + 100))


def test_the_unfinished_file_of_a_dead_process_is_removed_and_of_a_living_one_is_not(tmp_path):
    dead = tmp_path / ".0-dead.shard.tmp"
    dead.write_bytes(b"half a shard")
    living = tmp_path / ".0-living.shard.tmp"
    with records._open_new(living) as file:
        file.write(b"half a shard")
        RecordStore(tmp_path)
        assert not dead.exists()
        assert living.exists()
    living.unlink()


def refuse_writes(monkeypatch, number: int) -> None:
    def full(path: Path) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(records, "_open_new", full)
    monkeypatch.setattr(records, "_warned", set())


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_disk_that_refuses_is_one_warning_and_the_run_goes_on(tmp_path, monkeypatch, capsys, number):
    fill(tmp_path, range(5))
    refuse_writes(monkeypatch, number)
    store = RecordStore(tmp_path, shard_bytes=1000)
    for i in range(100):
        store.append(key(i), value(i))
    store.close()
    assert capsys.readouterr().err.count("warning") == 1
    assert not store.writable
    assert_holds(store, range(5))
    rows = store.rows([key(i) for i in range(100)])
    kept = np.flatnonzero(rows >= 0)
    assert 5 < len(kept) < 30
    np.testing.assert_array_equal(store.gather(rows[kept]), np.stack([value(int(i)) for i in kept]))
    assert len(shard_files(tmp_path)) == 1


def test_a_folder_that_cannot_be_made_is_one_warning(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(records, "_warned", set())
    (tmp_path / "file").write_text("in the way")
    store = RecordStore(tmp_path / "file" / "store")
    store.append(key(1), value(1))
    store.close()
    assert store.rows([key(1)]).tolist() == [-1]
    assert capsys.readouterr().err.count("warning") == 1


def test_a_store_that_is_forgotten_seals_what_it_holds(tmp_path):
    store = RecordStore(tmp_path)
    store.append(key(1), value(1))
    del store
    assert_holds(RecordStore(tmp_path), range(1, 2))


def test_a_cache_emptied_under_a_running_process_is_made_again(tmp_path):
    folder = tmp_path / "store"
    fill(folder, range(10))
    store = RecordStore(folder)
    rows = store.rows([key(i) for i in range(10)])
    for shard in shard_files(folder):
        shard.path.unlink()
    folder.rmdir()
    assert not store.intact(rows).any()
    for i in range(10):
        store.append(key(i), value(i))
    store.close()
    assert_holds(RecordStore(folder), range(10))


def test_pruning_takes_the_least_recently_used_first(tmp_path):
    names = ["a", "b", "c"]
    for i, name in enumerate(names):
        fill(tmp_path / name, range(i * 10, i * 10 + 10))
    folders = [tmp_path / name for name in names]
    for days, folder in zip([5, 40, 20], folders, strict=True):
        for shard in shard_files(folder):
            os.utime(shard.path, (time.time() - days * 86400,) * 2)
    size = shard_files(folders[0])[0].size_bytes
    told = prune(folders, older_than_seconds=30 * 86400, dry_run=True)
    assert (told.n_shards, told.size_bytes) == (1, size)
    assert sum(len(shard_files(folder)) for folder in folders) == 3
    prune(folders, older_than_seconds=30 * 86400)
    assert [len(shard_files(folder)) for folder in folders] == [1, 0, 1]
    store = RecordStore(folders[2])  # reading counts as use
    store.get(int(store.rows([key(20)])[0]))
    left = prune(folders, max_bytes=size)
    assert left.kept_bytes == size
    assert [len(shard_files(folder)) for folder in folders] == [0, 0, 1]


def test_more_shards_than_a_process_may_map_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "MAX_OPEN_SHARDS", 3)
    for i in range(12):
        fill(tmp_path, range(i, i + 1))
    store = RecordStore(tmp_path)
    held = store.get(int(store.rows([key(0)])[0]))
    assert_holds(store, range(12))
    np.testing.assert_array_equal(held, value(0))


def test_a_million_keys_are_found_in_a_moment(tmp_path):
    rng = np.random.default_rng(0)
    raw = rng.integers(0, 256, (1_000_000, 16), dtype=np.uint8)
    for part in np.array_split(raw, 4):
        n = len(part)
        empty = np.empty(0, np.uint8)
        records._write_shard(tmp_path, empty, empty.dtype, part.tobytes(), [0] * n, [0] * n, [(0,)] * n, {})
    digits = raw.tobytes().hex()
    names = [digits[start : start + 32] for start in range(0, len(digits), 32)]
    clock = time.process_time  # the machine may be busy with other things
    start = clock()
    store = RecordStore(tmp_path)
    rows = store.rows(names)
    seconds = clock() - start
    assert len(store) == len(np.unique(rows)) == 1_000_000
    assert (rows >= 0).all()
    start = clock()
    table = {name: row for row, name in enumerate(names)}
    assert sum(table[name] for name in names) > 0
    assert seconds < 4 * (clock() - start)


def test_copies_of_keys_that_share_their_first_half_are_one_key_each(tmp_path):
    names = ["ab" * 8 + f"{i:016x}" for i in range(20)]
    for turn in range(3):
        with RecordStore(tmp_path / str(turn)) as store:
            for i, name in enumerate(names):
                store.append(name, np.array([i, turn]))
        for shard in shard_files(tmp_path / str(turn)):
            (tmp_path / "all").mkdir(exist_ok=True)
            shard.path.rename(tmp_path / "all" / shard.path.name)
    store = RecordStore(tmp_path / "all")
    assert len(store) == 20
    np.testing.assert_array_equal(store.gather(store.rows(names)), [[i, 2] for i in range(20)])


def test_a_record_does_not_wait_for_ever_to_be_sealed(tmp_path):
    store = RecordStore(tmp_path, seal_seconds=0.0)
    store.append(key(1), value(1))
    store.append(key(2), value(2))
    assert_holds(RecordStore(tmp_path), range(1, 3))


def test_a_shard_that_vanishes_while_it_is_not_mapped_is_a_key_error_and_then_absent(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "MAX_OPEN_SHARDS", 1)
    fill(tmp_path, range(5))
    fill(tmp_path, range(5, 10))
    store = RecordStore(tmp_path)
    rows = store.rows([key(i) for i in range(10)])
    store.gather(rows)  # checked, and the older shard is no longer mapped
    min(shard_files(tmp_path), key=lambda shard: shard.path.name).path.unlink()
    with pytest.raises(KeyError):
        store.gather(rows)
    assert (store.rows([key(i) for i in range(10)]) >= 0).sum() == 5
    for i in range(5):
        store.append(key(i), value(i))
    assert_holds(store, range(10))


def test_views_hold_records_of_different_shapes(tmp_path):
    with RecordStore(tmp_path) as store:
        for i in range(1, 6):
            store.append(key(i), value(i, (i, 3)))
    store = RecordStore(tmp_path)
    for i, view in enumerate(store.views(store.rows([key(i) for i in range(1, 6)])), 1):
        np.testing.assert_array_equal(view, value(i, (i, 3)))


def test_a_description_is_written_once(tmp_path):
    store = RecordStore(tmp_path)
    store.describe({"kind": "pixels"})
    store.describe({"kind": "something else"})
    assert '"pixels"' in (tmp_path / "meta.json").read_text()
