"""The bake-off on the synthetic clinic: no network but a random tiny one, so that it is quick and always here."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dermlab.bench import candidates as candidates_module
from dermlab.bench.bakeoff import BakeoffResult, run_bakeoff
from dermlab.bench.config import BakeoffConfig
from dermlab.bench.record import COLUMNS
from dermlab.core.config import validate
from dermlab.core.errors import DermlabError, InputError
from dermlab.data.dataset import Dataset
from dermlab.data.splits import split_by_folds

RECIPE: dict[str, Any] = {
    "encoders": ["histogram"],
    "heads": ["linear"],
    "candidates": [
        {"name": "five neighbours", "encoder": "histogram", "head": {"kind": "knn", "k": [5]}},
        {"name": "broken", "encoder": "hf:nobody/no-such-model", "head": "linear"},
    ],
    "n_boot": 100,
}
RUNS = ("histogram-linear", "five-neighbours", "majority", "questionnaire", "histogram-knn", "ensemble")


def config(data: Path, **over: Any) -> BakeoffConfig:
    return validate(BakeoffConfig, {"data": data, **RECIPE, **over})


@pytest.fixture(scope="module")
def finished(clinic: Path, tmp_path_factory: pytest.TempPathFactory) -> BakeoffResult:
    return run_bakeoff(config(clinic), tmp_path_factory.mktemp("bakeoff") / "out")


@pytest.fixture
def copied(clinic: Path, tmp_path: Path) -> Path:
    """A clinic of one's own, to change."""
    return Path(shutil.copytree(clinic, tmp_path / "clinic"))


