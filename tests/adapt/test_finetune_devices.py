"""Two processes by gloo are one with the whole batch, where there is no BatchNorm; what happens when one is gone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from finetune_runs import TOY, Jobs, assert_bit_equal, checkpoints, command

VIT = TOY | {"encoder": "timm:test_vit+random", "frozen_epochs": 0, "finetune_epochs": 4, "patience": None}
VIT |= {"max_train_samples": 69, "max_val_samples": 16, "questionnaire_dropout": 0.3}
# 69 photos in batches of 16: the last of each epoch's 5 steps has 5, 3 for one process and 2 for the other.
RECIPES: dict[str, dict[str, Any]] = {
    "plain": VIT | {"batch_size": 16},
    "weighted": VIT
    | {"finetune_epochs": 2, "batch_size": 16, "class_weight": "balanced", "head": "fusion", "label_smoothing": 0.1},
    "accumulated": VIT
    | {"finetune_epochs": 2, "batch_size": 8, "accumulate": 2, "class_weight": "balanced", "sampling": "balanced"},
}


def of_two(recipe: dict[str, Any]) -> dict[str, Any]:
    return recipe | {"batch_size": recipe["batch_size"] // 2, "devices": 2}


@pytest.fixture(scope="module")
def ends(in_processes: Jobs, clinic: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Every job of this file: of each name the folder and, job by job, what its processes answered."""
    folder = tmp_path_factory.mktemp("devices")
    jobs: list[dict[str, Any]] = []
    of: list[str] = []

    def add(name: str, recipe: dict[str, Any], **more: Any) -> None:
        jobs.append({"command": command(folder, clinic, folder / name, recipe), **more})
        of.append(name)

    for name, recipe in RECIPES.items():
        add(name, recipe)
        add(f"{name}-two", of_two(recipe), processes=2)
    for rank, end in ((1, ["step", 7]), (0, ["saving", 3])):
        add("weighted-killed", of_two(RECIPES["weighted"]), processes=2, end=end, event="kill", rank=rank)
    add("weighted-killed", of_two(RECIPES["weighted"]), processes=2)
    norms = of_two(RECIPES["plain"]) | {"encoder": "timm:test_resnet+random", "finetune_epochs": 1}
    add("norms", norms | {"rate_scaling": "sqrt"}, processes=2)
    told: dict[str, tuple[Path, list[list[dict[str, Any]]]]] = {}
    for name, answer in zip(of, in_processes(jobs), strict=True):
        told.setdefault(name, (folder / name, []))[1].append(answer)
    return told


@pytest.mark.parametrize("name", RECIPES)
def test_two_processes_have_the_losses_and_weights_of_one_with_the_whole_batch(ends: Any, name: str) -> None:
    (one,) = ends[name][1][0]
    both = ends[f"{name}-two"][1][0]
    assert [answer["status"] for answer in (one, *both)] == [0, 0, 0], both[0]["said"]
    assert len(one["losses"]) == 5 * RECIPES[name]["finetune_epochs"]
    for answer in both:
        assert answer["losses"] == pytest.approx(one["losses"], abs=1e-4)
    single, double = (checkpoints(ends[which][0])["last"] for which in (name, f"{name}-two"))
    for key, value in single[0].items():
        if key.startswith("network/"):
            torch.testing.assert_close(double[0][key], value, atol=1e-3, rtol=1e-3)
    for a, b in zip(single[1]["course"]["history"], double[1]["course"]["history"], strict=True):
        assert b["train_loss"] == pytest.approx(a["train_loss"], abs=1e-4)
        assert b["val_loss"] == pytest.approx(a["val_loss"], abs=1e-3)


def test_the_first_process_alone_speaks_and_says_what_several_devices_change(ends: Any) -> None:
    first, second = ends["norms"][1][0]
    assert first["status"] == second["status"] == 0
    assert "2 devices × 8 × 1 accumulated: 16 photos or cases a step; rates × 1.41421" in first["said"]
    assert "BatchNorm's statistics are of each device's own part" in first["said"]
    assert "BatchNorm" not in ends["plain-two"][1][0][0]["said"]
    for answers in (ends["norms"][1][0], ends["plain-two"][1][0]):
        assert answers[1]["said"] == ""
        lines = answers[0]["said"].splitlines()
        assert len(lines) == len(set(lines))


def test_a_process_that_vanishes_ends_the_other_with_one_line_and_the_run_goes_on(ends: Any) -> None:
    run, jobs = ends["weighted-killed"]
    for answers, killed in zip(jobs[:2], (1, 0), strict=True):
        assert answers[killed]["status"] == -9
        left = answers[1 - killed]
        assert left["status"] == 3
        assert "Traceback" not in left["said"]
        errors = [line for line in left["said"].splitlines() if line.startswith("error")]
        assert len(errors) == 1
        assert "another of the 2 processes has ended" in errors[0]
        assert len(errors[0]) < 250
    assert [answer["status"] for answer in jobs[2]] == [0, 0]
    assert_bit_equal(run, ends["weighted-two"][0])
