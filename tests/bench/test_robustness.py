"""Robustness: each photo judged by its own fold's model, drops paired with the clean photos."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dermlab.bench import robustness as module
from dermlab.bench.curve_settings import Corrupting
from dermlab.bench.robustness import robustness
from dermlab.cli import main
from dermlab.core.errors import InputError
from dermlab.data.dataset import Dataset
from dermlab.evaluate.predictions import read_predictions

FEW: dict[str, Any] = {"corruptions": ("cast", "darker", "hair"), "severities": (1, 5), "n_boot": 200}


@pytest.fixture(scope="module")
def run(clinic: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("probe") / "run"
    words = ["probe", str(clinic), "--encoder", "histogram", "--head", "linear", "--split", "folds3"]
    assert main([*words, "--out", str(out), "--n_boot", "100"]) == 0
    return out


@pytest.fixture(scope="module")
def made(run: Path, clinic: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("robust")
    return out, robustness(run, Dataset.open(clinic), Corrupting(**FEW), out)


def test_clean_photos_score_what_the_run_scored(made: tuple[Path, dict[str, Any]], run: Path) -> None:
    """Every photo by the model of its own fold: anything else would score far better than the run did."""
    expected = json.loads((run / "metrics.json").read_text())
    clean = made[1]["clean"]
    assert made[1]["n"] == expected["n"]
    for name in ("balanced_accuracy", "top1", "auroc"):
        assert clean[name]["value"] == pytest.approx(expected[name]["value"], abs=1e-6)


def test_a_drop_is_clean_minus_corrupted_and_lies_in_its_interval(made: tuple[Path, dict[str, Any]]) -> None:
    found = made[1]
    name = found["metric"]
    clean = found["clean"][name]["value"]
    for entry in found["corruptions"]:
        for item in entry["severities"]:
            assert item["drop"]["value"] == pytest.approx(clean - item[name]["value"])
            assert item["relative"]["value"] == pytest.approx(item[name]["value"] / clean)
            if item["drop"]["low"] is not None:  # else no replicate shows a difference
                assert item["drop"]["low"] <= item["drop"]["value"] <= item["drop"]["high"]
        mean = np.mean([item["drop"]["value"] for item in entry["severities"]])
        assert entry["mean"]["drop"]["value"] == pytest.approx(mean)


def test_the_worst_comes_first_and_a_colour_histogram_minds_colour_more_than_hair(
    made: tuple[Path, dict[str, Any]],
) -> None:
    found = made[1]
    drops = [entry["mean"]["drop"]["value"] for entry in found["corruptions"]]
    assert drops == sorted(drops, reverse=True)
    assert found["worst"] == found["corruptions"][0]["name"] != "hair"
    assert all(entry["p_adjusted"] >= entry["p"] for entry in found["corruptions"])


def test_an_image_that_nothing_happened_to_loses_nothing(
    run: Path, clinic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "corrupt", lambda image, *_, **__: image)
    found = robustness(run, Dataset.open(clinic), Corrupting(**FEW), tmp_path / "out")
    for entry in found["corruptions"]:
        # No replicate shows a difference, which is not to know that there is none.
        assert entry["mean"]["drop"] == {"value": 0.0, "low": None, "high": None}
        assert entry["verdict"] == "cannot tell apart"
        assert entry["verdict"] == "cannot tell apart"


def test_what_is_done_is_kept_and_what_is_missing_comes_out_the_same(
    made: tuple[Path, dict[str, Any]], run: Path, clinic: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, found = made
    (out / "features" / "hair-5.npy").unlink()
    done: list[tuple[str, int]] = []
    original = module.corrupt

    def counted(image: np.ndarray, name: str, severity: int, **given: Any) -> np.ndarray:
        done.append((name, severity))
        return original(image, name, severity, **given)

    monkeypatch.setattr(module, "corrupt", counted)
    again = robustness(run, Dataset.open(clinic), Corrupting(**FEW), out)
    assert json.dumps(again) == json.dumps(found)
    assert set(done) == {("hair", 5)}


def test_the_limit_keeps_whole_patients(run: Path, clinic: Path, tmp_path: Path) -> None:
    table = read_predictions(run / "predictions.parquet").test()
    kept = module._limited(table, Corrupting(limit=40)).frame
    assert kept["image_id"].nunique() <= 40
    everyone = table.frame.groupby("group")["image_id"].nunique()
    assert (kept.groupby("group")["image_id"].nunique() == everyone[kept["group"].unique()].sort_index()).all()


def test_a_folder_begun_with_another_seed_and_data_that_changed_are_refused(
    made: tuple[Path, dict[str, Any]], run: Path, clinic: Path, tmp_path: Path
) -> None:
    dataset = Dataset.open(clinic)
    with pytest.raises(InputError, match="choose another --out"):
        robustness(run, dataset, Corrupting(**FEW, seed=1), made[0])
    other = Dataset(dataset.folder, dataset.card, dataset.manifest.iloc[::-1].reset_index(drop=True))
    with pytest.raises(InputError, match="name the data set of the run"):
        robustness(run, other, Corrupting(**FEW), tmp_path / "out")


def test_a_handful_of_patients_is_warned_of_and_classes_are_counted(
    made: tuple[Path, dict[str, Any]], run: Path, clinic: Path, tmp_path: Path
) -> None:
    expected = json.loads((run / "metrics.json").read_text())["per_class"]
    assert made[1]["per_class"] == {name: {"n": found["n"]} for name, found in expected.items()}
    found = robustness(run, Dataset.open(clinic), Corrupting(**FEW, limit=20), tmp_path / "out")
    assert found["n_groups"] < 30
    assert any(text.startswith(f"only {found['n_groups']} groups") for text in found["warnings"])
    assert any(text.startswith("fewer than 10 cases of") for text in found["warnings"])


def test_the_command_says_the_worst_first_and_shows_photos_and_curves(
    run: Path, clinic: Path, tmp_path: Path, capsys
) -> None:
    out = tmp_path / "out"
    words = ["robustness", str(run), str(clinic), "--out", str(out), "--corruptions", "blur,darker"]
    assert main([*words, "--severities", "1,3", "--limit", "60", "--n_boot", "100"]) == 0
    assert capsys.readouterr().out.startswith("worst: ")
    assert len(json.loads((out / "robustness.json").read_text())["corruptions"]) == 2
    for name in ("robustness.png", "corruptions.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")
    assert "severity" in (out / "robustness.svg").read_text()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (["--corruptions", "fog"], "not one of blur"),
        (["--severities", "0,6"], "1, 2, 3, 4, 5"),
        (["--metrics", "ece"], "better when lower"),
        (["--photo", "nobody"], "not an image_id"),
    ],
)
def test_a_wrong_turn_is_one_line(
    change: list[str], expected: str, run: Path, clinic: Path, tmp_path: Path, capsys
) -> None:
    assert main(["robustness", str(run), str(clinic), "--out", str(tmp_path / "x"), *change]) == 2
    assert expected in capsys.readouterr().err.strip().splitlines()[-1]


def test_a_model_that_looks_at_no_photo_is_refused(clinic: Path, tmp_path: Path, capsys) -> None:
    assert main(["probe", str(clinic), "--head", "majority", "--out", str(tmp_path / "m"), "--n_boot", "100"]) == 0
    assert main(["robustness", str(tmp_path / "m"), str(clinic), "--out", str(tmp_path / "x")]) == 2
    assert "no single encoder" in capsys.readouterr().err


def test_other_corruptions_are_not_passed_off_as_those_begun_with(
    made: tuple[Path, dict[str, Any]], run: Path, clinic: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.corruptions, "corrupt", lambda image, *_, **__: image)
    with pytest.raises(InputError, match="other photos, corruptions"):
        robustness(run, Dataset.open(clinic), Corrupting(**FEW), made[0])


@pytest.fixture(scope="module")
def tuned(clinic: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fine-tuned network with everything that a photo passes: colour constancy, questionnaire, flips at test time."""
    from dermlab.adapt.finetune.config import FinetuneSettings
    from dermlab.adapt.finetune.run import run_finetune

    settings = FinetuneSettings(
        encoder="timm:test_resnet+random",
        size_px=32,
        frozen_epochs=1,
        finetune_epochs=3,
        batch_size=16,
        learning_rate=1e-2,
        max_train_samples=60,
        head="fusion",
        colour_constancy="grey_world",
        tta="flips",
        precision="fp32",
        device="cpu",
        n_boot=100,
    )
    return run_finetune(Dataset.open(clinic), settings, tmp_path_factory.mktemp("tuned") / "run").path


