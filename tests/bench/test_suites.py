"""Suites: what their files hold, how tasks are run and resumed, and what is said of ours beside theirs."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.neighbors import KNeighborsClassifier

from dermlab.adapt.finetune.run import FittedFinetune
from dermlab.bench.config import BakeoffConfig
from dermlab.bench.suites.config import Published, PublishedValue, Suite, read_suite, suite_names
from dermlab.bench.suites.data import how_to_get, make_split
from dermlab.bench.suites.results import CANNOT_TELL, HIGHER, LOWER, OTHER_CASES, averages, beside, verdict
from dermlab.bench.suites.run import Request, run_suite, select
from dermlab.bench.suites.work import evaluator_scores, with_recipe_paths
from dermlab.cli import main
from dermlab.core.config import validate
from dermlab.core.errors import InputError
from dermlab.core.files import read_json, write_json
from dermlab.data.dataset import Dataset
from dermlab.data.sources import SOURCES
from dermlab.evaluate.predictions import Predictions
from dermlab.evaluate.summary import summarise
from dermlab.features.extract import embed
from dermlab.licensing import card
from dermlab.report.suite import as_markdown, write_suite

RANDOM = "timm:test_vit+random"
TINY: dict[str, Any] = {
    "name": "tiny",
    "title": "Two <tasks> of a clinic",
    "protocol": {
        "seeds": [1, 9],
        "heads": [
            {"kind": "knn", "k": [1, 5], "weights": "uniform", "choose_by": "macro_f1"},
            {"kind": "linear", "C": 1.0, "standardise": False},
        ],
        "few_shot": {"per_class": [1, 5], "repeats": 2},
        "n_boot": 100,
    },
    "encoders": ["histogram", RANDOM],
    "tasks": [
        {"name": "first", "title": "diagnosis", "data": "clinic", "target": "diagnosis"},
        {"name": "second", "data": "elsewhere", "get": "ask the clinic for it"},
    ],
    "published": [
        {
            "metric": "macro_f1",
            "protocol": "knn",
            "tasks": ["first"],
            "n": [1],
            "values": {"somebody": [0.5]},
            "source": "nowhere, table 1",
            "sure": "read",
        }
    ],
    "elsewhere": [{"name": "segmentation", "tasks": "masks", "module": "dermlab.no_such_room"}],
}


def tiny(**changes: Any) -> Suite:
    return validate(Suite, {**TINY, **changes})


@pytest.fixture(scope="module")
def made(clinic: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The tiny suite, run on a copy of the clinic."""
    place = tmp_path_factory.mktemp("suite")
    shutil.copytree(clinic, place / "clinic")
    return place, run_suite(tiny(), Request(data={"clinic": place / "clinic"}), place / "out")


# --- the files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", suite_names())
def test_a_suites_file_is_sound(name: str) -> None:
    suite = read_suite(name)
    assert suite.name == name
    for value in suite.values():
        assert value.source
        assert value.sure in ("read", "transcribed by eye")
        assert 0 <= value.value <= 1
    for task in suite.tasks:
        assert task.source in SOURCES, task.name
        assert task.licence_card is not None
        assert card(task.licence_card).kind == "dataset"
        assert task.get or name == "resolution"
    for recipe in [*suite.recipes, *(item for also in suite.also.values() for item in also.recipes)]:
        recipe.settings()


