"""Figures by level of a column: fairlearn's numbers, intervals that allow for chance, silence about small groups."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up import CLASSES, as_table, simulated
from sklearn.metrics import accuracy_score, balanced_accuracy_score

from dermlab.core.errors import InputError
from dermlab.evaluate import write_predictions
from dermlab.evaluate.levels import NOT_RECORDED, choose_levels, with_columns
from dermlab.evaluate.predictions import Predictions
from dermlab.evaluate.subgroups import range_interval, subgroups, wald

FAST = {"n_boot": 200, "n_permutations": 99}


def described(tmp_path: Any, seed: int = 0, *, n: int = 600, **columns: Any) -> Any:
    """Return a predictions table with describing columns: functions of (group codes, random) or arrays."""
    label, probabilities, group = simulated(seed, n=n, n_groups=n // 3)
    frame = as_table(label, probabilities, group)
    random = np.random.default_rng(seed + 1)
    for name, values in columns.items():
        frame[name] = values(group, random) if callable(values) else values
    meta = {"classes": list(CLASSES), "group_by": "patient_id", "target": "diagnosis"}
    return write_predictions(tmp_path / "table.parquet", frame, meta)


def of_patient(*names: Any) -> Any:
    """Return a column that gives each patient one of the names."""
    return lambda group, random: np.array(names, dtype=object)[random.integers(0, len(names), group.max() + 1)[group]]


def by_level(column: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {one["level"]: one for one in column["levels"]}


def test_numbers_are_fairlearns(tmp_path: Any) -> None:
    fairlearn = pytest.importorskip("fairlearn.metrics")
    table = described(tmp_path, sex=of_patient("a", "b", "c"))
    frame, truth = table.frame, table.frame["label"].to_numpy()
    predicted = np.array(table.classes)[table.predicted()]
    found = subgroups(table, columns=["sex"], positive=["MEL", "BCC"], min_n=1, min_cases=1, **FAST)["columns"]["sex"]
    metrics = {"top1": accuracy_score, "balanced_accuracy": balanced_accuracy_score}
    theirs = fairlearn.MetricFrame(metrics=metrics, y_true=truth, y_pred=predicted, sensitive_features=frame["sex"])
    for name in metrics:
        ours = {level: one["metrics"][name]["value"] for level, one in by_level(found).items()}
        assert ours == pytest.approx(theirs.by_group[name].to_dict())
        gap = found["gaps"][name]
        assert gap["group_min"] == pytest.approx(theirs.group_min()[name])
        assert gap["group_max"] == pytest.approx(theirs.group_max()[name])
        assert gap["difference"]["value"] == pytest.approx(theirs.difference(method="between_groups")[name])
        assert gap["ratio"]["value"] == pytest.approx(theirs.ratio(method="between_groups")[name])
        assert gap["worst"] == theirs.by_group[name].idxmin()
    positive = [np.isin(values, ["MEL", "BCC"]).astype(int) for values in (truth, predicted)]
    fair, kw = found["fairness"], {"sensitive_features": frame["sex"]}
    for name in ("demographic_parity_difference", "demographic_parity_ratio", "equalized_odds_difference"):
        assert fair[name]["value"] == pytest.approx(getattr(fairlearn, name)(*positive, **kw))
        assert fair[name]["low"] <= fair[name]["value"] <= fair[name]["high"]
    rates = fairlearn.MetricFrame(
        metrics={"selection_rate": fairlearn.selection_rate, "false_positive_rate": fairlearn.false_positive_rate},
        y_true=positive[0],
        y_pred=positive[1],
        **kw,
    ).by_group
    for level, one in fair["levels"].items():
        for rate in rates:
            assert one[rate]["value"] == pytest.approx(rates.loc[level, rate])


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 2), st.sampled_from(["a", "b", "c", None]), st.integers(0, 4)),
        min_size=2,
        max_size=25,
    )
)
def test_numbers_are_fairlearns_on_odd_tables(rows: list[tuple[int, int, str | None, int]]) -> None:
    fairlearn = pytest.importorskip("fairlearn.metrics")
    frame = pd.DataFrame(rows, columns=["label", "prediction", "sex", "group"])
    frame[["label", "prediction"]] = frame[["label", "prediction"]].map("xyz".__getitem__)
    frame["group"] = [f"{group}-{sex}" for group, sex in zip(frame["group"], frame["sex"], strict=True)]
    frame["image_id"] = frame["unit"] = [f"i{row}" for row in range(len(frame))]
    frame = frame.assign(target="d", split="test", fold=0, repeat=0, seed=0)
    table = Predictions(frame, ("x", "y", "z"), {"kind": "multiclass"})
    found = subgroups(table, columns=["sex"], metrics=["top1"], min_n=1, min_cases=1, n_boot=10, n_permutations=5)
    levels = by_level(found["columns"]["sex"])
    assert sum(one["n"] for one in levels.values()) == len(frame)
    theirs = fairlearn.MetricFrame(
        metrics=accuracy_score,
        y_true=frame["label"],
        y_pred=frame["prediction"],
        sensitive_features=frame["sex"].fillna(NOT_RECORDED),
    ).by_group
    for name, one in levels.items():
        assert one["n_groups"] == frame.loc[frame["sex"].fillna(NOT_RECORDED) == name, "group"].nunique()
        if one["claimed"]:
            assert one["metrics"]["top1"]["value"] == pytest.approx(theirs[name])
        else:
            assert one["n_groups"] < 2
    json.dumps(found, allow_nan=False)


def test_a_planted_gap_is_found_and_the_group_named(tmp_path: Any) -> None:
    table = described(tmp_path, n=900, sex=of_patient("a", "b", "c"), device=of_patient("x", "y"))
    frame = table.frame.copy()
    columns = [f"p:{name}" for name in CLASSES]
    spoilt = (frame["sex"] == "b").to_numpy() & (np.random.default_rng(5).random(len(frame)) < 0.7)
    frame.loc[spoilt, columns] = frame.loc[spoilt, np.roll(columns, 1)].to_numpy()
    found = subgroups(table.with_frame(frame), n_boot=400, n_permutations=199)
    assert found["columns"]["sex"]["gaps"]["top1"]["worst"] == "b"
    assert found["columns"]["sex"]["gaps"]["top1"]["verdict"] == "levels differ"
    assert found["columns"]["sex"]["gaps"]["top1"]["difference"]["low"] > 0
    assert {(one["column"], one["level"]) for one in found["worse"]} == {("sex", "b")}
    assert found["columns"]["device"]["gaps"]["top1"]["verdict"] == "cannot tell apart"
    assert json.loads(json.dumps(found)) == found


def test_nothing_is_claimed_of_few(tmp_path: Any) -> None:
    def rare(group: np.ndarray, random: np.random.Generator) -> np.ndarray:
        return np.where(group < 4, "few", np.where(group % 2 == 0, "many", None))

    found = subgroups(described(tmp_path, device=rare), min_n=30, **FAST)
    column = by_level(found["columns"]["device"])
    assert [one["level"] for one in found["not_claimed"]] == ["few"]
    assert not column["few"]["claimed"]
    assert "of the 30 cases" in column["few"]["why"]
    assert set(column["few"]["metrics"].values()) == {None}
    assert column["few"]["against_rest"] == {}
    assert column["few"]["n"] < 30
    assert not column[NOT_RECORDED]["recorded"]
    assert column[NOT_RECORDED]["metrics"]["top1"]["low"] is not None
    assert found["columns"]["device"]["gaps"] == {}  # one claimed level has nothing to differ from


def test_averages_run_over_the_classes_that_both_sides_have(tmp_path: Any) -> None:
    table = described(tmp_path, n=900, sex=of_patient("a", "b"))
    frame = table.frame[~((table.frame["sex"] == "b") & (table.frame["label"] == "ACK"))].reset_index(drop=True)
    table = table.with_frame(frame)
    found = subgroups(table, metrics=["balanced_accuracy"], **FAST)["columns"]["sex"]
    gap = found["gaps"]["balanced_accuracy"]
    assert gap["classes"] == ["BCC", "MEL", "NEV"]
    hits = pd.Series(table.predicted() == table.truth()).groupby([frame["sex"], frame["label"]]).mean()
    expected = {sex: hits[sex][["BCC", "MEL", "NEV"]].mean() for sex in "ab"}
    assert gap["difference"]["value"] == pytest.approx(abs(expected["a"] - expected["b"]))
    level = by_level(found)["a"]
    assert level["classes"] == list(CLASSES)
    assert level["metrics"]["balanced_accuracy"]["value"] == pytest.approx(hits["a"].mean())
    assert level["against_rest"]["balanced_accuracy"]["value"] == pytest.approx(expected["a"])
    assert level["against_rest"]["balanced_accuracy"]["rest"] == pytest.approx(expected["b"])


def test_a_level_of_one_class_does_not_spoil_the_gap_of_the_others(tmp_path: Any) -> None:
    table = described(tmp_path, n=900, device=of_patient("a", "b", "c"))
    frame = table.frame
    kept = (frame["device"] != "c") | (frame["label"] == "NEV")
    found = subgroups(table.with_frame(frame[kept].reset_index(drop=True)), **FAST)["columns"]["device"]
    assert found["gaps"]["macro_f1"]["levels"] == ["a", "b"]
    assert found["gaps"]["top1"]["levels"] == ["a", "b", "c"]
    assert "fewer than two classes" in by_level(found)["c"]["why"]


def test_a_test_that_several_columns_share_is_counted_once(tmp_path: Any) -> None:
    sex = of_patient("a", "b", None)

    def twice(group: np.ndarray, random: np.random.Generator) -> Any:
        values = sex(group, np.random.default_rng(9))
        return np.where(pd.isna(values), None, np.where(values == "a", "c", values))

    same = described(tmp_path, sex=lambda group, _: sex(group, np.random.default_rng(9)), modality=twice)
    found = subgroups(same, metrics=["top1"], **FAST)
    assert list(found["columns"]) == ["sex"]  # the same partition is told once
    assert found["n_tests"] == 2  # a against b, and not recorded against both
    assert any("divides the units as sex does" in text for text in found["warnings"])
    a, b = (by_level(found["columns"]["sex"])[name]["against_rest"]["top1"] for name in "ab")
    assert a["p_adjusted"] == b["p_adjusted"]
    assert a["difference"] == pytest.approx(-b["difference"])


def test_order_of_rows_and_names_of_classes_change_nothing(tmp_path: Any) -> None:
    table = described(tmp_path, sex=of_patient("a", "b"), age=lambda group, random: 20 + group % 60)
    found = subgroups(table, **FAST)
    shuffled = table.with_frame(table.frame.sample(frac=1, random_state=0).reset_index(drop=True))
    assert subgroups(shuffled, **FAST) == found
    renamed = table.frame.rename(columns={f"p:{name}": f"p:{name.lower()}" for name in CLASSES})
    renamed["label"] = renamed["label"].str.lower()
    lower = type(table)(renamed, tuple(name.lower() for name in CLASSES), table.meta)
    other = subgroups(lower, **FAST)
    assert (
        other["columns"]["sex"]["gaps"]["auroc"]["difference"] == found["columns"]["sex"]["gaps"]["auroc"]["difference"]
    )
    assert other["columns"]["age"]["gaps"]["auroc"]["p"] == found["columns"]["age"]["gaps"]["auroc"]["p"]


def test_levels_that_vary_within_patients_are_tested_too(tmp_path: Any) -> None:
    def of_photo(group: np.ndarray, random: np.random.Generator) -> np.ndarray:
        return random.choice(["arm", "back"], len(group))

    table = described(tmp_path, n=900, region=of_photo)
    gap = subgroups(table, metrics=["top1"], **FAST)["columns"]["region"]["gaps"]["top1"]
    assert gap["test"] == "bootstrap Wald"
    assert 0 < gap["p"] <= 1


@pytest.mark.parametrize("metric", ["top1", "balanced_accuracy"])
def test_where_no_level_differs_few_are_said_to(tmp_path: Any, metric: str) -> None:
    rejected = 0
    for seed in range(30):
        table = described(tmp_path, 100 + seed, n=180, device=of_patient("a", "b", "c"))
        found = subgroups(table, columns=["device"], metrics=[metric], n_boot=20, n_permutations=59)
        rejected += found["columns"]["device"]["gaps"][metric]["p"] < 0.05
    assert rejected <= 5  # 1.5 expected; more than 5 of 30 has a probability of .003 at a true level of 5 %


@pytest.mark.parametrize("true", [(0.7, 0.7, 0.7, 0.7), (0.7, 0.7, 0.6, 0.75)])
def test_the_interval_of_a_largest_gap_keeps_its_level(true: tuple[float, ...]) -> None:
    random, spread, covered = np.random.default_rng(0), np.array([0.02, 0.05, 0.05, 0.1]), 0
    for _ in range(400):
        values = np.array(true) + random.normal(size=4) * spread
        draws = values[:, None] + random.normal(size=(4, 400)) * spread[:, None]
        found = range_interval(values, draws, 1000, 0.95)
        covered += found.low <= np.ptp(true) <= found.high
    assert covered >= 0.93 * 400


def test_where_no_level_differs_the_largest_gap_may_be_none() -> None:
    # The plain bootstrap of max − min never reaches 0, so it would always call the levels different.
    values = np.array([0.66, 0.68, 0.7, 0.72, 0.74])
    draws = values[:, None] + np.random.default_rng(2).normal(size=(5, 2000)) * 0.05
    assert np.quantile(np.ptp(draws, axis=0), 0.025) > 0.05
    found = range_interval(values, draws, 1000, 0.95)
    assert found.low == 0
    assert found.value == pytest.approx(0.08)


def test_wald_is_the_textbooks_chi_square_in_large_samples() -> None:
    from scipy.stats import chi2

    random = np.random.default_rng(1)
    values, spread = np.array([0.5, 0.55, 0.62]), np.array([0.02, 0.03, 0.04])
    draws = values[:, None] + random.normal(size=(3, 200_000)) * spread[:, None]
    weight = 1 / spread**2
    middle = (weight * values).sum() / weight.sum()
    expected = chi2.sf((weight * (values - middle) ** 2).sum(), 2)  # Cochran's Q
    assert wald(values, draws, 10**6) == pytest.approx(expected, rel=0.03)


def levels_of(**columns: Any) -> dict[str, Any]:
    frame = pd.DataFrame(columns)
    frame["unit"] = [f"u{row}" for row in range(len(frame))]
    found, _ = choose_levels(frame, frame["unit"].to_numpy(str), list(columns), list(columns), "table")
    return {one.column: one for one in found}


def words(levels: Any) -> list[str | None]:
    return [levels.names[code] if code >= 0 else None for code in levels.codes]


def test_columns_become_levels() -> None:
    found = levels_of(
        fitzpatrick=[1.0, 2.0, 4.0, np.nan, 6.0],
        age=[17.9, 18, 59, 75, None],
        itch=[True, False, None, True, True],
        bleed=["True", "False", None, "False", "True"],
        n_moles=[0, 1, 0, 2, 1],
    )
    assert words(found["fitzpatrick"]) == ["I", "II", "IV", None, "VI"]
    assert words(found["fitzpatrick (three bands)"]) == ["I–II", "I–II", "III–IV", None, "V–VI"]
    assert words(found["fitzpatrick (two bands)"]) == ["I–III", "I–III", "IV–VI", None, "IV–VI"]
    assert words(found["age"]) == ["0–17", "18–39", "40–59", "75 and over", None]
    assert words(found["itch"]) == ["yes", "no", None, "yes", "yes"]
    assert words(found["bleed"]) == ["yes", "no", None, "no", "yes"]
    assert words(found["n_moles"]) == ["0", "1", "0", "2", "1"]


def test_other_numbers_go_by_quarters() -> None:
    diameter = np.arange(1.0, 101.0)
    levels = levels_of(diameter=diameter)["diameter"]
    assert levels.names == ("1–25", "26–50", "51–75", "76–100")
    assert np.bincount(levels.codes).tolist() == [25, 25, 25, 25]


def test_a_pair_of_columns_is_crossed(tmp_path: Any) -> None:
    found = subgroups(
        described(tmp_path, n=900, sex=of_patient("a", "b"), skin_type=of_patient(1, 3, None)),
        columns=["sex*skin_type"],
        **FAST,
    )
    levels = by_level(found["columns"]["sex*skin_type"])
    assert list(levels) == ["a × I", "a × III", "b × I", "b × III", NOT_RECORDED]
    assert sum(one["n"] for one in levels.values()) == found["n"]


def test_a_clinics_own_table_is_joined_by_image(tmp_path: Any) -> None:
    table = described(tmp_path, sex=of_patient("a", "b"))
    manifest = (
        table.frame[["image_id"]]
        .iloc[::-1]
        .iloc[:-5]
        .assign(device=lambda frame: frame["image_id"].str[-1], sex="other", path="x", diagnosis="BCC")
    )
    joined = with_columns(table, manifest)
    assert set(joined.frame.columns) - set(table.frame.columns) == {"device"}
    assert joined.frame["sex"].equals(table.frame["sex"])
    known = joined.frame["device"].notna()
    assert (joined.frame["device"][known] == joined.frame["image_id"].str[-1][known]).all()
    assert (~known).sum() == 5
    assert any("5 images" in text for text in joined.warnings)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"columns": ["shoe_size"]}, "no column 'shoe_size'"),
        ({"columns": ["sex*"]}, "written a"),
        ({"positive": "XYZ"}, "'XYZ' is not one of the classes"),
        ({"positive": CLASSES}, "all classes"),
        ({"metrics": ["ece"]}, "larger in smaller groups"),
    ],
)
def test_what_cannot_be_answered_is_said(tmp_path: Any, options: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        subgroups(described(tmp_path, sex=of_patient("a", "b")), **options, **FAST)


def test_a_table_without_columns_says_so(tmp_path: Any) -> None:
    found = subgroups(described(tmp_path), **FAST)
    assert found["columns"] == {}
    assert any("no column to break" in text for text in found["warnings"])
    assert found["overall"]["top1"]["value"] is not None
    with pytest.raises(InputError, match="no image of it"):
        with_columns(described(tmp_path), pd.DataFrame({"image_id": ["zzz"], "sex": ["a"]}))


def test_levels_without_a_spread_have_no_interval() -> None:
    """Thirty of thirty right on both sides is not the certainty that the levels are alike."""
    found = range_interval(np.array([1.0, 1.0]), np.ones((2, 200)), 30, 0.95)
    assert found.value == 0
    assert np.isnan(found.low)
    assert np.isnan(found.high)