def test_a_fine_tuned_network_sees_the_spoilt_photo_its_own_way(tuned: Path, clinic: Path, tmp_path: Path) -> None:
    """Clean photos get the run's own answers, spoilt ones others."""
    few = {"corruptions": ("cast", "blur"), "severities": (2,), "n_boot": 100}
    found = robustness(tuned, Dataset.open(clinic), Corrupting(**few), tmp_path / "out")
    table = read_predictions(tuned / "predictions.parquet").test()
    said = {name: np.load(tmp_path / "out" / "features" / f"{name}.npy") for name in ("clean-0", "cast-2", "blur-2")}
    np.testing.assert_allclose(said["clean-0"], table.probabilities(), atol=1e-5)
    assert found["clean"]["top1"]["value"] == json.loads((tuned / "metrics.json").read_text())["top1"]["value"]
    for name in ("cast-2", "blur-2"):
        assert np.abs(said[name] - said["clean-0"]).max() > 1e-4
        np.testing.assert_allclose(said[name].sum(axis=1), 1)


def test_the_command_takes_a_fine_tuned_run(tuned: Path, clinic: Path, tmp_path: Path, capsys) -> None:
    words = ["robustness", str(tuned), str(clinic), "--out", str(tmp_path / "out"), "--corruptions", "darker"]
    assert main([*words, "--severities", "3", "--limit", "40", "--n_boot", "100", "--device", "cpu"]) == 0
    assert "finetuned" in capsys.readouterr().out
