"""``redraw``, ``across`` and training seeds in ``compare``, as a person or a script uses them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

import dermlab
from dermlab.cli import main
from dermlab.core.errors import InputError


@pytest.fixture
def tables(tmp_path: Path) -> list[str]:
    """Two CSVs of 300 photos of 100 patients, as another tool writes them."""
    random = np.random.default_rng(0)
    label = random.integers(0, 2, 300)
    paths = []
    for name, skill in (("old", 1.0), ("new", 1.4)):
        chance = 1 / (1 + np.exp(-(2 * label - 1) * skill - random.normal(size=300)))
        frame = pd.DataFrame({"image_id": range(300), "label": np.array(["ben", "mal"])[label], "p": chance})
        frame.assign(patient=np.arange(300) // 3).to_csv(tmp_path / f"{name}.csv", index=False)
        paths.append(str(tmp_path / f"{name}.csv"))
    return paths


def test_small_test_sets_are_redrawn_from_anyones_tables(
    tables: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["redraw", *tables, "--probability", "p", "--classes", "ben,mal", "--group", "patient", "--n", "60"]
    assert main([*words, "--draws", "200", "--sizes", "30,120", "--out", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert "200 test sets of 60 units, classes in proportion" in out
    assert "new − old" in out
    found = json.loads((tmp_path / "out" / "redraw.json").read_text())
    assert [one["n"] for one in found["sizes"]] == [30, 60, 120]
    assert (found["n"], found["n_groups"], found["group_by"]) == (300, 100, "patient")
    assert main([*words, "--n", "301"]) == 2
    assert "301 units cannot be drawn" in capsys.readouterr().err


def results(models: list[str]) -> pd.DataFrame:
    random = np.random.default_rng(1)
    values = random.normal(size=(9, len(models))) * 0.02 + np.linspace(0.9, 0.6, len(models))
    return pd.DataFrame(values, columns=models, index=pd.Index([f"set{k}" for k in range(9)], name="dataset"))


def test_models_over_data_sets_long_and_wide(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wide = results(["clip", "lite0", "knn & <b>", "majority"])
    wide.to_csv(tmp_path / "wide.csv")
    long = wide.melt(ignore_index=False, var_name="model", value_name="value").reset_index()
    long.sample(frac=1, random_state=0).to_csv(tmp_path / "long.csv", index=False)
    assert main(["across", str(tmp_path / "wide.csv"), "--out", str(tmp_path / "out")]) == 0
    assert "4 models on 9 data sets; Friedman" in capsys.readouterr().out
    found = json.loads((tmp_path / "out" / "across.json").read_text())
    other: Any = dermlab.across((tmp_path / "long.csv",))
    assert {model["name"]: model["mean_rank"] for model in found["models"]} == {
        model["name"]: model["mean_rank"] for model in other.found["models"]
    }
    svg = (tmp_path / "out" / "across.svg").read_bytes()
    drawn = " ".join(ElementTree.fromstring(svg).itertext())
    for model in found["models"]:
        assert model["name"] in drawn
    assert f"critical difference {found['critical_difference']:.2f}" in drawn
    assert (tmp_path / "out" / "across.png").read_bytes()[:4] == b"\x89PNG"
    assert main(["across", str(tmp_path / "wide.csv"), "--out", str(tmp_path / "again")]) == 0
    assert (tmp_path / "again" / "across.svg").read_bytes() == svg


def test_folders_of_results_are_read(tmp_path: Path) -> None:
    wide = results(["clip", "lite0"])
    for dataset, row in wide.iterrows():
        (tmp_path / str(dataset)).mkdir()
        board = pd.DataFrame({"candidate": row.index, "macro_f1": row.to_numpy(), "auroc": 0.5})
        board.to_csv(tmp_path / str(dataset) / "leaderboard.csv", index=False)
        for model, value in row.items():
            folder = tmp_path / "runs" / str(dataset) / str(model)
            folder.mkdir(parents=True)
            (folder / "metrics.json").write_text(json.dumps({"macro_f1": {"value": value}}))
    boards: Any = dermlab.across(tuple(tmp_path / name for name in wide.index))
    runs: Any = dermlab.across(tuple(sorted((tmp_path / "runs").glob("*/*"))))
    assert boards.found["pairs"] == runs.found["pairs"]
    assert boards.found["models"][0]["name"] == "clip"
    assert not boards.written
    with pytest.raises(InputError, match="no column 'top1'"):
        dermlab.across((tmp_path / "set0",), metric="top1")
    with pytest.raises(InputError, match=r"neither leaderboard\.csv nor metrics\.json"):
        dermlab.across((tmp_path / "runs", tmp_path / "set0"))


def test_tables_that_cannot_be_read_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = {
        "dataset,model,value\nx,a,.5\nx,a,.6\n": "row 3",
        "set,a,b\nx,1,2\n": "no column 'dataset'",
        "dataset,a,b\nx,1,two\ny,1,2\n": "'two' of b on x is not a number",
        "dataset,a,b\nx,1,\ny,1,2\n": "no value of b on x",
    }
    for text, told in wrong.items():
        (tmp_path / "t.csv").write_text(text)
        assert main(["across", str(tmp_path / "t.csv")]) == 2
        assert told in capsys.readouterr().err


def test_compare_sets_seeds_beside_patients_where_tables_carry_them(
    tables: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    random, stacked = np.random.default_rng(0), []
    for path in tables:
        frame = pd.read_csv(path)
        runs = [
            frame.assign(seed=seed, p=np.clip(frame["p"] + 0.1 * random.normal(size=300), 0, 1)) for seed in range(3)
        ]
        stacked.append(str(tmp_path / f"{Path(path).stem}_seeds.csv"))
        pd.concat(runs).to_csv(stacked[-1], index=False)
    options = ["--probability", "p", "--classes", "ben,mal", "--group", "patient", "--metrics", "auroc,sens@spec=0.8"]
    words = ["compare", *stacked, *options, "--n_boot", "200", "--n_permutations", "99", "--out", str(tmp_path / "cmp")]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert out.startswith("recipes, over training seeds and 100 groups (patient), 300 units")
    assert out.index(" better") < out.index("these trained models only (narrower") < out.index("300 units of 100")
    found = json.loads((tmp_path / "cmp" / "seeds.json").read_text())
    assert [recipe["n_seeds"] for recipe in found["recipes"]] == [3, 3]
    assert [entry["metric"] for entry in found["comparisons"]] == ["auroc", "sens@spec=0.8"]
    words[1:3] = tables
    assert main([*words[:-1], str(tmp_path / "plain")]) == 0
    assert "training seeds" not in capsys.readouterr().out
    assert not (tmp_path / "plain" / "seeds.json").exists()