def rows(result: BakeoffResult) -> list[dict[str, str]]:
    with open(result.folder / "leaderboard.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def record(result: BakeoffResult) -> dict[str, Any]:
    return json.loads((result.folder / "bakeoff.json").read_text(encoding="utf-8"))


def test_the_leaderboard_has_the_promised_columns_ordered_by_val(finished: BakeoffResult) -> None:
    table = rows(finished)
    assert tuple(table[0]) == COLUMNS
    scores = [float(row["val_score"]) for row in table if row["val_score"]]
    assert scores == sorted(scores, reverse=True)
    assert {row["candidate"] for row in table} == {
        *("histogram-linear", "five neighbours", "broken", "majority", "questionnaire", "histogram-knn", "ensemble")
    }
    winners = [row for row in table if row["winner"] == "True"]
    assert len(winners) == 1
    assert winners[0]["candidate"] == table[0]["candidate"]


def test_every_figure_of_the_leaderboard_is_that_of_its_run(finished: BakeoffResult) -> None:
    from sklearn.metrics import accuracy_score

    for row, outcome in zip(rows(finished), finished.outcomes, strict=True):
        if outcome.status == "failed":
            continue
        table = pd.read_parquet(finished.folder / outcome.run / "predictions.parquet")
        test = table[table["split"] == "test"]
        columns = [name for name in test if name.startswith("p:")]
        said = np.array([name.removeprefix("p:") for name in columns])[test[columns].to_numpy().argmax(axis=1)]
        assert float(row["top1"]) == pytest.approx(accuracy_score(test["label"], said))
        val = table[table["split"] == "val"]
        said = np.array([name.removeprefix("p:") for name in columns])[val[columns].to_numpy().argmax(axis=1)]
        assert float(row["val_score"]) == pytest.approx(accuracy_score(val["label"], said))
        assert float(row["top1_low"]) <= float(row["top1"]) <= float(row["top1_high"])
        assert int(row["n_test"]) == len(test)


def test_a_failing_candidate_is_reported_and_stops_nobody(finished: BakeoffResult) -> None:
    last = rows(finished)[-1]
    assert last["candidate"] == "broken"
    assert last["top1"] == last["val_score"] == last["rank"] == ""
    (failed,) = [item for item in record(finished)["candidates"] if item["status"] == "failed"]
    assert "no-such-model" in failed["error"]
    for name in RUNS:
        assert (finished.folder / "runs" / name / "predictions.parquet").exists()


def test_encoders_that_there_are_not_are_named_before_anything_is_done(clinic: Path, tmp_path: Path) -> None:
    wrong = config(
        clinic, encoders=["histogramm", "resnet50"], candidates=[{"encoder": "timm:resnett50", "head": "knn"}]
    )
    with pytest.raises(InputError, match=r"encoders\.0: .*histogram.*; candidates\.0\.encoder: .*resnet50") as told:
        run_bakeoff(wrong, tmp_path / "out")
    assert "encoders.1" not in str(told.value)
    assert not (tmp_path / "out").exists()


def test_the_record_says_what_was_asked_what_was_found_and_how_to_do_it_again(finished: BakeoffResult) -> None:
    found = record(finished)
    assert found["format"] == 1
    assert found["asked"]["target"] == "diagnosis"
    assert found["data"]["n_images"] == 160
    assert sum(sum(parts.values()) for parts in found["data"]["class_counts"].values()) == 160
    assert found["decision"]["word"] == "WINNER"
    floor_won = rows(finished)[0]["candidate"] in ("majority", "questionnaire", "histogram-knn")
    assert found["decision"]["against"]["kind"] == ("candidate" if floor_won else "floor")
    assert len(found["comparison"]) == 6 * 5 / 2
    facts = found["reproduce"]["facts"]
    assert facts["data fingerprint"] == Dataset.open(found["data"]["folder"]).fingerprint
    assert "torch" in facts["packages"]
    for item in found["candidates"]:
        if item["status"] == "ok":
            assert item["metrics"]["n"] == found["data"]["parts"][2]["n"]
            for mistake in item["mistakes"]:
                assert mistake["label"] != mistake["predicted"]


def test_the_config_it_leaves_makes_the_same_leaderboard(finished: BakeoffResult, tmp_path: Path) -> None:
    import yaml

    fields = yaml.safe_load((finished.folder / "config.yaml").read_text(encoding="utf-8"))
    again = run_bakeoff(validate(BakeoffConfig, fields), tmp_path / "again")
    kept = [name for name in COLUMNS if name != "seconds"]
    assert [[row[name] for name in kept] for row in rows(again)] == [
        [row[name] for name in kept] for row in rows(finished)
    ]


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the heads that were really fitted."""
    import dermlab.adapt.probe as probe

    fitted: list[str] = []
    real = probe.run_probe

    def counting(dataset: Any, settings: Any, out: Any, **over: Any) -> Any:
        fitted.append(Path(out).name)
        return real(dataset, settings, out, **over)

    monkeypatch.setattr(probe, "run_probe", counting)
    return fitted


def test_a_rerun_does_only_what_is_missing_or_was_made_otherwise(
    finished: BakeoffResult, clinic: Path, tmp_path: Path, counted: list[str]
) -> None:
    out = tmp_path / "out"
    shutil.copytree(finished.folder, out)
    predictions = {path: path.stat().st_mtime_ns for path in out.rglob("predictions.parquet")}
    run_bakeoff(config(clinic), out)
    assert counted == []
    assert {path: path.stat().st_mtime_ns for path in out.rglob("predictions.parquet")} == predictions
    shutil.rmtree(out / "runs" / "majority")
    changed = {"name": "five neighbours", "encoder": "histogram", "head": {"kind": "knn", "k": [7]}}
    new = {"name": "new", "encoder": "histogram", "head": {"kind": "knn", "k": [3]}}
    result = run_bakeoff(config(clinic, candidates=[changed, new]), out)
    assert sorted(counted) == ["five-neighbours", "majority", "new"]
    assert {outcome.name for outcome in result.outcomes if outcome.reused} == {
        *("histogram-linear", "questionnaire", "histogram-knn")
    }


def test_ctrl_c_keeps_what_is_done_and_goes_up(
    clinic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counted: list[str]
) -> None:
    real = candidates_module._run

    def stopping(setting: Any, item: Any, embedded: Any, title: str) -> Any:
        if item.name == "questionnaire":
            raise KeyboardInterrupt
        return real(setting, item, embedded, title)

    monkeypatch.setattr(candidates_module, "_run", stopping)
    with pytest.raises(KeyboardInterrupt):
        run_bakeoff(config(clinic, candidates=[]), tmp_path / "out")
    done = list(counted)
    assert done
    monkeypatch.setattr(candidates_module, "_run", real)
    run_bakeoff(config(clinic, candidates=[]), tmp_path / "out")
    assert not set(done) & set(counted[len(done) :])


def test_permuted_test_labels_change_no_choice(finished: BakeoffResult, copied: Path, tmp_path: Path) -> None:
    dataset = Dataset.open(copied)
    test = dataset.read_split("main")["split"].to_numpy(str) == "test"
    labels = dataset.labels()
    shuffled = labels.copy()
    shuffled[test] = np.random.default_rng(1).permutation(labels[test])
    assert (shuffled != labels).sum() > 10
    Dataset.write(copied, dataset.manifest.assign(diagnosis=shuffled), dataset.card)
    result = run_bakeoff(config(copied), tmp_path / "out")
    before = {outcome.name: (outcome.val_score, outcome.winner, outcome.flags) for outcome in finished.outcomes}
    after = {outcome.name: (outcome.val_score, outcome.winner, outcome.flags) for outcome in result.outcomes}
    assert after == before
    for name in RUNS[:-1]:
        chosen = [
            json.loads(path.read_text(encoding="utf-8"))["report"]["chosen"]
            for folder in (finished.folder, result.folder)
            for path in (folder / "runs" / name).glob("checkpoints/*/model.json")
        ]
        assert chosen[0] == chosen[1], name


@pytest.fixture(scope="module")
def folded(clinic: Path, tmp_path_factory: pytest.TempPathFactory) -> BakeoffResult:
    """A bake-off over folds, in which every photo of the clinic is tested."""
    out = tmp_path_factory.mktemp("folded") / "out"
    return run_bakeoff(config(clinic, split="folds3", folds=3, candidates=[]), out)


def test_folds_test_every_photo_once(folded: BakeoffResult) -> None:
    assert all(outcome.metrics["n"] == 160 for outcome in folded.outcomes)
    split = record(folded)["data"]["split"]
    assert (split["n_folds"], split["n_repeats"]) == (3, 1)


def test_a_missing_split_is_made_and_kept(copied: Path, tmp_path: Path) -> None:
    run_bakeoff(config(copied, folds=2, seed=5, candidates=[]), tmp_path / "out")
    split = Dataset.open(copied).read_split("folds2-seed5")
    assert split["fold"].nunique() == 2
    with pytest.raises(InputError, match="3 asked for, but split 'folds2-seed5' has 2"):
        run_bakeoff(config(copied, folds=3, split="folds2-seed5", candidates=[]), tmp_path / "other")


@pytest.mark.parametrize(("seed", "name"), [(0, "folds2"), (5, "folds2-seed5")])
def test_folds_that_data_split_made_are_taken(copied: Path, tmp_path: Path, seed: int, name: str) -> None:
    made = split_by_folds(Dataset.open(copied), 2, seed=0)
    Dataset.open(copied).write_split("folds2", made)
    result = run_bakeoff(config(copied, folds=2, seed=seed, candidates=[], ensemble=False), tmp_path / "out")
    assert record(result)["data"]["split"]["name"] == name


def test_the_gate_stops_a_leak_unless_it_is_waived(copied: Path, tmp_path: Path) -> None:
    dataset = Dataset.open(copied)
    split = dataset.read_split("main")
    patient = dataset.manifest["patient_id"].value_counts().index[0]
    place = np.flatnonzero((dataset.manifest["patient_id"] == patient).to_numpy())
    parts = split["split"].to_numpy(object)
    parts[place[0]], parts[place[1]] = "train", "test"
    dataset.write_split("main", split.assign(split=parts))
    with pytest.raises(InputError, match="waive: \\[group-overlap"):
        run_bakeoff(config(copied, candidates=[]), tmp_path / "out")
    with pytest.raises(InputError, match="did you mean 'group-overlap'"):
        run_bakeoff(config(copied, candidates=[], waive=["group-overlaps"]), tmp_path / "out")
    result = run_bakeoff(config(copied, candidates=[], waive=["group-overlap"]), tmp_path / "out")
    assert "group-overlap" in record(result)["waivers"][0]
    assert "(waived: group-overlap)" in result.decision.sentence
    assert "it had not seen" not in result.decision.sentence


def test_a_photo_without_a_patient_is_not_counted_as_one(copied: Path, tmp_path: Path) -> None:
    dataset = Dataset.open(copied)
    split = dataset.read_split("main")
    manifest = dataset.manifest.copy()
    manifest.loc[split.index[split["split"] == "test"][:3], "patient_id"] = None
    Dataset.write(copied, manifest, dataset.card)
    result = run_bakeoff(config(copied, candidates=[]), tmp_path / "out")
    assert " patients and 3 photos without one" in result.decision.sentence
    assert result.decision.weakest


@pytest.fixture(scope="module")
def truth(clinic: Path) -> pd.DataFrame:
    """Id and label of every photo."""
    dataset = Dataset.open(clinic)
    return pd.DataFrame({"image_id": dataset.image_ids, "label": dataset.labels()})


def reading(truth: pd.DataFrame, right: bool, path: Path) -> Path:
    """Write anyone's hard answers, all of them right or all of them wrong."""
    classes = sorted(truth["label"].unique())
    wrong = truth["label"].map(lambda label: classes[(classes.index(label) + 1) % len(classes)])
    truth.assign(answer=truth["label"] if right else wrong)[["image_id", "answer"]].to_csv(path, index=False)
    return path


@pytest.mark.parametrize(("right", "word"), [(False, "GO"), (True, "NO-GO")])
def test_go_and_no_go_against_anyones_table(
    right: bool, word: str, folded: BakeoffResult, truth: pd.DataFrame, clinic: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(folded.folder, out)
    table = reading(truth, right, tmp_path / "doctor.csv")
    over = {"split": "folds3", "candidates": [], "baseline_columns": {"prediction": "answer"}}
    result = run_bakeoff(config(clinic, baseline=table, margin=0.02, **over), out)
    assert result.decision.word == word
    assert "doctor" in result.decision.sentence
    found = record(result)
    assert found["baseline"]["metrics"]["top1"]["value"] == float(right)
    assert found["decision"]["against"]["kind"] == "baseline"
    assert found["decision"]["against"]["n"] == 160


def test_cannot_tell_against_the_winners_own_run(folded: BakeoffResult, clinic: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(folded.folder, out)
    assert folded.winner is not None
    over = {"split": "folds3", "candidates": [], "baseline": folded.folder / folded.winner.run}
    result = run_bakeoff(config(clinic, **over), out)
    assert result.decision.word == "CANNOT TELL"
    assert result.decision.against is not None
    assert result.decision.against["difference"] == 0


def test_a_baseline_that_misses_photos_is_refused(
    truth: pd.DataFrame, clinic: Path, tmp_path: Path, counted: list[str]
) -> None:
    table = reading(truth.iloc[3:], True, tmp_path / "doctor.csv")
    over = {"split": "folds3", "baseline_columns": {"prediction": "answer"}}
    with pytest.raises(InputError, match=r"no test answer for 3 of the 160 photos"):
        run_bakeoff(config(clinic, baseline=table, **over), tmp_path / "out")
    with pytest.raises(InputError, match=r"nowhere\.csv: no such file"):
        run_bakeoff(config(clinic, baseline=tmp_path / "nowhere.csv"), tmp_path / "out")
    assert counted == []  # said before any work is done


def test_what_may_not_ship_does_not_win(copied: Path, tmp_path: Path) -> None:
    dataset = Dataset.open(copied)
    Dataset.write(copied, dataset.manifest, dataset.card.model_copy(update={"licence": "CC-BY-NC-4.0"}))
    result = run_bakeoff(config(copied, candidates=[]), tmp_path / "out")
    assert result.winner is None
    assert result.decision.word == "NO WINNER"
    assert {row["verdict"] for row in rows(result)} == {"blocked"}
    again = run_bakeoff(config(copied, candidates=[], use="research"), tmp_path / "out")
    assert again.winner is not None
    assert all(outcome.reused for outcome in again.outcomes if outcome.kind != "ensemble")


def test_data_without_a_licence_are_unknown_and_it_is_said(copied: Path, tmp_path: Path) -> None:
    dataset = Dataset.open(copied)
    Dataset.write(copied, dataset.manifest, dataset.card.model_copy(update={"licence": None}))
    result = run_bakeoff(config(copied, candidates=[]), tmp_path / "out")
    assert result.winner is not None
    assert result.winner.verdict == "unknown"
    assert "card.yaml" in result.decision.sentence


def test_a_foreign_folder_is_left_alone(clinic: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(InputError, match="holds no bake-off"):
        run_bakeoff(config(clinic), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_where_every_candidate_fails_it_is_an_error_and_a_record(
    clinic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no luck\nat all")

    monkeypatch.setattr(candidates_module, "_run", failing)
    with pytest.raises(DermlabError, match="no candidate has a result"):
        run_bakeoff(config(clinic), tmp_path / "out")
    found = json.loads((tmp_path / "out" / "bakeoff.json").read_text(encoding="utf-8"))
    assert found["decision"]["word"] == "NO WINNER"
    assert "RuntimeError: no luck (unexpected" in found["candidates"][0]["error"]


def test_the_floors_are_always_there_and_questions_only_where_there_are_some(copied: Path, tmp_path: Path) -> None:
    dataset = Dataset.open(copied)
    Dataset.write(copied, dataset.manifest, dataset.card.model_copy(update={"metadata": ()}))
    result = run_bakeoff(config(copied, candidates=[], ensemble=False), tmp_path / "out")
    assert {outcome.name for outcome in result.outcomes if outcome.kind == "floor"} == {"majority", "histogram-knn"}


def test_an_ensemble_predicts_what_it_was_scored_on(finished: BakeoffResult, clinic: Path, tmp_path: Path) -> None:
    from dermlab.cli import main

    out = tmp_path / "table.parquet"
    assert main(["predict", str(finished.folder / "runs" / "ensemble"), str(clinic), "--out", str(out)]) == 0
    scored = pd.read_parquet(finished.folder / "runs" / "ensemble" / "predictions.parquet")
    scored = scored[scored["split"] == "test"].set_index("image_id")
    columns = [name for name in scored if name.startswith("p:")]
    found = pd.read_parquet(out).set_index("image_id").loc[scored.index]
    np.testing.assert_allclose(found[columns], scored[columns], atol=1e-6)
    assert not found["seen_in_training"].any()
    lineage = json.loads(out.with_suffix(".parquet.json").read_text(encoding="utf-8"))["lineage"]
    assert sum(member["weight"] for member in lineage["members"]) == pytest.approx(1)


def test_an_ensemble_whose_member_is_gone_says_which(
    finished: BakeoffResult, clinic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from dermlab.cli import main

    folder = Path(shutil.copytree(finished.folder, tmp_path / "moved"))
    for name in ("histogram-linear", "five-neighbours"):
        shutil.rmtree(folder / "runs" / name)
    assert main(["predict", str(folder / "runs" / "ensemble"), str(clinic), "--out", str(tmp_path / "t.csv")]) == 2
    assert "is not there" in capsys.readouterr().err


def test_the_record_names_the_questionnaire_columns_of_the_fitted_plans(finished: BakeoffResult, clinic: Path) -> None:
    found = {item["name"]: item["questionnaire"] for item in record(finished)["candidates"]}
    plans = sorted((finished.folder / "runs" / "questionnaire").glob("checkpoints/*/questionnaire.json"))
    fitted = {entry["column"] for file in plans for entry in json.loads(file.read_text())["plan"]}
    assert plans
    assert set(found["questionnaire"]) == fitted
    assert not fitted & set(Dataset.open(clinic).card.label_proxies)
    assert found["histogram-linear"] == found["majority"] == []
