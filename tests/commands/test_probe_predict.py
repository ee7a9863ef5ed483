"""``dermlab probe`` and ``dermlab predict`` from the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from dermlab.cli import main
from dermlab.data.dataset import Dataset
from dermlab.evaluate.predictions import read_predictions


@pytest.fixture(scope="module")
def run(clinic: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("probe") / "run"
    words = ["probe", str(clinic), "--encoder", "histogram", "--head", "linear", "--out", str(out), "--n_boot", "100"]
    assert main(words) == 0
    return out


def test_probe_prints_json_with_metrics(run: Path, clinic: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["probe", str(clinic), "--encoder", "histogram", "--head", "linear", "--out", str(run), "--n_boot", "100"]
    assert main([*words, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["metrics"]["top1"]["value"] == json.loads((run / "metrics.json").read_text())["top1"]["value"]


def test_a_patient_in_two_parts_stops_a_probe_unless_it_is_waived(
    clinic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "clinic"
    shutil.copytree(clinic, folder)
    dataset = Dataset.open(folder)
    split = dataset.read_split("main")
    groups = dataset.groups().tolist()
    first, second = [i for i, group in enumerate(groups) if group == max(groups, key=groups.count)][:2]
    split.loc[[first, second], "split"] = ["train", "test"]
    dataset.write_split("leaky", split)
    words = ["probe", str(folder), "--head", "majority", "--split", "leaky", "--n_boot", "100"]
    assert main([*words, "--out", str(tmp_path / "a")]) == 2
    assert "waive: [group-overlap]" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()
    assert main([*words, "--out", str(tmp_path / "b"), "--waive", "group-overlap", "--json"]) == 0
    assert "waived: group-overlap" in json.loads(capsys.readouterr().out)["warnings"]


def test_a_head_is_set_from_the_command_line(clinic: Path, tmp_path: Path) -> None:
    words = ["probe", str(clinic), "--encoder", "histogram", "--out", str(tmp_path / "run"), "--n_boot", "100"]
    assert main([*words, "--head.kind", "knn", "--head.k", "[3]"]) == 0
    report = json.loads(next((tmp_path / "run").rglob("model.json")).read_text())
    assert report["head"] == {**report["head"], "kind": "knn", "k": [3]}


def test_predict_marks_parts_and_gives_the_run_s_probabilities(run: Path, clinic: Path, tmp_path: Path) -> None:
    out = tmp_path / "p.parquet"
    assert main(["predict", str(run), str(clinic), "--split", "main", "--out", str(out)]) == 0
    ours = read_predictions(out).test()
    theirs = read_predictions(run / "predictions.parquet").test()
    order = theirs.frame.set_index("image_id").loc[ours.frame["image_id"]]
    assert ours.probabilities() == pytest.approx(order[[f"p:{name}" for name in ours.classes]].to_numpy(), abs=1e-6)


def test_what_was_seen_in_training_is_not_scored(run: Path, clinic: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "p.csv"
    assert main(["predict", str(run), str(clinic), "--out", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    frame = read_predictions(out).frame
    parts = Dataset.open(clinic).read_split("main").set_index("image_id")["split"]
    tested = set(frame.loc[frame["split"] == "test", "image_id"])
    assert tested == set(parts.index[parts == "test"])
    assert set(frame.loc[frame["split"] == "train", "image_id"]) == set(parts.index[parts != "test"])
    seen = frame["seen_in_training"] == "True"
    assert seen.sum() == told["n_seen"] == 160 - len(tested)
    assert "marked as split train" in told["warnings"][0]
    assert main(["evaluate", str(out), "--out", str(tmp_path / "e"), "--n_boot", "100", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["n"] == len(tested)
    frame[seen].to_csv(tmp_path / "seen.csv", index=False)
    assert main(["evaluate", str(tmp_path / "seen.csv"), "--out", str(tmp_path / "f")]) == 2
    assert "trained on all of these photos" in capsys.readouterr().err


def test_predict_works_without_labels_and_says_so(run: Path, clinic: Path, tmp_path: Path, capsys) -> None:
    folder = tmp_path / "unlabelled"
    shutil.copytree(clinic, folder)
    dataset = Dataset.open(folder)
    targets = {target.column for target in dataset.card.targets}
    Dataset.write(folder, dataset.manifest.drop(columns=list(targets)), dataset.card.model_copy(update={"targets": ()}))
    assert main(["predict", str(run), str(folder), "--out", str(tmp_path / "p.csv")]) == 0
    assert "holds no labels" in capsys.readouterr().out
    assert (tmp_path / "p.csv").exists()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (["predict", "RUN", "CLINIC", "--out", "p.txt"], "must end in .parquet or .csv"),
        (["predict", "CLINIC", "CLINIC", "--out", "p.csv"], "no finished run"),
        (["predict", "RUN", "CLINIC", "--out", "p.csv", "--split", "folds3"], "several folds"),
        (["probe", "CLINIC", "--encoder", "resnet5", "--out", "x"], "resnet5"),
        (["probe", "CLINIC", "--head", "svm", "--encoder", "histogram", "--out", "x"], "head.kind"),
        (["probe", "nowhere", "--head", "majority", "--out", "x"], "nowhere"),
    ],
)
def test_a_wrong_turn_is_one_line(
    change: list[str], expected: str, run: Path, clinic: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([{"RUN": str(run), "CLINIC": str(clinic)}.get(word, word) for word in change]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert expected in error[-1]
    assert error[-1].startswith("error: ")
    assert not (tmp_path / "x").exists()  # the corrected command finds the place free


def test_random_weights_come_from_the_run_s_seed_and_its_device_is_on_record(
    clinic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dermlab.features import extract

    seeds, embed = [], extract.embed

    def spy(*arguments: object, **options: object) -> extract.Features:
        seeds.append(options.get("seed", 0))
        return embed(*arguments, **options)

    monkeypatch.setattr(extract, "embed", spy)
    out = tmp_path / "run"
    words = ["probe", str(clinic), "--encoder", "histogram", "--head", "knn", "--out", str(out), "--n_boot", "100"]
    assert main([*words, "--seed", "3"]) == 0
    assert main(["predict", str(out), str(clinic), "--out", str(tmp_path / "p.csv")]) == 0
    assert seeds == [3, 3]
    model = json.loads(next(out.rglob("model.json")).read_text())
    assert (model["runtime"]["device"], model["runtime"]["precision"]) == ("cpu", "fp32")
