"""What tests of fine-tuning share: lesions of two photos, and commands in processes that can be killed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from finetune_runs import Jobs

from dermlab.adapt.finetune import curves
from dermlab.data.dataset import Dataset
from dermlab.data.splits import split_by_fraction


@pytest.fixture(scope="session")
def pairs(clinic: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The clinic's photos two by two, a clinical and a dermoscopic one of a lesion; every fifth has no second."""
    source = Dataset.open(clinic)
    column = source.card.target(None).column
    rows, n = [], 0
    manifest = source.manifest.sort_values(column, kind="stable")
    for _, group in manifest[manifest[column].notna()].groupby(column):
        for place in range(0, len(group) - 1, 2):
            for number, modality in enumerate(("clinical", "dermoscopy")):
                if number == 0 or n % 5:
                    row = group.iloc[place + number].to_dict()
                    rows.append({**row, "lesion_id": f"lesion{n}", "patient_id": f"patient{n}", "modality": modality})
            n += 1
    frame = pd.DataFrame(rows)[[*manifest.columns.drop(["modality"], errors="ignore"), "modality"]]
    folder = tmp_path_factory.mktemp("pairs") / "clinic"
    card = source.card.model_copy(update={"unit": "lesion"})
    made = Dataset.write(folder, frame, card)
    for old, new in zip([source.folder / path for path in frame["path"]], made.paths, strict=True):
        new.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(old, new)
    made.write_split("main", split_by_fraction(made, (0.6, 0.2, 0.2), seed=0))
    return folder


@pytest.fixture(scope="session")
def in_processes(tmp_path_factory: pytest.TempPathFactory) -> Jobs:
    """Run jobs of ``processes.py`` one after the other, modules imported before; of each job every process's answer."""

    def run(jobs: list[dict[str, Any]], *modules: str) -> list[list[dict[str, Any]]]:
        file = tmp_path_factory.mktemp("jobs") / "jobs.json"
        file.write_text(json.dumps(jobs, default=str))
        script = Path(__file__).with_name("processes.py")
        words = [sys.executable, str(script), str(file), *modules]
        done = subprocess.run(words, capture_output=True, text=True, timeout=280, check=False)
        assert done.returncode == 0, done.stderr
        answers: list[list[dict[str, Any]]] = json.loads(file.with_suffix(".answers").read_text())
        return answers

    return run


@pytest.fixture(autouse=True)
def _no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the pictures of training curves to the runs of fixtures: they take longer than a toy's training."""
    monkeypatch.setattr(curves, "draw_curves", lambda *_: [])
