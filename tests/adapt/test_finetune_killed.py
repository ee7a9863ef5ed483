"""Runs that are killed by SIGKILL, run out of disk or lose their data: the same command ends them bit for bit alike."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from finetune_runs import TOY, Jobs, assert_bit_equal, command

from dermlab.core.files import read_json

FULL = TOY | {"encoder": "timm:test_resnet+random", "ema_decay": 0.9, "mixup": 0.2, "cutmix": 1.0}
FULL |= {"head": "fusion", "dropout": 0.2}
CASES = TOY | {"encoder": "timm:test_vit+random", "case": "lesion", "modalities": ["clinical", "dermoscopy"]}
CASES |= {"case_pooling": "attention", "lora": {"rank": 2, "targets": ["qkv"]}, "batch_size": 16}


KILLS: dict[str, tuple[dict[str, Any], list[list[Any]]]] = {
    # Each kill is of the process that went on from the one before.
    "whole": (
        FULL,
        # Within an epoch of 3 steps; between the phases; while a file is written; before an epoch's end is saved; after
        # its best is and before its last; within the last epoch; when all is trained and nothing told.
        [["step", 2], ["phase", 2], ["saving", 1], ["epoch", 1], ["best", 1], ["step", 2], ["summary", 1]],
    ),
    "cases": (CASES, [["step", 5], ["saving", 4]]),
}


@pytest.fixture(scope="module")
def ends(
    in_processes: Jobs, clinic: Path, pairs: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Path, list[dict[str, Any]]]]:
    """Everything that befalls a run in this file, in one go: the folder and what its processes answered."""
    folder = tmp_path_factory.mktemp("ends")
    jobs: list[dict[str, Any]] = []
    of: list[str] = []

    def add(name: str, words: list[str], **befalls: Any) -> None:
        jobs.append({"command": words, **befalls})
        of.append(name)

    for name, (recipe, kills) in KILLS.items():
        data = clinic if name == "whole" else pairs
        add(name, command(folder, data, folder / name, recipe))
        killed = command(folder, data, folder / f"{name}-killed", recipe)
        for end in kills:
            add(f"{name}-killed", killed, end=end, event="kill")
        add(f"{name}-killed", killed)
    # One run after whose full disk the data folder is gone, and then a file stands where its checkpoints were: root may
    # write everywhere, but not below a file.
    data, away = folder / "data", folder / "away"
    shutil.copytree(clinic, data)
    (folder / "a file").write_text("a file")
    place, kept, file = folder / "faults" / "checkpoints", folder / "kept", folder / "a file"
    faults = command(folder, data, folder / "faults", FULL)
    add("faults", faults, end=["step", 5], event="full", bytes=30_000)
    add("faults", faults, rename=[(data, away)])
    add("faults", faults, rename=[(away, data), (place, kept), (file, place)])
    add("faults", faults, rename=[(place, file), (kept, place)])
    add("faults", command(folder, data, file / "run", FULL))
    add("gone", command(folder, data, folder / "gone", FULL), end=["step", 5], event="vanish", folder=data)
    answers = in_processes(jobs, "peft")
    told: dict[str, tuple[Path, list[dict[str, Any]]]] = {}
    for name, (answer,) in zip(of, answers, strict=True):
        told.setdefault(name, (folder / name, []))[1].append(answer)
    return told


@pytest.mark.parametrize("name", KILLS)
def test_a_run_killed_again_and_again_ends_bit_equal_to_one_never_killed(ends: Any, name: str) -> None:
    run, answers = ends[f"{name}-killed"]
    assert [answer["status"] for answer in answers] == [-9] * len(KILLS[name][1]) + [0], answers[-1]["said"]
    assert ends[name][1][0]["status"] == 0
    assert_bit_equal(run, ends[name][0])


def test_a_full_disk_and_folders_that_are_gone_or_blocked_are_one_line_and_checkpoints_stay(ends: Any) -> None:
    run, answers = ends["faults"]
    full, gone, blocked, again, nowhere = answers
    for answer, named in (
        (full, run / "checkpoints"),
        (gone, run.with_name("data")),
        (blocked, run / "checkpoints"),
        (nowhere, run.with_name("a file")),
    ):
        assert answer["status"] in (2, 3)
        assert "Traceback" not in answer["said"]
        (line,) = [line for line in answer["said"].splitlines() if line.startswith("error")]
        assert "unexpected" not in line
        assert str(named) in line
    assert again["status"] == 0
    assert "going on from epoch" in again["said"]
    assert_bit_equal(run, ends["whole"][0])


def test_a_data_folder_that_vanishes_under_way_is_not_missed(ends: Any) -> None:
    run, (during,) = ends["gone"]
    assert during["status"] == 0, during["said"]
    assert_bit_equal(run, ends["whole"][0])
    place = Path("checkpoints", "repeat0-fold0", "seen.json")
    assert read_json(run / place) == read_json(ends["whole"][0] / place)
