"""Paired comparison: against statsmodels, DeLong's own example, brute force, hand counts and simulated null worlds."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from made_up import CLASSES, as_table, simulated
from sklearn.metrics import f1_score
from statsmodels.stats.contingency_tables import mcnemar as their_mcnemar
from statsmodels.stats.multitest import multipletests

from dermlab.core.errors import InputError
from dermlab.core.randomness import generator
from dermlab.evaluate import compare_predictions, ranks, summarise, write_predictions
from dermlab.evaluate.cases import Cases, cases_from_arrays
from dermlab.evaluate.compare import bootstrap_p, clustered_mcnemar, holm, mcnemar, permutation_test
from dermlab.evaluate.influence import auroc_influence, delong
from dermlab.evaluate.intervals import BLOCK
from dermlab.evaluate.metrics import Evaluation

# DeLong, DeLong & Clarke-Pearson 1988, Biometrics 44: albumin, total protein, K-G score, benefit of surgery.
OVARIAN = """
3.0 5.8 10 0  3.2 6.3 5 1  3.9 6.8 3 1  2.8 4.8 6 0  3.2 5.8 3 1  0.9 4.0 5 0  2.5 5.7 8 0  1.6 5.6 5 1
3.8 5.7 5 1  3.7 6.7 6 1  3.2 5.4 4 1  3.8 6.6 6 1  4.1 6.6 5 1  3.6 5.7 5 1  4.3 7.0 4 1  3.6 6.7 4 0
2.3 4.4 6 1  4.2 7.6 4 0  4.0 6.6 6 0  3.5 5.8 6 1  3.8 6.8 7 1  3.0 4.7 8 0  4.5 7.4 5 1  3.7 7.4 5 1
3.1 6.6 6 1  4.1 8.2 6 1  4.3 7.0 5 1  4.3 6.5 4 1  3.2 5.1 5 1  2.6 4.7 6 1  3.3 6.8 6 0  1.7 4.0 7 0
3.7 6.1 5 1  3.3 6.3 7 1  4.2 7.7 6 1  3.5 6.2 5 1  2.9 5.7 9 0  2.1 4.8 7 1  2.8 6.2 8 0  4.0 7.0 7 1
3.3 5.7 6 1  3.7 6.9 5 1  3.6 6.6 5 1
"""


def test_mcnemar_equals_statsmodels() -> None:
    for a_only, b_only in itertools.product((0, 1, 4, 9, 30), repeat=2):
        theirs = their_mcnemar([[5, a_only], [b_only, 7]], exact=True).pvalue
        assert mcnemar(a_only, b_only) == pytest.approx(min(1.0, theirs))


@pytest.mark.parametrize("seed", range(5))
def test_holm_equals_statsmodels(seed: int) -> None:
    ps = np.random.default_rng(seed).random(12).round(1) ** 3
    assert holm(ps.tolist()) == pytest.approx(multipletests(ps, method="holm")[1].tolist())


def test_holm_passes_over_undefined_tests() -> None:
    assert holm([0.01, np.nan, 0.04])[:1] == pytest.approx([0.02])
    assert np.isnan(holm([0.01, np.nan, 0.04])[1])
    assert holm([]) == []


def test_delongs_own_example() -> None:
    """Areas, standard errors and p as published for the paper's data (SAS/STAT documentation, LOGISTIC, example 8)."""
    data = np.array(OVARIAN.split(), float).reshape(-1, 4)
    label = data[:, 3].astype(int)
    scores = {"albumin": data[:, 0], "protein": data[:, 1], "K-G": 10 - data[:, 2]}
    cases = {name: cases_from_arrays(label, np.column_stack([-x, x]), classes=[0, 1]) for name, x in scores.items()}
    area = {name: Evaluation([item], ["auroc"]).value()["auroc"] for name, item in cases.items()}
    influence = {name: auroc_influence([item]) for name, item in cases.items()}
    published = {"albumin": (0.7366, 0.0927), "protein": (0.6478, 0.1000), "K-G": (0.7258, 0.1028)}
    for name, (value, error) in published.items():
        assert area[name] == pytest.approx(value, abs=5e-5)
        assert np.sqrt(influence[name].variance()) == pytest.approx(error, abs=5e-5)
    for name, difference, error, p in (("albumin", 0.0108, 0.0953, 0.9102), ("protein", -0.0780, 0.1046, 0.4561)):
        gap = influence[name] - influence["K-G"]
        assert area[name] - area["K-G"] == pytest.approx(difference, abs=5e-5)
        assert np.sqrt(gap.variance()) == pytest.approx(error, abs=5e-5)
        assert delong(area[name] - area["K-G"], gap) == pytest.approx(p, abs=5e-5)


