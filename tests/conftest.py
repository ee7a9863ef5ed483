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


@pytest.fixture(scope="session")
def histogram_run(clinic: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished probe of nobody's weights on the synthetic clinic."""
    return _probe(clinic, "histogram", tmp_path_factory.mktemp("runs") / "histogram")


@pytest.fixture(scope="session")
def own_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder folder as pretraining leaves it, whose card says that its weights have seen HAM10000."""
    from dermlab.models import create_encoder
    from dermlab.pretrain.export import export_encoder

    folder = tmp_path_factory.mktemp("own") / "encoder"
    encoder, _ = create_encoder("timm:test_resnet+random", size_px=32)
    said = {"cautions": ["trained for two minutes"], "told": "made in a test"}
    return export_encoder(encoder, folder, name="own weights", made_from=["ham10000"], **said)


@pytest.fixture(scope="session")
def encoder_run(clinic: Path, own_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished probe on that encoder."""
    return _probe(clinic, str(own_encoder), tmp_path_factory.mktemp("runs") / "encoder")


def _probe(clinic: Path, encoder: str, out: Path) -> Path:
    from dermlab.adapt.config import HeadConfig, ProbeSettings
    from dermlab.adapt.probe import run_probe
    from dermlab.data.dataset import Dataset

    settings = ProbeSettings(encoder=encoder, head=HeadConfig(kind="linear"), split="main", n_boot=100)
    return run_probe(Dataset.open(clinic), settings, out).path