@pytest.mark.parametrize(
    ("suite", "task", "model", "protocol", "metric", "value", "n", "sure"),
    [  # copied by hand from the works named
        ("medmnist", "bloodmnist-224", "DenseNet-121", "end-to-end", "top1", 0.9902, 3421, "transcribed by eye"),
        ("medmnist", "bloodmnist-28", "SAM", "linear", "auroc", 0.7678, 3421, "transcribed by eye"),
        ("medmnist", "dermamnist-224", "DINO ViT-B", "linear", "top1", 0.8442, 2005, "transcribed by eye"),
        ("medmnist", "dermamnist-64", "SAM", "linear", "top1", 0.6688, 2005, "transcribed by eye"),
        ("medmnist", "dermamnist-128", "ViT-B/16", "knn", "top1", 0.7262, 2005, "transcribed by eye"),
        ("medmnist", "average-128", "VGG16", "end-to-end", "auroc", 0.9516, None, "transcribed by eye"),
        ("notebook", "bloodmnist-28", "vit-tiny-finetuned", "trained", "macro_f1", 0.9563, 3421, "read"),
        ("notebook", "bloodmnist-28", "resnet18-scratch", "trained", "top1", 0.9512, 3421, "read"),
        ("panderm", "pad-ufes-20", "PanDerm", "linear", "top1", 0.7593, 461, "read"),
        ("panderm", "ham10000", "BiomedCLIP", "linear", "balanced_accuracy", 0.1763, 1503, "read"),
        ("panderm", "ham10000-clean", "PanDerm", "linear", "weighted_f1", 0.9225, 1232, "read"),
        ("panderm", "isic-2020-10-percent", "DermLIP-PanDerm", "linear, 10 % of labels", "auroc", 0.8707, None, "read"),
        ("panderm", "snu", "DermFM-Zero", "zero-shot", "top1", 0.4450, None, "read"),
        ("gen2a", "teledermatology-25", "gen2a_port (baseline)", "trained", "top1", 0.67, 15561, "read"),
        ("gen2a", "teledermatology-25", "MedSigLIP fine-tuned end-to-end", "trained", "top3", 0.924, 15561, "read"),
        ("gen2a", "teledermatology-26", "gen2a_port rmsprop 1e-3 (baseline)", "trained", "top1", 0.657, 16380, "read"),
        ("gen2a", "teledermatology-26", "convnextv2_base + strong reg", "trained", "auroc", 0.957, 16380, "read"),
    ],
)
def test_published_numbers_are_as_published(
    suite: str, task: str, model: str, protocol: str, metric: str, value: float, n: int | None, sure: str
) -> None:
    found = [
        one
        for one in read_suite(suite).values()
        if (one.task, one.model, one.protocol, one.metric) == (task, model, protocol, metric)
    ]
    assert [(one.value, one.n, one.sure) for one in found] == [(value, n, sure)]