# Petryshen & Rudner 1989: 29 psychiatrists, 135 pairs of visits; b, c, n of each, as given in R's clust.bin.pair 0.1.2.
PSYCHIATRY = """
0 4 7  1 2 6  1 3 7  1 2 6  0 1 4  3 3 6  3 0 5  3 2 8  1 2 4  0 4 7  0 2 3  1 4 6  0 3 7  0 2 6  0 1 5
0 3 4  0 1 6  0 2 5  3 0 4  1 0 3  1 0 5  2 2 4  0 1 4  0 2 2  0 2 3  0 0 2  0 0 2  0 1 3  0 1 1
"""
# Obuchowski 1998: PET and SPECT of 21 patients' parathyroid glands; found (1) or not, gland by gland.
GLANDS_PET = "000 110 111 1 110 1111 111 11 11 1 110 11 111 11 00 110 110 110 11 1 11"
GLANDS_SPECT = "011 111 111 1 111 1111 111 11 10 1 110 11 111 11 11 110 110 111 11 1 11"


def test_mcnemar_of_clustered_answers_gives_the_published_values() -> None:
    """Durkalski et al. 2003 give 7.542 for the psychiatrists, and 2.32 (McNemar 4.5) for the glands."""
    b, c, n = np.array(PSYCHIATRY.split(), float).reshape(-1, 3).T
    assert clustered_mcnemar(b - c, n, method="durkalski")[0] == pytest.approx(7.542, abs=5e-4)
    pairs = list(zip(GLANDS_PET.split(), GLANDS_SPECT.split(), strict=True))
    gap = np.array([sum(map(int, pet)) - sum(map(int, spect)) for pet, spect in pairs], float)
    sizes = np.array([len(pet) for pet, _ in pairs])
    assert clustered_mcnemar(gap, sizes, method="durkalski")[0] == pytest.approx(2.32, abs=5e-3)
    with pytest.raises(InputError, match="Durkalski"):
        clustered_mcnemar(gap, method="durkalski")


def test_mcnemar_of_single_answers_is_the_uncorrected_one() -> None:
    gap = np.array([1.0] * 9 + [-1.0] * 3 + [0.0] * 88)
    statistic, p = clustered_mcnemar(gap)
    theirs = their_mcnemar([[50, 9], [3, 38]], exact=False, correction=False)
    assert statistic == pytest.approx(theirs.statistic * 99 / 100)
    assert p == pytest.approx(scipy.stats.chi2.sf(statistic, 1))
    assert clustered_mcnemar(np.zeros(5)) == (0.0, 1.0)


def test_the_clustered_variance_is_that_of_the_bootstrap() -> None:
    """Macro AUROC over four classes with patients: the deviations' sum of squares and 4,000 replicates agree."""
    from dermlab.evaluate.intervals import resample

    label, probabilities, group = simulated(3, n=600, n_groups=200)
    cases = cases_from_arrays(label, probabilities, group)
    draws = resample([Evaluation([cases], ["auroc"])], n_boot=4000, seed=0, names=["auroc"])[0]["auroc"]
    assert np.sqrt(auroc_influence([cases]).variance()) == pytest.approx(draws.std(), rel=0.06)


def test_the_permutation_test_of_accuracy_is_the_exact_one() -> None:
    """Ten patients: all 1,024 arrangements against the sampled ones."""
    random = np.random.default_rng(1)
    group = np.repeat(np.arange(10), 3)
    label = random.integers(0, 2, 30)
    said = [np.where(random.random(30) < chance, label, 1 - label) for chance in (0.85, 0.55)]
    gap = np.bincount(group, (said[0] == label) * 1.0 - (said[1] == label))
    exact = np.mean([abs(np.dot(gap, signs)) >= abs(gap.sum()) for signs in itertools.product((1, -1), repeat=10)])
    evaluations = [Evaluation([Cases(label, one, None, group, 10, ("x", "y"))], ["top1"]) for one in said]
    found = permutation_test([(evaluations[0], evaluations[1])], ["top1"], n_permutations=9999, seed=0)[0]["top1"]
    assert found == pytest.approx(exact, abs=0.015)
    assert found == pytest.approx(
        scipy.stats.permutation_test(
            (gap, np.zeros(10)), lambda x, y, axis: (x - y).sum(axis=axis), permutation_type="samples", vectorized=True
        ).pvalue,
        abs=0.015,
    )


