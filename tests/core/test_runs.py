"""A run folder holds one run of one config."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dermlab.core.config import Config
from dermlab.core.errors import DermlabError, InputError
from dermlab.core.runs import RunFolder


class Example(Config):
    seed: int = 0


def test_the_same_config_takes_the_folder_up_again(tmp_path: Path) -> None:
    RunFolder.create(tmp_path / "run", Example(), "probe").log("epoch", loss=float("nan"), n=3)
    folder = RunFolder.create(tmp_path / "run", Example(), "probe")
    assert not folder.done
    folder.finish(seconds=1.0)
    assert RunFolder.create(tmp_path / "run", Example(), "probe").done
    first = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[0])
    assert (first["event"], first["loss"], first["n"]) == ("epoch", None, 3)


def test_another_config_is_refused_and_the_difference_named(tmp_path: Path) -> None:
    RunFolder.create(tmp_path, Example(), "probe").log("fold")
    with pytest.raises(InputError, match="differs in seed"):
        RunFolder.create(tmp_path, Example(seed=1), "probe")


def test_a_run_that_never_began_gives_its_folder_up(tmp_path: Path) -> None:
    RunFolder.create(tmp_path, Example(), "probe")
    assert RunFolder.create(tmp_path, Example(seed=1), "probe").config == {"seed": 1}


def test_a_folder_with_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_text("")
    with pytest.raises(InputError, match="not empty"):
        RunFolder.create(tmp_path, Example(), "probe")


def test_a_place_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises((DermlabError, InputError)):
        RunFolder.create(tmp_path / "file" / "run", Example(), "probe")
