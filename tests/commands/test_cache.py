"""``dermlab data cache`` and ``dermlab cache``: built once, shown truly, verified, pruned."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dermlab.commands.cache import CacheConfig, bytes_text
from dermlab.commands.cache import run as cache
from dermlab.commands.data_cache import DataCacheConfig
from dermlab.commands.data_cache import run as data_cache
from dermlab.core.errors import InputError
from dermlab.core.records import RecordStore, shard_files
from dermlab.data import pixel_cache


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DERMLAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data set of eight photos, one of which is a web page."""
    from dermlab.data.card import Card, Target
    from dermlab.data.dataset import Dataset

    folder = tmp_path / "clinic"
    (folder / "images").mkdir(parents=True)
    names = [f"images/{i}.png" for i in range(8)]
    for i, name in enumerate(names):
        array = np.random.default_rng(i).integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(array).save(folder / name)
    (folder / names[5]).write_bytes(b"<html>gone</html>")
    frame = pd.DataFrame({"image_id": [str(i) for i in range(8)], "path": names, "dx": ["a", "b"] * 4})
    Dataset.write(folder, frame, Card(name="tiny", targets=(Target(column="dx", classes=("a", "b")),)))
    return folder


def test_the_cache_is_built_once_and_the_unreadable_are_counted(root, folder):
    first = data_cache(DataCacheConfig(folder=folder, size=16))
    assert (first.n_images, first.n_decoded, first.n_failed) == (8, 8, 1)
    assert any("1 × a web page" in line for line in first.lines())
    pixel_cache._open_stores.clear()
    second = data_cache(DataCacheConfig(folder=folder, size=16))
    assert (second.n_decoded, second.n_failed) == (0, 1)
    assert second.store_bytes == first.store_bytes == sum(s.size_bytes for s in shard_files(first.store))


def test_a_stated_budget_turns_raw_pixels_into_jpeg(root, folder):
    assert data_cache(DataCacheConfig(folder=folder, size=16, budget=1)).recipe["codec"] == "raw"
    assert data_cache(DataCacheConfig(folder=folder, size=16, budget=1e-6)).recipe["codec"] == "jpeg95"


def test_short_with_a_crop_fraction_is_one_clear_line(root, folder):
    with pytest.raises(InputError, match="crop_fraction"):
        data_cache(DataCacheConfig(folder=folder, size=16, fit="short", crop_fraction=0.5))


def test_every_store_is_shown_with_its_description(root, folder):
    assert cache(CacheConfig()).lines()[0].endswith("0 B in 0 stores")
    data_cache(DataCacheConfig(folder=folder, size=16))
    with RecordStore(root / "features" / "abc") as store:
        store.describe({"kind": "features", "encoder": {"name": "resnet50"}})
        store.append("x", np.zeros(4, np.float32))
    result = cache(CacheConfig())
    assert [(s.kind, s.name, s.n_records, s.n_failures) for s in result.stores] == [
        ("pixels", "16 px crop, bicubic, raw", 7, 1),
        ("features", "resnet50", 1, 0),
    ]
    assert len(cache(CacheConfig(kind="features")).stores) == 1
    assert result.exit_status == 0


def test_verifying_finds_a_flipped_byte_drops_it_and_says_so_by_the_exit_status(root, folder):
    store = data_cache(DataCacheConfig(folder=folder, size=16)).store
    (shard,) = shard_files(store)
    data = bytearray(shard.path.read_bytes())
    data[100] ^= 1
    shard.path.write_bytes(data)
    found = cache(CacheConfig(verify=True))
    assert (found.exit_status, found.stores[0].n_corrupt, found.stores[0].n_records) == (1, 1, 6)
    again = cache(CacheConfig(verify=True))
    assert (again.exit_status, again.stores[0].n_corrupt) == (0, 0)
    pixel_cache._open_stores.clear()
    assert data_cache(DataCacheConfig(folder=folder, size=16)).n_decoded == 1


def test_pruning_goes_by_last_use_and_can_be_tried_without_doing_it(root, folder):
    old = data_cache(DataCacheConfig(folder=folder, size=16)).store
    data_cache(DataCacheConfig(folder=folder, size=24))
    for shard in shard_files(old):
        os.utime(shard.path, (time.time() - 40 * 86_400,) * 2)
    tried = cache(CacheConfig(prune=True, older_than=30, dry_run=True))
    assert tried.removed_shards == 1
    assert len(tried.stores) == 2
    done = cache(CacheConfig(prune=True, older_than=30))
    assert done.removed_bytes == tried.removed_bytes
    assert [store.name for store in done.stores] == ["24 px crop, bicubic, raw"]
    assert cache(CacheConfig(prune=True, max_size=0)).stores == ()


def test_pruning_needs_to_be_told_what(root):
    with pytest.raises(InputError, match="--older-than"):
        cache(CacheConfig(prune=True))
    with pytest.raises(InputError, match="--prune"):
        cache(CacheConfig(max_size=3))


def test_sizes_are_written_for_people():
    assert [bytes_text(n) for n in (0, 999, 1500, 250_000, 3.2e9, 4.5e12)] == [
        "0 B",
        "999 B",
        "1.5 kB",
        "250 kB",
        "3.2 GB",
        "4.5 TB",
    ]
