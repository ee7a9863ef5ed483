"""Label efficiency: how labels are drawn, that heads are scikit-learn's, and how labels needed are read off."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.isotonic import isotonic_regression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from dermlab.bench import label_efficiency as module
from dermlab.bench.curve_settings import Curves
from dermlab.bench.label_efficiency import (
    ALL,
    Curve,
    Fold,
    Linear,
    NearestNeighbours,
    Size,
    crossing,
    draw_order,
    label_efficiency,
    make_sizes,
    monotone,
)
from dermlab.cli import main
from dermlab.core.errors import InputError
from dermlab.core.randomness import generator
from dermlab.data.dataset import Dataset
from dermlab.evaluate import bootstrap
from dermlab.features.extract import Features

QUICK: dict[str, Any] = {
    "per_class": (1, 3, 10),
    "percent": (10.0, 50.0),
    "repeats": 3,
    "n_boot": 100,
    "k": (1, 5),
    "C": (1e-3, 1e-1),
}


@pytest.fixture(scope="module")
def world(clinic: Path) -> tuple[Dataset, dict[str, Features], pd.DataFrame]:
    """The clinic with features that tell its classes apart, well but not perfectly."""
    dataset = Dataset.open(clinic)
    codes = pd.Index(dataset.card.target(None).classes).get_indexer(pd.Index(dataset.labels(None)))
    values = np.random.default_rng(0).normal(size=(len(dataset), 20)) + 2.5 * np.eye(20)[codes]
    valid = np.ones(len(dataset), bool)
    described = {"fingerprint": "made up", "name": "made-up"}
    made_up = Features(values.astype(np.float32), valid, {}, described, 0.0, 0, 0.0)
    return dataset, {"made-up": made_up}, dataset.read_split("folds3")


@pytest.fixture(scope="module")
def made(
    world: tuple[Dataset, dict[str, Features], pd.DataFrame], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    dataset, features, split = world
    out = tmp_path_factory.mktemp("curves")
    settings = Curves(split="folds3", **QUICK)
    return out, label_efficiency(dataset, features, settings, out, split)


def made_fold(n_repeats: int = 4) -> tuple[np.ndarray, Fold]:
    """Return features with some signal and a fold of patients of up to four photos."""
    random = np.random.default_rng(0)
    codes = random.integers(0, 3, 500)
    values = (random.normal(size=(500, 40)) + np.eye(40)[codes] * 2.5).astype(np.float32)
    patient = np.arange(500) // 3
    pool, val, test = np.arange(300), np.arange(300, 390), np.arange(390, 500)
    draws = [draw_order(codes[pool], patient[pool], 3, generator(0, "labels", number)) for number in range(n_repeats)]
    return values, Fold(pool, val, test, codes, draws)


@pytest.mark.parametrize("seed", range(5))
def test_patients_are_drawn_whole_but_for_the_last_of_a_class(seed: int) -> None:
    random = np.random.default_rng(seed)
    codes, groups = random.integers(0, 3, 200), random.integers(0, 60, 200)
    for code, order in enumerate(draw_order(codes, groups, 3, random)):
        assert sorted(order) == np.flatnonzero(codes == code).tolist()
        for n in (1, 5, 20, len(order)):
            drawn, left = set(groups[order[:n]]), set(groups[order[n:]])
            assert len(drawn & left) <= 1


def test_all_classes_draw_their_patients_in_the_same_order() -> None:
    random = np.random.default_rng(0)
    codes, groups = random.integers(0, 2, 100), random.integers(0, 20, 100)
    first, second = (list(dict.fromkeys(groups[order])) for order in draw_order(codes, groups, 2, random))
    shared = [group for group in first if group in second]
    assert shared == [group for group in second if group in shared]


def test_a_larger_draw_holds_the_smaller_and_repeats_differ() -> None:
    _, fold = made_fold()
    sizes = [Size(f"{n}", f"n{n}", per_class=n) for n in (1, 4, 30)] + [ALL]
    for repeat in range(4):
        drawn = [set(fold.drawn(size, repeat).tolist()) for size in sizes]
        assert drawn[0] < drawn[1] < drawn[2] < drawn[3] == set(range(300))
    assert set(fold.drawn(sizes[1], 0)) != set(fold.drawn(sizes[1], 1))


def test_a_draw_has_exactly_its_number_of_each_class_or_all_there_are() -> None:
    size, share = Size("10", "n10", per_class=10), Size("5%", "p5", share=0.05)
    assert size.counts(np.array([4, 0, 50])).tolist() == [4, 0, 10]
    assert share.counts(np.array([4, 0, 50, 200])).tolist() == [1, 0, 2, 10]
    _, fold = made_fold()
    rows = fold.drawn(size, 0)
    assert np.bincount(fold.codes[fold.pool[rows]]).tolist() == [10, 10, 10]


def test_sizes_that_leave_nothing_out_are_all() -> None:
    names = [size.name for size in make_sizes(Curves(), np.array([12, 150, 40]))]
    assert names[:5] == ["1 per class", "3 per class", "10 per class", "30 per class", "100 per class"]
    assert names[5:] == ["1%", "2%", "5%", "10%", "20%", "50%", "all"]


def test_no_patient_is_in_a_draw_and_in_val_or_test(world: tuple[Dataset, dict[str, Features], pd.DataFrame]) -> None:
    dataset, _, split = world
    target = dataset.card.target(None)
    codes = pd.Index(target.classes).get_indexer(pd.Index(dataset.labels(None)))
    groups = dataset.groups()
    for fold in module._folds(dataset, split, codes, Curves(**QUICK), len(target.classes)):
        drawn = set(groups[fold.pool[fold.drawn(ALL, 0)]])
        assert not drawn & set(groups[fold.val])
        assert not drawn & set(groups[fold.test])


def test_a_split_that_shares_patients_is_refused(
    world: tuple[Dataset, dict[str, Features], pd.DataFrame], tmp_path: Path
) -> None:
    dataset, features, split = world
    torn = split.assign(split=np.resize(["train", "val", "test"], len(split)))
    with pytest.raises(InputError, match="is in train and in val or test"):
        label_efficiency(dataset, features, Curves(**QUICK), tmp_path, torn)


@pytest.mark.parametrize("n", [1, 5, 60])
def test_knn_is_scikit_learn_s_with_k_chosen_on_val(n: int) -> None:
    values, fold = made_fold()
    ks = (1, 5, 20)
    draws = [fold.drawn(Size("", "", per_class=n), repeat) for repeat in range(3)]
    settings = Curves(k=ks, weights="uniform", metrics=("macro_f1",))
    found = NearestNeighbours(values, fold, settings, ["a", "b", "c"]).predict(draws)
    for place, rows in enumerate(draws):
        X, y = values[fold.pool[rows]], fold.codes[fold.pool[rows]]
        best = (-1.0, 0, None)
        for k in sorted({min(k, len(rows)) for k in ks}):
            model = KNeighborsClassifier(k, metric="cosine").fit(X, y)
            score = f1_score(fold.codes[fold.val], model.predict(values[fold.val]), average="macro")
            best = max(best, (score, k, model), key=lambda item: item[:2])
        assert found.chosen[place] == best[1]
        assert (found.predicted[place] == best[2].predict(values[fold.test])).all()


def test_a_pool_too_large_to_keep_all_similarities_gives_the_same_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    values, fold = made_fold()
    draws = [fold.drawn(Size("", "", per_class=n), 0) for n in (3, 60)]
    kept = NearestNeighbours(values, fold, Curves(), ["a", "b", "c"]).predict(draws)
    monkeypatch.setattr(module, "MOST_SIMILARITIES", 10)
    searched = NearestNeighbours(values, fold, Curves(), ["a", "b", "c"]).predict(draws)
    assert (kept.chosen == searched.chosen).all()
    np.testing.assert_allclose(kept.probabilities, searched.probabilities, atol=1e-5)


@pytest.mark.parametrize("n", [2, 10, 60])
def test_linear_is_scikit_learn_s_with_c_chosen_on_val(n: int) -> None:
    values, fold = made_fold()
    Cs = (1e-3, 1e-1, 10.0)
    draws = [fold.drawn(Size("", "", per_class=n), repeat) for repeat in range(3)]
    fitter = Linear(values, fold, Curves(C=Cs, metrics=("macro_f1",)), ["a", "b", "c"])
    found = fitter.predict(draws)
    assert found.converged.all()
    for place, rows in enumerate(draws):
        X, y = values[fold.pool[rows]], fold.codes[fold.pool[rows]]
        model = make_pipeline(
            StandardScaler(), LogisticRegression(C=found.chosen[place], tol=1e-8, max_iter=20_000)
        ).fit(X.astype(np.float64), y)
        expected = model.predict_proba(values[fold.test].astype(np.float64))
        np.testing.assert_allclose(found.probabilities[place], expected, atol=1e-2)
        scores = [
            f1_score(
                fold.codes[fold.val],
                make_pipeline(StandardScaler(), LogisticRegression(C=C, tol=1e-8, max_iter=20_000))
                .fit(X.astype(np.float64), y)
                .predict(values[fold.val]),
                average="macro",
            )
            for C in Cs
        ]
        assert scores[Cs.index(found.chosen[place])] > max(scores) - 0.02


def test_more_labels_help_and_every_number_has_its_interval(made: tuple[Path, dict[str, Any]]) -> None:
    _, found = made
    json.dumps(found)
    assert found["folds"] == 3
    assert found["n"] == 160
    for curve in found["curves"]:
        assert [point["size"] for point in curve["points"]][-1] == "all"
        for point in curve["points"]:
            assert point["draws"] == (1 if point["size"] == "all" else 3)
            for name in ("macro_f1", "balanced_accuracy", "top1"):
                assert point[name]["low"] <= point[name]["value"] <= point[name]["high"]
        first, last = curve["points"][0], curve["points"][-1]
        assert first["labels"] < last["labels"]
        assert first["macro_f1"]["value"] < last["macro_f1"]["value"]


def test_rows_hold_every_draw(made: tuple[Path, dict[str, Any]]) -> None:
    rows = pd.DataFrame(made[1]["rows"])
    assert (rows.groupby(["head", "size"]).size()[("knn", "3 per class")]) == 3
    for curve in made[1]["curves"]:
        for point in curve["points"]:
            mine = rows[(rows["head"] == curve["head"]) & (rows["size"] == point["size"])]
            assert mine["macro_f1"].mean() == pytest.approx(point["macro_f1"]["value"])


def test_all_labels_have_the_plain_bootstrap_s_interval(
    made: tuple[Path, dict[str, Any]], world: tuple[Dataset, dict[str, Features], pd.DataFrame]
) -> None:
    """One draw alone: nothing is left but the bootstrap over patients, with the same draws as everywhere."""
    out, found = made
    dataset, _, split = world
    target = dataset.card.target(None)
    stored = np.load(next(out.rglob("linear-all-0.npz")))
    rows = [np.flatnonzero(part["split"] == "test") for _, part in split.groupby(["repeat", "fold"])]
    predicted = np.concatenate([stored[f"answer{number}"][0] for number in range(3)])
    order = np.argsort(np.concatenate(rows))
    expected = bootstrap(
        "macro_f1",
        dataset.labels(None),
        np.array(target.classes, object)[predicted[order]],
        dataset.groups(),
        classes=list(target.classes),
        n_boot=100,
    )
    point = next(curve for curve in found["curves"] if curve["head"] == "linear")["points"][-1]["macro_f1"]
    assert (point["value"], point["low"], point["high"]) == pytest.approx(
        (expected.value, expected.low, expected.high), abs=1e-9
    )


def test_what_is_done_is_kept_and_what_is_missing_comes_out_the_same(
    made: tuple[Path, dict[str, Any]],
    world: tuple[Dataset, dict[str, Features], pd.DataFrame],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out, found = made
    dataset, features, split = world
    settings = Curves(split="folds3", **QUICK)
    next(out.rglob("linear-n3-0.npz")).unlink()
    fitted: list[int] = []
    original = Linear.predict
    monkeypatch.setattr(Linear, "predict", lambda self, draws: fitted.append(1) or original(self, draws))
    monkeypatch.setattr(NearestNeighbours, "predict", lambda self, draws: pytest.fail("kNN was done"))
    assert json.dumps(label_efficiency(dataset, features, settings, out, split)) == json.dumps(found)
    assert len(fitted) == 3  # the missing size in each of the three folds


def test_a_folder_begun_with_other_settings_is_refused(
    made: tuple[Path, dict[str, Any]], world: tuple[Dataset, dict[str, Features], pd.DataFrame]
) -> None:
    dataset, features, split = world
    with pytest.raises(InputError, match="choose another --out"):
        label_efficiency(dataset, features, Curves(split="folds3", **QUICK | {"seed": 1}), made[0], split)


def test_labels_needed_are_read_between_two_sizes_on_the_logarithm() -> None:
    labels, values = np.array([10.0, 100.0, 1000.0]), np.array([0.2, 0.4, 0.6])
    dip = np.array([0.2, 0.5, 0.3])  # levelled to .2, .4, .4
    curves = np.stack([values, dip], axis=1)
    assert crossing(labels, curves, 0.3) == pytest.approx([10**1.5, 10**1.5])
    assert crossing(labels, curves, 0.6).tolist() == [pytest.approx(1000), np.inf]
    assert crossing(labels, curves, 0.1).tolist() == [10, 10]
    assert crossing(labels, curves, 0.41).tolist() == [pytest.approx(10**2.05), np.inf]


def test_a_curve_is_made_monotone_as_scikit_learn_does() -> None:
    values = np.random.default_rng(0).normal(size=(7, 30)) + np.linspace(0, 1, 7)[:, None]
    expected = np.stack([isotonic_regression(column) for column in values.T], axis=1)
    np.testing.assert_allclose(monotone(values), expected, atol=1e-12)


def shifted(factor: float, noise: float = 0.0) -> Curve:
    """A curve that reaches everything with ``factor`` times the labels of another."""
    labels = np.array([10.0, 30.0, 100.0, 300.0, 1000.0])
    value = 0.15 * np.log10(labels / factor)
    drawn = np.random.default_rng(0).normal(size=(1, 400)) * noise
    return Curve(labels, value, value[:, None] + drawn)


def test_the_ratio_of_two_encoders_is_how_far_their_curves_are_shifted() -> None:
    read = {("a", "knn", "percent"): shifted(1, 0.005), ("b", "knn", "percent"): shifted(3, 0.005)}
    needed, ratios = module._needed(read, Curves(heads=("knn",), scores=(0.25, 0.36, 0.9)), ["a", "b"], 100)
    by_score = {entry["score"]: entry for entry in ratios}
    # The noise is the same for both: paired, it leaves the ratio alone.
    assert by_score[0.36]["ratio"]["value"] == pytest.approx(1 / 3, rel=1e-6)
    assert by_score[0.25]["ratio"]["low"] == pytest.approx(1 / 3, rel=1e-3)
    assert by_score[0.36]["headline"]
    assert by_score[0.36]["verdict"] == "a needs fewer"
    assert by_score[0.25]["verdict"] == "not tested"  # shown, not tested
    assert by_score[0.9]["verdict"] == "not reached"
    assert by_score[0.9]["ratio"] == {"value": None, "low": None, "high": None}
    never = [entry for entry in needed if entry["score"] == 0.9]
    assert {entry["reached"] for entry in never} == {"not reached"}
    assert never[0]["labels"]["value"] is None


def test_an_end_that_some_replicates_never_reach_is_open() -> None:
    read = {("a", "knn", "percent"): shifted(1, 0.05)}
    needed, _ = module._needed(read, Curves(heads=("knn",), scores=(0.16, 0.44)), ["a"], 100)
    early, late = needed
    assert early["labels"]["low"] is None  # with the smallest draw already
    assert late["labels"]["low"] is not None
    assert late["labels"]["high"] is None


def test_identical_encoders_cannot_be_told_apart() -> None:
    read = {(name, "knn", "percent"): shifted(1, 0.02) for name in ("a", "b")}
    _, ratios = module._needed(read, Curves(heads=("knn",)), ["a", "b"], 100)
    verdicts = {headline: {e["verdict"] for e in ratios if e["headline"] is headline} for headline in (True, False)}
    assert verdicts == {True: {"cannot tell apart"}, False: {"not tested"}}


def test_the_command_writes_json_table_and_pictures(clinic: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    words = ["label-efficiency", str(clinic), "--encoder", "histogram", "--out", str(out), "--repeats", "2"]
    words += ["--per_class", "1,5", "--percent", "[]", "--n_boot", "100", "--C", "0.01,0.1", "--k", "[1,5]"]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "5 per class" in shown
    assert "warning: only 2 draws of each size: too few to tell the range of 95% of single draws" in shown
    found = json.loads((out / "label_efficiency.json").read_text())
    assert {curve["head"] for curve in found["curves"]} == {"knn", "linear"}
    assert set(pd.read_csv(out / "label_efficiency.csv")["size"]) == {"1 per class", "5 per class", "all"}
    assert (out / "label_efficiency.png").read_bytes().startswith(b"\x89PNG")
    assert "labelled training photos" in (out / "label_efficiency.svg").read_text()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (["--metrics", "brier"], "must be better when higher"),
        (["--percent", "120"], "up to 100"),
        (["--per_class", "0"], "from 1"),
        (["--encoder", "histogram,histogram"], "twice"),
        (["--split", "none-such"], "no split"),
    ],
)
def test_a_wrong_turn_is_one_line(change: list[str], expected: str, clinic: Path, tmp_path: Path, capsys) -> None:
    words = ["label-efficiency", str(clinic), "--encoder", "histogram", "--out", str(tmp_path / "x")]
    assert main([*words, *change]) == 2
    assert expected in capsys.readouterr().err.strip().splitlines()[-1]


def test_the_p_of_a_ratio_goes_with_its_interval_where_patients_are_few() -> None:
    """With six patients the interval is widened; p is that at which it would just reach 1."""
    rng = np.random.default_rng(0)
    needed = np.exp(rng.normal(0.0, 1.0, 4000))
    for shift in (2.2, 2.5, 2.8, 3.1):
        found = module._ratio((float(np.exp(-shift)), needed * np.exp(-shift)), (1.0, np.ones(4000)), 6)
        assert (found["ratio"]["high"] < 1) == (found["p"] < 0.05)
    few = module._ratio((float(np.exp(-2.2)), needed * np.exp(-2.2)), (1.0, np.ones(4000)), 6)
    assert few["p"] > 0.05  # as if patients were many, it would be .03
