"""``dermlab finetune`` as a person types it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

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
