"""``dermlab finetune`` as a person types it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dermlab.cli import main

RECIPE = """encoder: timm:test_resnet+random
size_px: 32
frozen_epochs: 1
finetune_epochs: 1
batch_size: 32
max_train_samples: 64
precision: fp32
n_boot: 100
"""


def test_a_recipe_file_becomes_a_run_and_the_command_line_wins(clinic: Path, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    words = ["finetune", str(clinic), "--config", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "run")]
    assert main([*words, "--finetune_epochs", "0", "--json"]) == 0
    told = capsys.readouterr()
    result = json.loads(told.out)
    assert result["metrics"]["n"] > 0
    assert "training the head alone" in told.err
    assert main(words) == 2
    assert "differs in finetune_epochs" in capsys.readouterr().err


def test_a_wrong_recipe_is_one_line(clinic: Path, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE + "learning_rat: 1\n")
    words = ["finetune", str(clinic), "--config", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "run")]
    assert main(words) == 2
    assert "learning_rat" in capsys.readouterr().err


def test_predict_gives_a_tuned_runs_own_test_rows(clinic: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    run, out = tmp_path / "run", tmp_path / "table.parquet"
    assert main(["finetune", str(clinic), "--config", str(tmp_path / "recipe.yaml"), "--out", str(run)]) == 0
    assert main(["predict", str(run), str(clinic), "--out", str(out), "--split", "main"]) == 0
    own = pd.read_parquet(run / "predictions.parquet").query("split == 'test'").set_index("image_id")
    found = pd.read_parquet(out).set_index("image_id").loc[own.index]
    columns = [name for name in own if name.startswith("p:")]
    np.testing.assert_allclose(found[columns], own[columns], atol=1e-5)
    assert not found["seen_in_training"].any()
