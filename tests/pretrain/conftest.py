"""Runs that several tests read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_runs import pretrain


@pytest.fixture(scope="session")
def dino_run(clinic: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A finished DINO run on the synthetic clinic."""
    return pretrain(clinic, tmp_path_factory.mktemp("runs") / "dino", "dino")