def test_the_suites_hold_the_tasks_of_their_publications() -> None:
    assert len(read_suite("derm12").tasks) == 12
    assert read_suite("derm12").protocol.seeds == (1, 9, 21, 42, 555)
    assert len(read_suite("panderm").tasks) == 9
    assert len(read_suite("medmnist").tasks) == 48
    assert len(read_suite("panderm").elsewhere) == 5
    assert [recipe.name for recipe in read_suite("notebook").recipes] == [
        "resnet18-scratch",
        "vit-tiny-frozen",
        "vit-tiny-finetuned",
        "dinov2-s-frozen",
        "dinov2-s-finetuned",
    ]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tasks": [{"name": "A b", "data": "x"}]}, "lower-case"),
        ({"protocol": {"metric": "log_loss"}}, "better when lower"),
        ({"protocol": {"seeds": [1, 1]}}, "different"),
        ({"published": [{**TINY["published"][0], "sure": "recalled"}]}, "sure"),
        ({"published": [{**TINY["published"][0], "values": {"a": [1.0, 2.0]}}]}, "2 values for 1 tasks"),
        ({"taks": []}, "did you mean 'tasks'"),
    ],
)
def test_a_wrong_suite_is_one_clear_line(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        tiny(**changes)


# --- running --------------------------------------------------------------------------------------------------------


def test_a_suite_runs_what_is_here_and_says_how_to_get_the_rest(made: tuple[Path, dict[str, Any]]) -> None:
    place, record = made
    assert {(row["task"], row["method"]) for row in record["rows"]} == {("first", "knn"), ("first", "linear")}
    assert len(record["rows"]) == 4
    (left,) = record["skipped"]
    assert left["task"] == "second"
    assert left["why"] == "not here"
    assert "ask the clinic for it" in left["reason"]
    assert "--data elsewhere=DIR" in left["reason"]
    assert record["elsewhere"][0]["status"] == "no task code in this dermlab"
    frame = pd.read_csv(place / "out" / "results.csv")
    assert set(frame["metric"]) >= {"macro_f1", "top1", "auroc"}
    assert (frame["low"] <= frame["value"]).all()
    assert (frame["value"] <= frame["high"]).all()
    few = record["tasks"][0]["few_shot"]
    assert {curve["encoder"] for curve in few["curves"]} == {"histogram", RANDOM}


def test_each_seed_is_a_split_of_its_own_by_patient(made: tuple[Path, dict[str, Any]]) -> None:
    place, record = made
    dataset = Dataset.open(place / "clinic")
    frame = dataset.read_split(record["tasks"][0]["data"]["split"])
    assert sorted(frame["repeat"].unique()) == [0, 1]
    parts = [part["split"].to_numpy() for _, part in frame.groupby("repeat")]
    assert (parts[0] != parts[1]).any()
    for part in parts:
        assert abs((part == "test").mean() - 0.15) < 0.05
        assert abs((part == "val").mean() - 0.15) < 0.05
        groups = [set(dataset.groups()[part == name]) for name in ("train", "val", "test")]
        assert not groups[0] & groups[1]
        assert not (groups[0] | groups[1]) & groups[2]


def test_the_numbers_are_scikit_learns(made: tuple[Path, dict[str, Any]]) -> None:
    """Both heads on both splits, written down with scikit-learn alone."""
    place, record = made
    dataset = Dataset.open(place / "clinic")
    X, y = embed(dataset, "histogram").values, dataset.labels("diagnosis").astype(str)
    frame = dataset.read_split(record["tasks"][0]["data"]["split"])
    ours = {row["method"]: row["metrics"]["macro_f1"]["value"] for row in record["rows"] if row["model"] == "histogram"}
    classes = dataset.card.target("diagnosis").classes
    linear, nearest = [], []
    for _, part in frame.groupby("repeat"):
        rows = {name: np.flatnonzero(part["split"].to_numpy() == name) for name in ("train", "val", "test")}
        fitted = LogisticRegression(C=1.0, max_iter=10_000, tol=1e-8).fit(X[rows["train"]], y[rows["train"]])
        linear.append(f1_score(y[rows["test"]], fitted.predict(X[rows["test"]]), average="macro"))
        tried = []
        for k in (1, 5):
            head = KNeighborsClassifier(k, metric="cosine", algorithm="brute").fit(X[rows["train"]], y[rows["train"]])
            # Equal votes go to the first class in the card's order, scikit-learn's own to the first in the alphabet's.
            order = [list(head.classes_).index(name) for name in classes if name in head.classes_]
            scores = []
            for name in ("val", "test"):
                votes = head.predict_proba(X[rows[name]])[:, order]
                called = head.classes_[np.array(order)[votes.argmax(axis=1)]]
                scores.append(f1_score(y[rows[name]], called, average="macro"))
            tried.append((scores[0], k, scores[1]))
        nearest.append(max(tried)[2])
    assert ours["linear"] == pytest.approx(np.mean(linear), abs=1e-6)
    assert ours["knn"] == pytest.approx(np.mean(nearest), abs=1e-6)


def test_a_second_run_repeats_nothing(made: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    place, record = made
    from dermlab.adapt import probe

    monkeypatch.setattr(probe, "_fit_fold", lambda *_: pytest.fail("a finished head was fitted again"))
    again = run_suite(tiny(), Request(data={"first": place / "clinic"}), place / "out")
    assert [row["metrics"] for row in again["rows"]] == [row["metrics"] for row in record["rows"]]


@pytest.mark.slow
def test_tasks_in_processes_give_the_same(made: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    place, record = made
    tasks = [TINY["tasks"][0], {"name": "again", "data": "clinic", "target": "severity"}]
    few = {**TINY["protocol"], "few_shot": None}
    suite = tiny(tasks=tasks, encoders=["histogram"], protocol=few)
    found = run_suite(suite, Request(data={"clinic": place / "clinic"}, jobs=2), tmp_path)
    assert [task["task"] for task in found["tasks"]] == ["first", "again"]
    mine = {row["method"]: row["metrics"] for row in found["rows"] if row["task"] == "first"}
    before = {row["method"]: row["metrics"] for row in record["rows"] if row["model"] == "histogram"}
    assert set(mine) == set(before)
    for method, metrics in mine.items():
        assert {name: one["value"] for name, one in metrics.items()} == pytest.approx(
            {name: one["value"] for name, one in before[method].items()}
        )


def test_a_model_that_is_not_here_is_left_out_with_its_sentence(
    made: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    place, _ = made
    suite = tiny(protocol={**TINY["protocol"], "few_shot": None}, encoders=["histogram", "panderm_large"])
    found = run_suite(suite, Request(data={"clinic": place / "clinic"}), tmp_path)
    assert {row["model"] for row in found["rows"]} == {"histogram"}
    (left,) = [item for item in found["skipped"] if item["model"]]
    assert left["model"] == "panderm_large"
    assert left["why"] == "not here"


def test_where_no_task_can_be_opened_nothing_is_a_result(tmp_path: Path) -> None:
    tasks = [{"name": "first", "data": "photos", "source": "ph2"}]
    (tmp_path / "photos").mkdir()
    with pytest.raises(InputError, match=r"no task could be run\. first: .*PH2_dataset"):
        run_suite(tiny(tasks=tasks), Request(data_root=tmp_path), tmp_path / "out")
    assert not (tmp_path / "out" / "results.json").exists()


def test_ray_is_asked_for_by_name_and_missing_is_one_line(
    made: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, _ = made
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(InputError, match=r"dermlab\[ray\]"):
        run_suite(tiny(), Request(data={"clinic": place / "clinic"}, executor="ray"), tmp_path)


def test_ray_runs_the_same_function(made: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    """With a ray that does at once what it is asked: the work handed to it is that of the processes."""
    place, record = made

    class Remote:
        def __init__(self, function: Any) -> None:
            self.remote = function

    class Ray:
        seen: dict[str, Any] = {}  # noqa: RUF012

        def init(self, **given: Any) -> None:
            import os

            self.seen |= given | {"statistics": os.environ["RAY_USAGE_STATS_ENABLED"]}

        def remote(self, **_: Any) -> Any:
            return Remote

        def wait(self, waiting: list[Any], num_returns: int) -> tuple[list[Any], list[Any]]:
            return waiting[:num_returns], waiting[num_returns:]

        def get(self, one: Any) -> Any:
            return one

        def shutdown(self) -> None: ...

    monkeypatch.setitem(__import__("sys").modules, "ray", Ray())
    found = run_suite(tiny(), Request(data={"clinic": place / "clinic"}, executor="ray"), place / "out")
    assert [row["metrics"] for row in found["rows"]] == [row["metrics"] for row in record["rows"]]
    assert Ray.seen["statistics"] == "0"
    assert not Ray.seen["include_dashboard"]


# --- the official split ---------------------------------------------------------------------------------------------


def test_an_official_test_part_stays_and_val_is_drawn_from_training(clinic: Path, tmp_path: Path) -> None:
    shutil.copytree(clinic, tmp_path / "clinic")
    dataset = Dataset.open(tmp_path / "clinic")
    official = dataset.read_split("main").assign(split=lambda frame: frame["split"].replace("val", "train"))
    dataset.write_split("official", official)
    task = {"name": "first", "data": "clinic", "split": {"rule": "official", "val": 0.2}}
    suite = tiny(tasks=[task])
    _, frame, told = make_split(dataset, suite.tasks[0], suite)
    for _, part in frame.groupby("repeat"):
        assert ((part["split"].to_numpy() == "test") == (official["split"].to_numpy() == "test")).all()
        assert (part["split"] == "val").any()
    assert not told
    own = tiny(tasks=[{**task, "split": {"rule": "official", "val": None}}])
    dataset.write_split("official", dataset.read_split("main"))
    _, frame, _ = make_split(dataset, own.tasks[0], own)
    assert (frame["split"].to_numpy() == dataset.read_split("main")["split"].to_numpy()).all()


def test_without_an_official_split_it_is_said(clinic: Path, tmp_path: Path) -> None:
    shutil.copytree(clinic, tmp_path / "clinic")
    suite = tiny(tasks=[{"name": "first", "data": "clinic", "split": {"rule": "official", "val": 0.2}}])
    _, _, told = make_split(Dataset.open(tmp_path / "clinic"), suite.tasks[0], suite)
    assert "no official split" in told[0]


# --- averages and verdicts ------------------------------------------------------------------------------------------


def row(task: str, model: str, value: float, method: str = "linear", **more: Any) -> dict[str, Any]:
    scored = {"value": value, "low": value - 0.05, "high": value + 0.05}
    return {
        "task": task,
        "model": model,
        "method": method,
        "metrics": {"top1": scored},
        "n_parameters": 1,
        "n": 10,
        "official": True,
    } | more


def test_a_mean_is_over_the_tasks_that_every_model_has() -> None:
    rows = [row("a", "x", 0.5), row("b", "x", 0.7), row("c", "x", 0.99), row("a", "y", 0.6), row("b", "y", 0.9)]
    (table,) = averages(rows, {"a": "top1", "b": "top1", "c": "top1"})
    assert table["tasks"] == ["a", "b"]
    assert table["left_out"] == ["c"]
    assert {item["model"]: item["mean"] for item in table["models"]} == pytest.approx({"y": 0.75, "x": 0.6})
    assert table["across"]["n_datasets"] == 2
    assert table["diagram"] is None  # two models have no critical difference


def test_three_models_have_a_diagram(made: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    rows = [
        row(task, model, value + k / 50)
        for k, task in enumerate("abc")
        for model, value in zip("xyz", (0.5, 0.6, 0.7), strict=True)
    ]
    (table,) = averages(rows, dict.fromkeys("abc", "top1"))
    tasks = [{**made[1]["tasks"][0], "task": name} for name in "abc"]
    record = {**made[1], "tables": [table], "tasks": tasks}
    write_json(tmp_path / "results.json", record)
    assert "data:image/svg+xml" in write_suite(tmp_path).read_text(encoding="utf-8")
    assert (tmp_path / table["diagram"]).read_text(encoding="utf-8").startswith("<?xml")


@pytest.mark.parametrize(
    ("theirs", "n", "n_theirs", "said"),
    [
        (0.5, 10, 10, CANNOT_TELL),
        (0.3, 10, 10, HIGHER),
        (0.8, 10, 10, LOWER),
        (0.3, 10, 11, OTHER_CASES),
        (0.3, 10, None, OTHER_CASES),
        (0.3, None, None, OTHER_CASES),
    ],
)
def test_what_is_said_of_ours_beside_theirs(theirs: float, n: int | None, n_theirs: int | None, said: str) -> None:
    assert verdict({"value": 0.52, "low": 0.4, "high": 0.6}, theirs, n, n_theirs) == said


def test_a_network_of_the_same_name_is_compared_with_its_own_value_alone() -> None:
    published = [
        PublishedValue("a", model, "top1", 0.5, 10, "trained", "", "there", "read") for model in ("x", "other")
    ]
    found = beside([row("a", "x", 0.5, "trained"), row("a", "new", 0.5, "trained")], published)
    assert [(item["ours"], item["theirs"]) for item in found] == [("x", "x"), ("new", "x"), ("new", "other")]


def test_photos_that_were_drawn_here_are_never_their_test_cases() -> None:
    published = [PublishedValue("a", "x", "top1", 0.1, 10, "linear", "", "there", "read")]
    verdicts = [beside([row("a", "x", 0.5, official=official)], published)[0]["verdict"] for official in (True, False)]
    assert verdicts == [HIGHER, OTHER_CASES]


def test_percent_becomes_a_share_without_a_neighbour() -> None:
    table = Published(
        metric="top1",
        protocol="knn",
        tasks=("a", "b"),
        values={"m": (94.85, None)},
        unit="percent",
        source="s",
        sure="read",
    )
    assert [(value.task, value.value) for value in table.flat()] == [("a", 0.9485)]


# --- MedMNIST's own evaluator ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["multiclass", "binary", "multilabel", "ordinal"])
def test_medmnists_evaluator_agrees_on_random_scores(kind: str) -> None:
    random = np.random.default_rng(3)
    n, n_classes = 400, 2 if kind == "binary" else 5
    classes = tuple(f"c{code}" for code in range(n_classes))
    scores = random.random((n, n_classes))
    frame = pd.DataFrame({"image_id": [f"i{row}" for row in range(n)]})
    frame["unit"] = frame["group"] = frame["image_id"]
    frame["split"], frame["fold"], frame["repeat"], frame["seed"], frame["target"] = "test", 0, 0, 0, "t"
    if kind == "multilabel":
        for code, name in enumerate(classes):
            frame[f"y:{name}"] = random.integers(0, 2, n).astype(float)
            frame[f"p:{name}"] = scores[:, code]
    else:
        scores /= scores.sum(axis=1, keepdims=True)
        frame["label"] = np.array(classes)[random.integers(0, n_classes, n)]
        for code, name in enumerate(classes):
            frame[f"p:{name}"] = scores[:, code]
    table = Predictions(frame, classes, {"kind": kind, "group_by": "image_id", "unit": "image"})
    theirs = evaluator_scores(table)
    ours = summarise(table, n_boot=100)
    accuracy = "label_accuracy" if kind == "multilabel" else "top1"
    assert theirs is not None
    assert ours["auroc"]["value"] == pytest.approx(theirs["auc"], abs=1e-12)
    assert ours[accuracy]["value"] == pytest.approx(theirs["acc"], abs=1e-12)


# --- the command ----------------------------------------------------------------------------------------------------


def test_the_command_writes_a_page_that_escapes(
    made: tuple[Path, dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place, _ = made
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(TINY), encoding="utf-8")
    command = ["suite", str(file), "--data", f"clinic={place / 'clinic'}", "--out", str(place / "out")]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "mean of 1" in said
    assert "left out: second" in said
    page = (place / "out" / "suite.html").read_text(encoding="utf-8")
    assert "Two &lt;tasks&gt; of a clinic" in page
    assert "<tasks>" not in page
    assert "no task code in this dermlab" in page
    assert "nowhere, table 1" in page
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["suite"] == "tiny"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["derm13"], "did you mean 'derm12'"),
        (["derm12"], "no task's photos are here"),
        (["derm12", "--tasks", "ph3"], "did you mean 'ph2'"),
        (["derm12", "--data", "ph2"], "NAME=DIR"),
        (["derm12", "--data", "ph2=/no/such"], "no such folder"),
        (["derm12", "--also", "size"], "the suite has no 'size'"),
        (["derm12", "--encoders", "resnet5o"], "resnet50"),
        (["derm12", "--recipes", "nothing"], "of the suite: vit-tiny-finetuned"),
    ],
)
def test_wrong_turns_are_one_line(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["suite", *words, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err.strip()
    assert said in error
    assert "\n" not in error
    assert not (tmp_path / "out").exists()


def test_every_task_says_how_to_get_its_photos() -> None:
    for name in suite_names():
        for task in read_suite(name).tasks:
            assert f"--data {task.data}=" in how_to_get(task)


def test_results_are_json(made: tuple[Path, dict[str, Any]]) -> None:
    place, record = made
    stored = read_json(place / "out" / "results.json")
    assert [row["metrics"] for row in stored["rows"]] == [row["metrics"] for row in record["rows"]]
    assert stored["published"][0]["source"] == "nowhere, table 1"


# --- trained networks, the resolution study, the plan ---------------------------------------------------------------

RECIPE: dict[str, Any] = {
    "encoder": "timm:test_resnet+random",
    "size_px": 32,
    "fit": "squash",
    "frozen_epochs": 0,
    "finetune_epochs": 2,
    "learning_rate": 0.003,
    "max_train_samples": 60,
    "augmentation": "none",
    "metric": "top1",
    "precision": "fp32",
    "n_boot": 100,
}


def test_networks_are_trained_with_each_seed_and_the_last_epoch_stands_beside_the_best(
    clinic: Path, tmp_path: Path
) -> None:
    shutil.copytree(clinic, tmp_path / "clinic")
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(RECIPE), encoding="utf-8")
    recipe = {"name": "small", "file": str(tmp_path / "small.yaml"), "seeds": [3, 4]}
    protocol = {"seeds": [1], "metric": "top1", "heads": [], "n_boot": 100}
    suite = tiny(recipes=[recipe], encoders=[], protocol=protocol, tasks=TINY["tasks"][:1])
    record = run_suite(suite, Request(data={"clinic": tmp_path / "clinic"}, device="cpu"), tmp_path / "out")
    (trained,) = record["rows"]
    assert trained["method"] == "trained"
    assert trained["seeds"] == 2
    runs = [tmp_path / "out" / "tasks" / "first" / "recipes" / f"small-seed{seed}" for seed in (3, 4)]
    each = [read_json(run / "metrics.json")["top1"]["value"] for run in runs]
    assert trained["metrics"]["top1"]["value"] == pytest.approx(np.mean(each))
    # Where the best epoch is the last, both say the same; the last epoch's val is the history's last line.
    reports = [read_json(run / "checkpoints" / "repeat0-fold0" / "model.json")["report"] for run in runs]
    if all(report["best_epoch"] == len(report["history"]) for report in reports):
        assert trained["last_epoch"]["top1"]["value"] == pytest.approx(trained["metrics"]["top1"]["value"])
    dataset = Dataset.open(tmp_path / "clinic")
    table = FittedFinetune.open(runs[0])
    probabilities, _ = table.predict(dataset, epoch="last")
    frame = table_of(runs[0]).query("split == 'val'")
    rows = pd.Index(dataset.image_ids).get_indexer(frame["image_id"])
    right = np.array(table.classes)[probabilities[rows].argmax(axis=1)] == frame["label"].to_numpy()
    assert right.mean() == pytest.approx(reports[0]["history"][-1]["val_top1"])
    page = write_suite(tmp_path / "out").read_text(encoding="utf-8")
    assert "Last epoch" in page
    assert "data:image/png" in page  # the training curves


def table_of(run: Path) -> pd.DataFrame:
    return pd.read_parquet(run / "predictions.parquet")


def test_the_resolution_study_shows_every_size_and_way(clinic: Path, tmp_path: Path) -> None:
    shutil.copytree(clinic, tmp_path / "clinic")
    suite = tiny(
        resolution={"sizes": [16, 32], "interpolations": ["nearest", "bicubic"]},
        encoders=["timm:test_resnet+random"],
        protocol={"seeds": [0], "heads": ["knn"], "n_boot": 100},
        tasks=TINY["tasks"][:1],
    )
    record = run_suite(suite, Request(data={"clinic": tmp_path / "clinic"}, device="cpu"), tmp_path / "out")
    study = record["tasks"][0]["resolution"]
    assert {(row["size_px"], row["way"]) for row in study["rows"]} == {
        (size, way) for size in (16, 32) for way in ("nearest", "bicubic", "as it is")
    }
    seen = {(row["size_px"], row["way"]): row["input_px"] for row in study["rows"]}
    assert seen[16, "as it is"] == 16
    assert seen[16, "nearest"] == seen[32, "bicubic"] > 32
    assert "64 photos looked at have a side below" not in " ".join(study["warnings"])
    for _, file in study["figures"]:
        assert (tmp_path / "out" / file).is_file()
    values = [row["metrics"]["macro_f1"]["value"] for row in study["rows"]]
    again = run_suite(suite, Request(data={"clinic": tmp_path / "clinic"}, device="cpu"), tmp_path / "out")
    assert [row["metrics"]["macro_f1"]["value"] for row in again["tasks"][0]["resolution"]["rows"]] == values
    assert "Resolution:" in write_suite(tmp_path / "out").read_text(encoding="utf-8")


def test_a_dry_run_tells_disk_and_hours_and_touches_nothing(
    clinic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.yaml"
    tasks = [TINY["tasks"][0], {**TINY["tasks"][1], "n": 1000, "photo_px": 100}]
    file.write_text(yaml.safe_dump({**TINY, "tasks": tasks}), encoding="utf-8")
    command = ["suite", str(file), "--data", f"clinic={clinic}", "--out", str(tmp_path / "out"), "--dry_run"]
    assert main([*command, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    here, missing = plan["tasks"]
    assert here["n"] == len(Dataset.open(clinic))
    assert missing["download_bytes"] == 1000 * 100 * 100 * 3
    paces = {pace["model"]: pace["images_per_second"] for pace in plan["paces"]}
    assert missing["hours"][RANDOM] == pytest.approx(1000 / paces[RANDOM] / 3600)
    assert plan["hours"] == pytest.approx(here["hours_in_all"] + missing["hours_in_all"])
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "photos/s" in said
    assert "ask the clinic for it" in said
    assert not (tmp_path / "out").exists()


def test_a_bakeoff_suite_takes_other_encoders_and_recipes() -> None:
    suite = read_suite("gen2a")
    given = Request(data={"clinic": Path(__file__).parent}, encoders=("histogram",))
    laid = select(suite, given).suite.bakeoff
    assert laid is not None
    assert laid["encoders"] == ["histogram"]
    assert laid["decomposition"]["baseline"] == "resnet50 rmsprop"
    two = tuple(suite.known_recipes()[name] for name in ("resnet50-rmsprop", "resnet50-adamw"))
    laid = select(suite, Request(data=given.data, recipes=two)).suite.bakeoff
    assert laid is not None
    assert [item["name"] for item in laid["candidates"]] == ["resnet50 rmsprop", "resnet50 adamw"]
    assert laid["decomposition"] is None  # it names candidates that are not asked for
    config = BakeoffConfig(**{**with_recipe_paths(laid), "data": "anywhere"})
    assert [item.label for item in config.candidates] == ["resnet50 rmsprop", "resnet50 adamw"]


def test_a_bakeoff_suite_runs_on_a_clinic_with_a_questionnaire(clinic: Path, tmp_path: Path) -> None:
    shutil.copytree(clinic, tmp_path / "clinic")
    bakeoff = {"use": "research", "encoders": ["histogram"], "heads": ["linear"], "ensemble": False}
    protocol = {"seeds": [17], "metric": "top1", "metrics": ["top1", "top3"], "n_boot": 100}
    suite = tiny(bakeoff=bakeoff, protocol=protocol, encoders=[], tasks=TINY["tasks"][:1])
    record = run_suite(suite, Request(data={"clinic": tmp_path / "clinic"}, device="cpu"), tmp_path / "out")
    rows = {row["model"]: row for row in record["rows"]}
    assert {"histogram-linear", "majority", "questionnaire"} <= set(rows)
    assert rows["questionnaire"]["floor"]
    assert record["tasks"][0]["bakeoff"] in write_suite(tmp_path / "out").read_text(encoding="utf-8")
    assert (tmp_path / "out" / record["tasks"][0]["bakeoff"]).is_file()


def test_the_suite_of_the_how_to_is_one() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "how-to" / "suites.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```yaml\n(.*?)```", page, flags=re.DOTALL)
    suite = validate(Suite, yaml.safe_load(block))
    assert [task.name for task in suite.tasks] == ["north", "south"]
    for name in suite_names():
        assert f"`{name}`" in page


def test_a_page_for_the_documentation_has_the_same_numbers(made: tuple[Path, dict[str, Any]]) -> None:
    _, record = made
    text = as_markdown(record)
    value = record["rows"][0]["metrics"]["macro_f1"]
    assert f"{value['value']:.3f} ({value['low']:.3f}–{value['high']:.3f})" in text
    assert "ask the clinic for it" in text
