"""``dermlab data import`` and ``dermlab data split`` as a person types them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from dermlab.cli import main
from dermlab.data.dataset import Dataset


@pytest.fixture
def export(tmp_path) -> Path:
    """Ninety photos of thirty patients at three clinics, over a year, with a table."""
    rng = np.random.default_rng(0)
    root = tmp_path / "export"
    (root / "pics").mkdir(parents=True)
    patient = np.arange(90) // 3
    frame = pd.DataFrame(
        {
            "photo": [f"P{k:02d}" for k in range(90)],
            "patient": [f"pat{k}" for k in patient],
            "diagnosis": rng.choice(["bcc", "mel", "nv"], 90, p=[0.3, 0.2, 0.5]),
            "age": rng.integers(20, 90, 90),
            "itch": rng.choice(["yes", "no", ""], 90),
            "hospital": np.array(["Graz", "Lyon", "Oslo"])[patient % 3],
            "date": (pd.Timestamp("2023-01-01") + pd.to_timedelta(patient * 12, unit="D")).strftime("%Y-%m-%d"),
        }
    )
    for name in frame["photo"]:
        Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)).save(root / "pics" / f"{name}.jpg")
    (root / "pics" / "P07.jpg").write_bytes(b"")
    (root / "pics" / "P08.jpg").unlink()
    frame.to_csv(root / "export.csv", sep=";", index=False)
    return root


def run(*words: object) -> int:
    return main([str(word) for word in words])


def out_of(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out


def test_an_import_says_what_it_found_and_what_to_do_next(export, tmp_path, capsys):
    assert (
        run(
            "data",
            "import",
            "csv",
            export,
            "--out",
            tmp_path / "set",
            "--licence",
            "CC-BY-4.0",
            "--modality",
            "clinical",
        )
        == 0
    )
    text = out_of(capsys)
    assert f"{tmp_path / 'set'}: 88 images of 30 patients" in text
    assert "target diagnosis: bcc " in text
    assert "age   numeric" in text
    assert "itch  boolean, " in text
    assert "set aside: 2, listed in " in text
    assert "1 × no such file" in text
    assert "1 × empty file" in text
    assert "licence: CC-BY-4.0" in text
    assert f"next: dermlab data check {tmp_path / 'set'}" in text
    dataset = Dataset.open(tmp_path / "set")
    assert dataset.card.licence == "CC-BY-4.0"
    assert set(dataset.manifest["modality"]) == {"clinical"}
    assert dataset.quarantine["path"].tolist() == ["P08", "pics/P07.jpg"]


def test_json_and_yaml_say_the_same(export, tmp_path, capsys):
    config = tmp_path / "import.yaml"
    fields = {
        "source": "csv",
        "path": str(export),
        "out": str(tmp_path / "set"),
        "metadata_columns": ["age"],
        "unit": "patient",
    }
    config.write_text(yaml.safe_dump(fields))
    assert run("data", "import", "--config", config, "--json") == 0
    found = json.loads(out_of(capsys))
    assert (found["n_images"], found["n_patients"], found["n_missing_files"], found["n_quarantined"]) == (88, 30, 1, 2)
    assert found["licence"] is None
    assert [column["column"] for column in found["columns"]] == ["age"]
    assert Dataset.open(tmp_path / "set").card.unit == "patient"


def test_an_unknown_licence_is_said_to_be_unknown(export, tmp_path, capsys):
    run("data", "import", "csv", export, "--out", tmp_path / "set")
    assert "licence: unknown, which never counts as fine" in out_of(capsys)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["imagefolders"], "no source 'imagefolders'; did you mean 'imagefolder'"),
        (["folder", "--patient_column", "x"], "takes no --patient_column"),
        (["csv", "--label_column", "dx"], "no column 'dx'; there is photo, patient, diagnosis"),
        (["csv", "--classes", "bcc,mel"], "row "),
        (["csv", "--unit", "lesion"], "unit: scoring by lesion needs the column 'lesion_id'"),
        (["csv", "--group_by", "room"], "group_by: manifest.parquet has no column 'room'"),
        (["csv", "--images", "symlink"], "images: Input should be 'copy' or 'hardlink'"),
    ],
)
def test_a_wrong_turn_is_one_line_and_exit_2(export, tmp_path, capsys, words, message):
    source, *options = words
    assert run("data", "import", source, export, "--out", tmp_path / "set", *options) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert len(lines) == 1
    assert message in lines[0]


@pytest.fixture
def dataset(export, tmp_path, capsys) -> Path:
    run("data", "import", "csv", export, "--out", tmp_path / "set")
    capsys.readouterr()
    return tmp_path / "set"


def test_a_split_prints_its_balance_and_is_written(dataset, capsys):
    assert run("data", "split", dataset, "--seed", 3) == 0
    text = out_of(capsys)
    assert "30 groups by patient_id, none divided" in text
    assert "  train  " in text
    assert "farthest from the whole: " in text
    assert "--split main" in text
    split = Dataset.open(dataset).read_split("main")
    patients = Dataset.open(dataset).manifest["patient_id"]
    assert split["split"].groupby(patients).nunique().max() == 1


def test_a_split_is_not_replaced_by_another_unasked(dataset, capsys):
    assert run("data", "split", dataset) == 0
    assert run("data", "split", dataset) == 0  # the same one
    capsys.readouterr()
    assert run("data", "split", dataset, "--seed", 1) == 2
    assert "the split 'main' exists and is another one; --name" in capsys.readouterr().err
    assert run("data", "split", dataset, "--seed", 1, "--name", "second") == 0
    assert run("data", "split", dataset, "--seed", 1, "--overwrite") == 0
    opened = Dataset.open(dataset)
    assert opened.split_names() == ["main", "second"]
    assert opened.read_split("main").equals(opened.read_split("second"))


def test_folds_sites_and_dates_have_their_own_names(dataset, capsys):
    assert run("data", "split", dataset, "--folds", 3, "--repeats", 2, "--json") == 0
    found = json.loads(out_of(capsys))
    assert (found["name"], found["n_groups"], len(found["balance"])) == ("folds3x2", 30, 18)
    assert run("data", "split", dataset, "--by-site") == 0
    assert "fold 1 tests on the site Lyon" in out_of(capsys)
    assert run("data", "split", dataset, "--by-date", "--fractions", "0.5,0.25,0.25") == 0
    assert Dataset.open(dataset).split_names() == ["by_date", "by_site", "folds3x2"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--folds", "3", "--by-site"], "folds and by_site are two ways to split; choose one"),
        (["--repeats", "2"], "repeats needs folds"),
        (["--folds", "3", "--fractions", "0.5,0.3,0.2"], "fractions does not go with folds"),
        (["--fractions", "0.5,0.5"], "three shares for train, val and test"),
        (["--by", "room"], "no column 'room' to group by; there is image_id, patient_id"),
        (["--target", "stage"], "no target 'stage'; there is diagnosis"),
        (["--folds", "40"], "30 groups are too few for 40 folds"),
        (["--name", "../x"], "cannot be a split's name"),
    ],
)
def test_a_wrong_split_is_one_line_and_exit_2(dataset, capsys, words, message):
    assert run("data", "split", dataset, *words) == 2
    assert message in capsys.readouterr().err
    assert Dataset.open(dataset).split_names() == []