def test_the_permutation_test_swaps_whole_patients() -> None:
    """Macro-F1: swapping rows of the drawn patients and scoring with scikit-learn gives exactly the same p."""
    label, good, group = simulated(0, n=80, n_groups=20, skill=1.8)
    _, fair, _ = simulated(0, n=80, n_groups=20, skill=1.5)
    evaluations = [Evaluation([cases_from_arrays(label, one, group)], ["macro_f1"]) for one in (good, fair)]
    pair = (evaluations[0], evaluations[1])
    ours = permutation_test([pair], ["macro_f1"], n_permutations=BLOCK, seed=3)[0]["macro_f1"]
    a, b = good.argmax(axis=1), fair.argmax(axis=1)
    names, codes = np.unique(group, return_inverse=True)
    swaps = generator(3, "permutation", 0).integers(0, 2, size=(len(names), BLOCK), dtype=np.int8) == 0
    gaps = []
    for swap in [np.zeros(len(names), bool), *swaps.T]:
        x, y = np.where(swap[codes], b, a), np.where(swap[codes], a, b)
        gaps.append(abs(f1_score(label, x, average="macro") - f1_score(label, y, average="macro")))
    extreme = sum(gap >= gaps[0] - 1e-12 for gap in gaps)
    assert 1 < extreme < BLOCK
    assert ours == pytest.approx(extreme / (BLOCK + 1))


def test_p_of_the_bootstrap() -> None:
    draws = np.random.default_rng(0).normal(2.0, 1.0, 100_000)
    assert bootstrap_p(draws, 10**6) == pytest.approx(2 * scipy.stats.norm.sf(2.0), rel=0.05)
    assert bootstrap_p(draws, 8) > 2 * scipy.stats.t.sf(2.0, 7) * 0.95
    assert bootstrap_p(np.zeros(100), 50) == pytest.approx(1.0)
    assert np.isnan(bootstrap_p(np.array([np.nan]), 50))


def test_permuted_labels_give_uniform_p_values() -> None:
    """Two models that know nothing, clustered patients: each test rejects at about its level, McNemar too often."""
    ps: dict[str, list[float]] = {}
    for seed in range(120):
        random = np.random.default_rng([5, seed])
        group = np.repeat(np.arange(40), 4)
        label = random.choice(3, 40)[group]  # a patient has one diagnosis, so errors come in fours
        sets = []
        for _ in range(2):
            scores = random.normal(size=(40, 3))[group] + 0.3 * random.normal(size=(160, 3))
            powers = np.exp(scores)
            sets.append(cases_from_arrays(label, powers / powers.sum(axis=1, keepdims=True), group, classes=range(3)))
        names = ["top1", "macro_f1", "balanced_accuracy"]
        pair = tuple(Evaluation([item], names) for item in sets)
        found = permutation_test([pair], names, n_permutations=199, seed=seed)[0]
        area = [Evaluation([item], ["auroc"]).value()["auroc"] for item in sets]
        found["auroc"] = delong(area[0] - area[1], auroc_influence(sets[:1]) - auroc_influence(sets[1:]))
        right = [item.correct() for item in sets]
        found["mcnemar"] = mcnemar(int((right[0] > right[1]).sum()), int((right[0] < right[1]).sum()))
        for name, p in found.items():
            ps.setdefault(name, []).append(p)
    for name in ("top1", "macro_f1", "balanced_accuracy"):
        assert scipy.stats.kstest(ps[name], "uniform").pvalue > 0.001, name
        assert np.mean(np.array(ps[name]) < 0.05) < 0.1, name
    assert np.mean(np.array(ps["auroc"]) < 0.05) < 0.1
    assert np.mean(np.array(ps["mcnemar"]) < 0.05) > 0.2


