"""Bake-offs of several labels a photo, and of ranks: what chooses, what is shown, what is refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from dermlab.adapt.config import HeadConfig, ProbeSettings
from dermlab.adapt.probe import run_probe
from dermlab.bench.bakeoff import BakeoffResult, run_bakeoff
from dermlab.bench.candidates import collapsed, confident_mistakes
from dermlab.bench.config import BakeoffConfig
from dermlab.commands.bakeoff import table
from dermlab.core.config import validate
from dermlab.core.errors import InputError
from dermlab.data.dataset import Dataset
from dermlab.evaluate.assessment import PARTS
from dermlab.evaluate.predictions import Predictions
from dermlab.report.html import write_report

RECIPE: dict[str, Any] = {"encoders": ["histogram"], "heads": ["linear", {"kind": "knn", "k": [5]}], "n_boot": 100}


def config(data: Path, **over: Any) -> BakeoffConfig:
    return validate(BakeoffConfig, {"data": data, **RECIPE, **over})


@pytest.fixture(scope="module")
def signs(clinic: Path, tmp_path_factory: pytest.TempPathFactory) -> BakeoffResult:
    out = tmp_path_factory.mktemp("signs")
    floor = ProbeSettings(head=HeadConfig(kind="majority"), target="signs", n_boot=100)
    run_probe(Dataset.open(clinic), floor, out / "floor")
    return run_bakeoff(config(clinic, target="signs", baseline=out / "floor"), out / "bakeoff")


def rows(result: BakeoffResult) -> dict[str, dict[str, str]]:
    with open(result.folder / "leaderboard.csv", encoding="utf-8", newline="") as file:
        return {row["candidate"]: row for row in csv.DictReader(file)}


def test_several_labels_are_chosen_by_auroc_on_val_and_shown_by_their_own_metrics(signs: BakeoffResult) -> None:
    assert signs.metric == "auroc"
    for outcome in signs.outcomes:
        found = pd.read_parquet(signs.folder / outcome.run / "predictions.parquet")
        truth = [name for name in found if name.startswith("y:")]
        scores = [f"p:{name[2:]}" for name in truth]
        row = rows(signs)[outcome.name]
        for split, column in (("val", "val_score"), ("test", "auroc")):
            part = found[found["split"] == split]
            both = [name for name in truth if part[name].nunique() == 2]  # the others are left out of means
            of_both = [f"p:{name[2:]}" for name in both]
            assert float(row[column]) == pytest.approx(roc_auc_score(part[both], part[of_both]))
        assert float(row["auprc"]) == pytest.approx(average_precision_score(part[both], part[of_both]))
        at_half = [(part[p] > 0.5) == (part[y] == 1) for y, p in zip(truth, scores, strict=True)]
        assert float(row["label_accuracy"]) == pytest.approx(np.mean(at_half))
        called = part[of_both] >= [outcome.metrics["thresholds"][name[2:]] for name in both]
        of_each = f1_score(part[both], called, average=None)
        assert [outcome.metrics["per_class"][name[2:]]["f1"]["value"] for name in both] == pytest.approx(list(of_each))
        assert row["top1"] == row["top3"] == row["quadratic_kappa"] == ""
    assert "ensemble" not in rows(signs)


def test_the_majority_of_labels_is_a_floor_and_a_baseline(signs: BakeoffResult) -> None:
    floor = next(item for item in signs.outcomes if item.name == "majority")
    assert floor.val_score == pytest.approx(0.5)
    assert not floor.flags
    assert signs.winner is not None
    assert signs.winner.name != "majority"
    assert signs.decision.against is not None
    assert signs.decision.against["kind"] == "baseline"
    expected = signs.winner.metrics["auroc"]["value"] - 0.5
    assert signs.decision.against["difference"] == pytest.approx(expected)
    assert f"AUROC {signs.winner.metrics['auroc']['value']:.3f}" in signs.decision.sentence
    assert any("test AUROC" in line for line in table(signs)[:1])


def test_the_page_shows_each_label_with_its_threshold(signs: BakeoffResult) -> None:
    page = write_report(signs.folder, photos=False).read_text(encoding="utf-8")
    assert signs.winner is not None
    assert "Label by label" in page
    for name, threshold in signs.winner.metrics["thresholds"].items():
        assert f'<th scope="row" class="wrap">{name}</th>' in page
        assert f'<td class="num">{threshold:.3f}</td>' in page
    for word in ("Label accuracy", "Micro F1", "labels of &#39;signs&#39; a photo has"):
        assert word in page
    assert "Top-1" not in page
    assert "Each class is a question of its own" in page
    parts = {path.stem: json.loads(path.read_text()) for path in (signs.folder / "assessment").glob("*.json")}
    assert "skipped" in parts["referral"]
    assert "skipped" in parts["conformal"]


def labels(truth: list[list[float]], scores: list[list[float]]) -> Predictions:
    n = len(truth)
    frame = pd.DataFrame(
        {
            "image_id": [f"i{place}" for place in range(n)],
            "unit": [f"i{place}" for place in range(n)],
            "group": [f"i{place}" for place in range(n)],
            "split": ["val", "test"] * (n // 2),
            **dict.fromkeys(("fold", "repeat", "seed"), 0),
        }
    )
    for code, name in enumerate(("crust", "scale")):
        frame[f"y:{name}"], frame[f"p:{name}"] = np.array(truth)[:, code], np.array(scores)[:, code]
    chosen = [{"repeat": 0, "fold": 0, "seed": 0, "labels": {"crust": 0.3, "scale": 0.5}}]
    meta = {"kind": "multilabel", "thresholds": {"chosen_on": "val", "for": "f1", "folds": chosen}}
    return Predictions(frame, ("crust", "scale"), meta)


def test_mistakes_of_labels_are_those_given_or_denied_most_confidently() -> None:
    nothing = [0.0, 0.0]
    found = confident_mistakes(
        labels(
            [nothing, [0, 1], nothing, [1, np.nan], nothing, [0, 0]],
            [nothing, [0.4, 0.1], nothing, [0.35, 0.9], nothing, [0.1, 0.2]],
        )
    )
    assert found == [
        {"image_id": "i1", "unit": "i1", "label": "scale", "predicted": "no scale", "confidence": pytest.approx(0.9)}
    ]


def test_the_same_probabilities_for_every_case_are_no_model_of_labels() -> None:
    truth = [[1.0, 0.0], [0.0, 0.0], [0.0, 1.0], [1.0, 0.0]]
    alike = [[0.2, 0.7]] * 4
    said = collapsed(labels(truth, alike))
    assert said is not None
    assert "same probabilities" in said
    assert collapsed(labels(truth, [*alike[:2], [0.2, 0.6], [0.2, 0.7]])) is None


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"target": "signs", "metric": "quadratic_kappa"}, "quadratic_kappa needs a target of kind ordinal"),
        ({"target": "signs", "max_train_per_class": 5}, "several labels a photo"),
        ({"target": "diagnosis", "metric": "quadratic_kappa"}, "quadratic_kappa needs a target of kind ordinal"),
    ],
)
def test_what_a_target_cannot_use_is_refused_in_one_line(
    clinic: Path, tmp_path: Path, fields: dict[str, Any], told: str
) -> None:
    with pytest.raises(InputError, match=told):
        run_bakeoff(config(clinic, **fields), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_ranks_are_chosen_by_their_kappa_and_shown_with_it(clinic: Path, tmp_path: Path) -> None:
    from sklearn.metrics import cohen_kappa_score

    changes = {"heads": ["linear"], "ensemble": False, "assessment": {"skip": PARTS}}
    asked = config(clinic, target="severity", metric="quadratic_kappa", **changes)
    result = run_bakeoff(asked, tmp_path / "out")
    outcome = next(item for item in result.outcomes if item.name == "histogram-linear")
    found = pd.read_parquet(result.folder / outcome.run / "predictions.parquet")
    names = outcome.metrics["classes"]
    codes = {name: code for code, name in enumerate(names)}
    said = found[[f"p:{name}" for name in names]].to_numpy().argmax(axis=1)
    truth = found["label"].map(codes).to_numpy()
    for split, column in (("val", "val_score"), ("test", "quadratic_kappa")):
        own = (found["split"] == split).to_numpy()
        expected = cohen_kappa_score(truth[own], said[own], weights="quadratic")
        assert float(rows(result)["histogram-linear"][column]) == pytest.approx(expected)
    own = (found["split"] == "test").to_numpy()
    assert float(rows(result)["histogram-linear"]["within_one"]) == np.mean(abs(truth - said)[own] <= 1)
    page = write_report(result.folder, photos=False).read_text(encoding="utf-8")
    assert "Quadratic kappa" in page
    assert "Within one" in page
