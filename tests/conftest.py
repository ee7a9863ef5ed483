"""The one fixture world: a tiny synthetic clinic, a private cache, and the shared real photos where they are."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

# Set before any dermlab module reads them, in every pytest-xdist worker of its own.
_CACHE = tempfile.TemporaryDirectory(prefix="dermlab-tests-")
os.environ["DERMLAB_CACHE"] = _CACHE.name
os.environ.pop("DERMLAB_WEIGHTS", None)
os.environ.setdefault("HF_HUB_OFFLINE", "1")

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real photos beside the checkout (see its README for licences); nothing of it is copied into the project."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"the shared data folder {SHARED_DATA} is not here")
    return SHARED_DATA


@pytest.fixture(scope="session")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic clinic of 160 photos at 64 px with the splits ``main`` and ``folds3``."""
    from dermlab.data.splits import split_by_folds, split_by_fraction
    from dermlab.data.synthetic import make_clinic

    folder = tmp_path_factory.mktemp("world") / "clinic"
    dataset = make_clinic(folder, n=160, size_px=64, seed=7)
    dataset.write_split("main", split_by_fraction(dataset, (0.6, 0.2, 0.2), seed=0))
    dataset.write_split("folds3", split_by_folds(dataset, 3, seed=0))
    return folder


@pytest.fixture(autouse=True)
def _progress_speaks() -> None:
    from dermlab.core import progress

    progress.set_quiet(False)