def by_hand(tmp_path: Any, name: str, right: str, *, meta: Any = None, **columns: Any) -> Any:
    """A table of two classes whose rows are right (1) or wrong (0)."""
    label = ["x" if place % 2 else "y" for place in range(len(right))]
    said = [one if hit == "1" else ("y" if one == "x" else "x") for one, hit in zip(label, right, strict=True)]
    frame = pd.DataFrame({"image_id": [f"i{k}" for k in range(len(right))], "label": label, **columns})
    for one in "xy":
        frame[f"p:{one}"] = [0.8 if answer == one else 0.2 for answer in said]
    return write_predictions(
        tmp_path / f"{name}.parquet", frame, {"classes": ["x", "y"], "model": name, **(meta or {})}
    )


def test_a_comparison_counted_by_hand(tmp_path: Any) -> None:
    """16 independent photos; only a right: 9, only b right: 1 → McNemar 2·(1+10)/2^10."""
    a = by_hand(tmp_path, "a", "1111111111110000")
    b = by_hand(tmp_path, "b", "1110000000001000")
    entry = compare_predictions({"a": a, "b": b}, metrics=["top1"], n_boot=500)[0]
    assert entry["discordant"] == [9, 1]
    assert entry["difference"] == pytest.approx(8 / 16)
    assert entry["p"] == pytest.approx(2 * 11 / 1024)
    assert entry["p_adjusted"] == entry["p"]
    assert entry["test"] == "exact McNemar"
    assert entry["verdict"] == "a better"
    assert (entry["n"], entry["n_groups"]) == (16, 16)
    assert (entry["value_a"], entry["value_b"]) == (12 / 16, 4 / 16)
    assert ranks([entry], ["a", "b"], "top1") == {"a": 1, "b": 2}
    turned = compare_predictions({"b": b, "a": a}, metrics=["top1"], n_boot=500)[0]
    assert (turned["verdict"], turned["discordant"], turned["difference"]) == ("b better", [1, 9], -0.5)


def test_the_same_counts_from_two_patients_prove_nothing(tmp_path: Any) -> None:
    group = ["P1"] * 8 + ["P2"] * 8
    a = by_hand(tmp_path, "a", "1111111111110000", group=group, meta={"group_by": "patient_id"})
    b = by_hand(tmp_path, "b", "1110000000001000", group=group)
    entry = compare_predictions({"a": a, "b": b}, metrics=["top1"], n_boot=500)[0]
    assert entry["verdict"] == "cannot tell apart"
    assert entry["p"] >= 0.4
    assert "permutation, by patient_id" in entry["test"]
    assert entry["warnings"] == ["only 2 groups: the interval is too narrow"]


def test_equal_models_cannot_be_told_apart(table: Callable[..., Any]) -> None:
    first, same = table(0, name="first"), table(0, name="same")
    for entry in compare_predictions({"first": first, "same": same}, n_boot=200, n_permutations=199):
        assert (entry["difference"], entry["low"], entry["high"]) == (0, 0, 0)
        assert entry["p"] == 1.0
        assert entry["verdict"] == "cannot tell apart"
        assert entry["groups_needed"] is None


def models(table: Callable[..., Any]) -> dict[str, Any]:
    """Three models of the same 300 photos: good, fair and its near twin."""
    return {
        "good": table(0, name="good", skill=3.0),
        "fair": table(0, name="fair", skill=1.5),
        "twin": table(0, name="twin", skill=1.45),
    }


def test_three_models_are_ranked(table: Callable[..., Any]) -> None:
    tables = models(table)
    comparison = compare_predictions(tables, n_boot=500, n_permutations=999, seed=1)
    assert len(comparison) == 3 * 4
    assert {entry["metric"] for entry in comparison} == {"top1", "balanced_accuracy", "macro_f1", "auroc"}
    for metric in ("top1", "balanced_accuracy", "macro_f1", "auroc"):
        entries = [entry for entry in comparison if entry["metric"] == metric]
        assert [(entry["a"], entry["b"]) for entry in entries] == [("good", "fair"), ("good", "twin"), ("fair", "twin")]
        adjusted = multipletests([entry["p"] for entry in entries], method="holm")[1]
        assert [entry["p_adjusted"] for entry in entries] == pytest.approx(adjusted.tolist())
        assert entries[0]["verdict"] == entries[1]["verdict"] == "a better"
        assert ranks(comparison, list(tables), metric)["good"] == 1
        for entry in entries:
            values = [summarise(tables[entry[side]], n_boot=100)[metric]["value"] for side in "ab"]
            assert entry["difference"] == pytest.approx(values[0] - values[1])
            assert entry["low"] <= entry["difference"] <= entry["high"]


def test_where_lower_is_better_the_lower_wins(table: Callable[..., Any]) -> None:
    entry = compare_predictions(models(table), metrics=["log_loss"], n_boot=500, n_permutations=999)[0]
    assert entry["difference"] < 0
    assert entry["verdict"] == "a better"


def test_metrics_of_one_class_can_be_compared(table: Callable[..., Any]) -> None:
    found = compare_predictions(
        models(table), metrics=["recall:MEL", "auroc:MEL", "ece"], n_boot=300, n_permutations=299
    )
    assert found[0]["verdict"] == "a better"
    assert found[0]["n"] == 300
    assert found[3]["test"] == "DeLong clustered, by patient_id"
    assert found[6]["test"] == "paired bootstrap, by patient_id"


def test_the_order_of_rows_and_of_classes_is_free(table: Callable[..., Any], tmp_path: Any) -> None:
    tables = models(table)
    moved = {}
    for name, one in tables.items():
        frame = one.frame.sample(frac=1, random_state=len(name))
        meta = {**one.meta, "classes": list(CLASSES[::-1])}
        moved[name] = write_predictions(tmp_path / f"moved_{name}.parquet", frame, meta)
    plain = compare_predictions(tables, n_boot=200, n_permutations=199)
    again = compare_predictions(moved, n_boot=200, n_permutations=199)
    for one, other in zip(plain, again, strict=True):
        for key in ("difference", "low", "high", "p"):
            assert one[key] == pytest.approx(other[key], abs=1e-12), (one["metric"], key)
        assert one["discordant"] == other["discordant"]


def test_the_same_seed_gives_the_same_bits(table: Callable[..., Any]) -> None:
    tables = models(table)
    first = compare_predictions(tables, n_boot=200, n_permutations=199, seed=5)
    assert compare_predictions(tables, n_boot=200, n_permutations=199, seed=5) == first
    assert compare_predictions(tables, n_boot=200, n_permutations=199, seed=6) != first


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_non_inferiority_and_equivalence(table: Callable[..., Any], method: Any) -> None:
    tables = models(table)
    wide = compare_predictions(tables, metrics=["top1"], margin=0.5, n_boot=500, n_permutations=99, method=method)
    assert all(entry["equivalent"] and entry["a_not_worse"] and entry["b_not_worse"] for entry in wide)
    narrow = compare_predictions(tables, metrics=["top1"], margin=0.01, n_boot=500, n_permutations=99, method=method)
    good_fair = narrow[0]
    assert good_fair["a_not_worse"]
    assert not good_fair["b_not_worse"]
    assert not good_fair["equivalent"]
    assert good_fair["p_equivalence"] > 0.5
    lower = compare_predictions(tables, metrics=["log_loss"], margin=0.01, n_boot=500, n_permutations=99)[0]
    assert lower["a_not_worse"]
    assert not lower["b_not_worse"]


def test_the_number_of_patients_needed_follows_the_square_law(table: Callable[..., Any]) -> None:
    entry = compare_predictions(models(table), metrics=["top1"], n_boot=2000, n_permutations=99)[0]
    spread = (entry["high"] - entry["low"]) / 2 / 1.96
    expected = entry["n_groups"] * (2.8 * spread / entry["difference"]) ** 2
    assert entry["groups_needed"] == pytest.approx(expected, rel=0.15)


def test_tables_of_different_images_are_refused_with_counts(table: Callable[..., Any]) -> None:
    first, second = table(0, name="first"), table(0, name="second")
    fewer = second.with_frame(second.frame.iloc[7:])
    with pytest.raises(InputError, match=r"293 in both, 7 only in first, 0 only in second \(such as 'im0'\)"):
        compare_predictions({"first": first, "second": fewer})


def test_tables_that_disagree_are_refused(table: Callable[..., Any], tmp_path: Any) -> None:
    first, second = table(0, name="first"), table(0, name="second")
    relabelled = second.frame.assign(label=second.frame["label"].replace({"MEL": "NEV"}))
    with pytest.raises(InputError, match=r"disagree on the true label of \d+ of 300 units"):
        compare_predictions({"first": first, "second": second.with_frame(relabelled)})
    regrouped = second.frame.assign(group=np.arange(300) // 3)
    with pytest.raises(InputError, match="different groups"):
        compare_predictions({"first": first, "second": second.with_frame(regrouped)})
    frame = as_table(*simulated(0), classes=("ACK", "BCC", "MEL", "XYZ"))
    other = write_predictions(tmp_path / "o.parquet", frame, {"classes": ["ACK", "BCC", "MEL", "XYZ"]})
    with pytest.raises(InputError, match="different classes: NEV, XYZ"):
        compare_predictions({"first": first, "second": other})
    with pytest.raises(InputError, match="at least two"):
        compare_predictions({"first": first})
    with pytest.raises(InputError, match="named twice"):
        compare_predictions({"first": first, "second": second}, metrics=["top1", "top1"])
    with pytest.raises(InputError, match="margin"):
        compare_predictions({"first": first, "second": second}, margin=-0.1)


def test_hard_labels_are_compared_by_what_they_have(table: Callable[..., Any], tmp_path: Any) -> None:
    first = table(0, name="first")
    hard = first.frame[["image_id", "label"]].assign(prediction="NEV")
    doctor = write_predictions(tmp_path / "doctor.parquet", hard, {"classes": list(CLASSES), "model": "doctor"})
    found = compare_predictions({"first": first, "doctor": doctor}, n_boot=200, n_permutations=199)
    assert [entry["metric"] for entry in found] == ["top1", "balanced_accuracy", "macro_f1"]
    assert found[0]["n_groups"] < found[0]["n"]  # patients are known from the other table
    assert found[0]["group_by"] == "patient_id"
    with pytest.raises(InputError, match="hard labels"):
        compare_predictions({"first": first, "doctor": doctor}, metrics=["auroc"])


def test_a_table_of_photos_is_pooled_like_the_table_that_knows_the_lesions(tmp_path: Any) -> None:
    label, probabilities, _ = simulated(0, n=120)
    label = np.repeat(label[::2], 2)
    frame = as_table(label, probabilities, np.arange(120) // 4)
    lesion = [f"L{k // 2}" for k in range(120)]
    meta = {"classes": list(CLASSES), "unit": "lesion", "group_by": "patient_id"}
    ours = write_predictions(tmp_path / "ours.parquet", frame.assign(unit=lesion), meta)
    theirs = write_predictions(tmp_path / "theirs.parquet", frame.drop(columns="group"), {"classes": list(CLASSES)})
    entry = compare_predictions({"ours": ours, "theirs": theirs}, metrics=["top1"], n_boot=200, n_permutations=99)[0]
    assert (entry["n"], entry["n_groups"], entry["difference"]) == (60, 30, 0)


def repeated(table: Any, seeds: list[int]) -> Any:
    """The same images scored by several training seeds, stacked."""
    frames = []
    for seed in seeds:
        noise = np.random.default_rng(seed).dirichlet(np.ones(4), len(table.frame))
        columns = [f"p:{name}" for name in CLASSES]
        frame = table.frame.assign(seed=seed)
        frame[columns] = 0.7 * frame[columns].to_numpy() + 0.3 * noise
        frames.append(frame)
    return table.with_frame(pd.concat(frames, ignore_index=True))


def test_seeds_are_averaged_and_not_counted_as_more_patients(table: Callable[..., Any]) -> None:
    base = table(0, name="base")
    single, triple = repeated(base, [1]), repeated(base, [1, 2, 3])
    metrics = summarise(triple, n_boot=300)
    values = [summarise(repeated(base, [seed]), n_boot=100)["auroc"]["value"] for seed in (1, 2, 3)]
    assert metrics["auroc"]["value"] == pytest.approx(np.mean(values))
    assert (metrics["n"], metrics["seeds"]) == (300, 3)
    width = [found["auroc"]["high"] - found["auroc"]["low"] for found in (summarise(single, n_boot=300), metrics)]
    assert width[1] > 0.7 * width[0]
    good = repeated(table(0, name="good", skill=3.0), [1, 2, 3])
    same = compare_predictions({"good": good, "base": triple}, metrics=["top1"], n_boot=200, n_permutations=199)[0]
    assert (same["n"], same["verdict"]) == (300, "a better")
    assert "permutation" in same["test"]
    uneven = compare_predictions({"good": good, "base": single}, metrics=["top1"], n_boot=200, n_permutations=199)[0]
    assert "bootstrap" in uneven["test"]


def test_the_design_effect_says_what_clusters_cost(table: Callable[..., Any], tmp_path: Any) -> None:
    """Every photo three times over in its patient: three times the variance that independent photos would have."""
    plain = [by_hand(tmp_path, name, right) for name, right in (("a", "1101111011110110"), ("b", "0110101001101011"))]
    entry = compare_predictions({"a": plain[0], "b": plain[1]}, n_boot=200, n_permutations=99)[0]
    assert entry["design_effect"] == 1.0
    assert "mcnemar_clustered" not in entry
    copied = []
    for one in plain:
        frame = pd.concat([one.frame.assign(image_id=one.frame["image_id"] + f"-{copy}") for copy in range(3)])
        frame = frame.assign(unit=frame["image_id"], group=frame["image_id"].str.partition("-")[0])
        copied.append(one.with_frame(frame.reset_index(drop=True)))
    entries = compare_predictions({"a": copied[0], "b": copied[1]}, n_boot=200, n_permutations=99)
    for entry in entries:
        # The corrections differ a little: n / (n - 1) with 16 patients or 48 photos, for AUROC those of one class.
        n = 8 if entry["metric"] == "auroc" else 16
        expected = 3 * (n / (n - 1)) / (3 * n / (3 * n - 1))
        assert entry["design_effect"] == pytest.approx(expected, rel=1e-6), entry["metric"]
        assert entry["units_needed"] == 3 * entry["groups_needed"] if entry["groups_needed"] else True
    gap = np.array([int(a) - int(b) for a, b in zip("1101111011110110", "0110101001101011", strict=True)]) * 3.0
    assert entries[0]["mcnemar_clustered"]["statistic"] == pytest.approx(clustered_mcnemar(gap)[0])
    others = compare_predictions(models(table), metrics=["ece", "sens@spec=0.9:MEL"], n_boot=200, n_permutations=99)
    assert others[0]["design_effect"] is None
    assert others[3]["test"] == "paired bootstrap, by patient_id"
    decided = compare_predictions(models(table), metrics=["ppv@prev=0.01:MEL"], n_boot=200, n_permutations=99)[0]
    assert decided["test"].startswith("paired permutation")
    assert decided["design_effect"] > 0.5


def test_photos_twice_over_leave_every_comparison_as_it_is(table: Callable[..., Any]) -> None:
    """Each photo a second time in its patient is no new evidence: the same values, intervals and p, to rounding."""
    tables = {"good": table(0, name="good", skill=2.0), "fair": table(0, name="fair")}
    twice = {
        name: one.with_frame(
            pd.concat(
                [one.frame, one.frame.assign(image_id=one.frame["image_id"] + "b", unit=one.frame["unit"] + "b")],
                ignore_index=True,
            )
        )
        for name, one in tables.items()
    }
    metrics = ["top1", "macro_f1", "auroc", "log_loss", "sens@spec=0.9:MEL"]
    once, again = (
        compare_predictions(one, metrics=metrics, n_boot=200, n_permutations=199, margin=0.05)
        for one in (tables, twice)
    )
    for one, other in zip(once, again, strict=True):
        for key in ("difference", "low", "high", "p", "p_equivalence", "groups_needed"):
            assert one[key] == pytest.approx(other[key], abs=1e-9), (one["metric"], key)
        assert other["n"] == 2 * one["n"]


def test_a_margin_in_points_is_refused_for_what_lies_within_0_and_1(table: Callable[..., Any]) -> None:
    """Two points are 0.02: a margin of 2 would call everything equivalent."""
    tables = {"a": table(0, name="a"), "b": table(0, name="b", skill=2.0)}
    for metrics in (["top1"], ["log_loss", "auroc"]):
        with pytest.raises(InputError, match=r"margin: 2 is more than .*; 0\.02 means 2 percentage points"):
            compare_predictions(tables, metrics=metrics, margin=2.0, n_boot=100, n_permutations=99)
