"""Splits: no group is divided, every image has its place, classes are spread as evenly as scikit-learn spreads them."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import StratifiedGroupKFold

from dermlab.core.errors import InputError
from dermlab.data.card import Card, Target
from dermlab.data.dataset import Dataset
from dermlab.data.splits import (
    balance,
    deal,
    linked_groups,
    split_by_date,
    split_by_folds,
    split_by_fraction,
    split_by_site,
)


def make(tmp_path, labels=None, name="set", **columns) -> Dataset:
    n = len(labels) if labels is not None else len(next(iter(columns.values())))
    frame = pd.DataFrame({"image_id": [f"i{k:06d}" for k in range(n)], "path": [f"images/{k}.jpg" for k in range(n)]})
    targets = ()
    if labels is not None:
        frame["dx"] = labels
        targets = (Target(column="dx", classes=tuple(sorted({x for x in labels if x is not None}))),)
    return Dataset.write(tmp_path / name, frame.assign(**columns), Card(name=name, targets=targets))


def clinic(tmp_path, n=600, n_patients=200, seed=0, name="set", **columns) -> Dataset:
    rng = np.random.default_rng(seed)
    labels = rng.choice(["a", "b", "c", "d"], n, p=[0.6, 0.25, 0.1, 0.05]).tolist()
    return make(tmp_path, labels, name, patient_id=[f"p{k}" for k in rng.integers(0, n_patients, n)], **columns)


def assert_is_split(frame: pd.DataFrame, dataset: Dataset, groups: np.ndarray, parts=("test", "train", "val")) -> None:
    """Every (repeat, fold) holds every image once, has every part, and no group in two parts."""
    group_of = dict(zip(dataset.image_ids, groups, strict=True))
    for _, block in frame.groupby(["repeat", "fold"]):
        assert sorted(block["image_id"]) == sorted(dataset.image_ids)
        assert tuple(sorted(block["split"].unique())) == parts
        owners = block.assign(group=block["image_id"].map(group_of)).groupby("group")["split"].nunique()
        assert (owners == 1).all()


# --- by fraction ---


@pytest.mark.parametrize("seed", range(5))
def test_fractions_are_met_stratified_and_groups_undivided(tmp_path, seed):
    dataset = clinic(tmp_path, seed=seed)
    frame = split_by_fraction(dataset, (0.6, 0.2, 0.2), seed=seed)
    assert_is_split(frame, dataset, dataset.groups())
    table = balance(frame, dataset.labels(), dataset.groups()).set_index("split")
    np.testing.assert_allclose(table["n_images"] / 600, [0.6, 0.2, 0.2], atol=0.005)
    assert table["worst_deviation"].abs().max() < 0.015
    dataset.write_split("main", frame)
    assert dataset.read_split("main")["split"].tolist() == frame["split"].tolist()


def test_the_same_seed_gives_the_same_split_whatever_the_order_of_rows(tmp_path):
    dataset = clinic(tmp_path)
    order = np.random.default_rng(1).permutation(len(dataset))
    shuffled = Dataset.write(tmp_path / "other", dataset.manifest.iloc[order], dataset.card)
    for split in (split_by_fraction, lambda data, seed: split_by_folds(data, 4, seed=seed)):
        one, same, other = split(dataset, seed=3), split(dataset, seed=3), split(dataset, seed=4)
        pd.testing.assert_frame_equal(one, same)
        assert (one["split"] != other["split"]).mean() > 0.2
        keys = ["repeat", "fold", "image_id"]
        back = split(shuffled, seed=3).sort_values(keys).reset_index(drop=True)
        pd.testing.assert_frame_equal(back, one.sort_values(keys).reset_index(drop=True))


def test_a_part_may_be_empty(tmp_path):
    frame = split_by_fraction(clinic(tmp_path), (0.8, 0, 0.2))
    assert set(frame["split"]) == {"train", "test"}


@pytest.mark.parametrize("fractions", [(0.5, 0.2), (0.6, 0.3, 0.3), (60, 20, 20), (1.2, -0.1, -0.1), (0, 0.5, 0.5)])
def test_shares_that_make_no_whole_are_refused(tmp_path, fractions):
    with pytest.raises(InputError, match="fractions: three shares for train, val and test that sum to 1"):
        split_by_fraction(clinic(tmp_path), fractions)


def test_images_without_labels_and_data_without_a_target_are_split_too(tmp_path):
    labels = ["a", "b", None] * 60
    dataset = make(tmp_path, labels, patient_id=[str(k // 2) for k in range(180)])
    frame = split_by_fraction(dataset)
    missing = pd.isna(pd.Series(dataset.labels()))
    shares = pd.crosstab(frame["split"], missing, normalize="index")[True]
    np.testing.assert_allclose(shares, 1 / 3, atol=0.04)
    unlabelled = make(tmp_path, name="flat", patient_id=[str(k // 3) for k in range(90)])
    frame = split_by_fraction(unlabelled)
    assert_is_split(frame, unlabelled, unlabelled.groups())
    assert frame["split"].value_counts().to_dict() == {"train": 54, "val": 18, "test": 18}


def test_a_multilabel_target_is_spread_class_by_class(tmp_path):
    rng = np.random.default_rng(0)
    marks = rng.random((400, 3)) < [0.5, 0.2, 0.05]
    names = np.array(["x", "y", "z"])
    frame = pd.DataFrame({"image_id": [f"i{k}" for k in range(400)], "path": [f"{k}.jpg" for k in range(400)]})
    frame["signs"] = [names[row].tolist() for row in marks]
    frame["patient_id"] = [f"p{k // 2}" for k in range(400)]
    card = Card(name="set", targets=(Target(column="signs", kind="multilabel", classes=("x", "y", "z")),))
    dataset = Dataset.write(tmp_path / "set", frame, card)
    split = split_by_folds(dataset, 4)
    table = balance(split, dataset.labels(), dataset.groups(), classes=("x", "y", "z"))
    tests = table[table["split"] == "test"]
    np.testing.assert_allclose(tests["share:z"], marks[:, 2].mean(), atol=0.015)


# --- folds ---


def test_folds_tile_the_data_and_val_is_a_grouped_part_of_the_rest(tmp_path):
    dataset = clinic(tmp_path)
    frame = split_by_folds(dataset, 5, n_repeats=2, val_fraction=0.25, seed=1)
    assert_is_split(frame, dataset, dataset.groups())
    assert frame.groupby(["repeat", "fold"]).ngroups == 10
    for _, block in frame.groupby("repeat"):
        tested = block.loc[block["split"] == "test", "image_id"]
        assert sorted(tested) == sorted(dataset.image_ids)
    sizes = frame.groupby(["repeat", "fold", "split"]).size().unstack()
    np.testing.assert_allclose(sizes["val"] / (sizes["val"] + sizes["train"]), 0.25, atol=0.01)
    first, second = (frame[frame["repeat"] == repeat]["split"].to_numpy() for repeat in (0, 1))
    assert (first != second).any()


def test_folds_are_as_even_as_scikit_learn_makes_them(tmp_path):
    for seed in range(3):
        dataset = clinic(tmp_path, n=400, n_patients=120, seed=seed, name=f"set{seed}")
        labels, groups = dataset.labels(), dataset.groups()
        overall = pd.Series(labels).value_counts(normalize=True)
        theirs = []
        for _, test in StratifiedGroupKFold(5, shuffle=True, random_state=seed).split(labels, labels, groups):
            share = pd.Series(labels[test]).value_counts(normalize=True).reindex(overall.index).fillna(0)
            theirs.append((share - overall).abs().max())
        table = balance(split_by_folds(dataset, 5, seed=seed), labels, groups)
        ours = table.loc[table["split"] == "test", "worst_deviation"].abs()
        assert ours.max() <= max(theirs) + 0.01


@pytest.mark.parametrize(("n_folds", "message"), [(1, "at least 2"), (9, "are too few for 9 folds")])
def test_impossible_folds_are_refused(tmp_path, n_folds, message):
    dataset = make(tmp_path, ["a", "b"] * 8, patient_id=[str(k // 2) for k in range(16)])
    with pytest.raises(InputError, match=message):
        split_by_folds(dataset, n_folds)


def test_a_class_in_too_few_groups_is_named(tmp_path, capsys):
    labels = ["a"] * 40 + ["rare"] * 6
    dataset = make(tmp_path, labels, patient_id=[str(k) for k in range(40)] + ["r1"] * 3 + ["r2"] * 3)
    split_by_folds(dataset, 5)
    assert "classes in fewer groups than there are folds (5) are absent from some: rare (2)" in capsys.readouterr().err


def test_every_part_gets_a_rare_class_where_there_are_groups_enough(tmp_path):
    for seed in range(10):
        labels = ["a"] * 300 + ["b"] * 100 + ["rare"] * 5
        dataset = make(tmp_path, labels, name=f"set{seed}", patient_id=[str(k) for k in range(405)])
        frame = split_by_folds(dataset, 5, seed=seed)
        tests = frame[(frame["split"] == "test")].merge(dataset.manifest[["image_id", "dx"]])
        assert (tests[tests["dx"] == "rare"].groupby("fold").size() == 1).all()


# --- groups ---


def test_groups_that_share_an_id_elsewhere_are_joined(tmp_path, capsys):
    #           0     1     2     3     4     5
    patients = ["p1", "p1", "p2", "p3", None, None]
    lesions = ["l1", "l2", "l2", "l3", "l3", None]
    dataset = make(tmp_path, patient_id=patients, lesion_id=lesions)
    assert linked_groups(dataset).tolist() == [0, 0, 0, 1, 1, 2]
    assert capsys.readouterr().err == ""
    labels = ["a", "b"] * 30
    dataset = make(
        tmp_path, labels, "long", patient_id=[f"p{k // 2}" for k in range(60)], lesion_id=["x"] * 3 + [None] * 57
    )
    frame = split_by_fraction(dataset)
    assert frame["split"][:4].nunique() == 1
    assert "2 values of patient_id share an id in another column and form 1 groups" in capsys.readouterr().err


def test_lesions_numbered_for_each_patient_are_suspected(tmp_path, capsys):
    patients = [f"p{k // 2}" for k in range(60)]
    dataset = make(
        tmp_path, ["a", "b"] * 30, patient_id=patients, lesion_id=["1", "2"] * 10 + [f"l{k}" for k in range(40)]
    )
    split_by_fraction(dataset)
    assert "the largest holds 20 of 60 images: are lesions numbered for each patient?" in capsys.readouterr().err


def test_by_another_column_patients_stay_together(tmp_path, capsys):
    rooms = [f"r{k // 10}" for k in range(100)]
    dataset = make(tmp_path, ["a", "b"] * 50, patient_id=[f"p{k // 4}" for k in range(100)], room=rooms)
    frame = split_by_fraction(dataset, by="room")
    for column in ("room", "patient_id"):
        assert_is_split(frame, dataset, dataset.manifest[column].to_numpy())
    capsys.readouterr()
    frame = split_by_fraction(dataset, by="image_id")
    assert "may put images of one patient into several parts" in capsys.readouterr().err
    assert frame.groupby(dataset.manifest["patient_id"])["split"].nunique().max() > 1
    with pytest.raises(InputError, match="no column 'rooms' to group by; there is image_id"):
        split_by_fraction(dataset, by="rooms")


# --- by site and date ---


def test_each_site_is_left_out_once(tmp_path):
    rng = np.random.default_rng(0)
    patients = rng.integers(0, 90, 300)
    sites = np.array(["Lyon", "Graz", "Oslo"])[patients % 3]
    dataset = clinic(tmp_path, n=300).manifest.assign(patient_id=[f"p{k}" for k in patients], site=sites)
    dataset = Dataset.write(tmp_path / "sites", dataset, clinic(tmp_path, n=300).card)
    frame = split_by_site(dataset, val_fraction=0.2)
    assert_is_split(frame, dataset, dataset.groups())
    for fold, site in enumerate(["Graz", "Lyon", "Oslo"]):
        block = frame[frame["fold"] == fold].reset_index(drop=True)
        assert (sites[block["split"] == "test"] == site).all()
        assert (sites[block["split"] != "test"] != site).all()


def test_a_patient_of_two_sites_counts_to_the_main_one(tmp_path, capsys):
    patients = [f"p{k // 3}" for k in range(60)]
    sites = ["A"] * 30 + ["B"] * 30
    sites[2] = "B"  # the third photo of p0
    dataset = make(tmp_path, ["a", "b"] * 30, patient_id=patients, site=sites)
    frame = split_by_site(dataset)
    assert_is_split(frame, dataset, dataset.groups())
    assert frame[frame["fold"] == 0]["split"].tolist()[:3] == ["test"] * 3
    assert "1 groups were photographed at several sites" in capsys.readouterr().err


def test_sites_must_be_known_and_several(tmp_path):
    labels, patients = ["a", "b"] * 10, [f"p{k}" for k in range(20)]
    with pytest.raises(InputError, match=r"column 'site' .* is needed here and not filled in"):
        split_by_site(make(tmp_path, labels, patient_id=patients))
    with pytest.raises(InputError, match="all images are of one site"):
        split_by_site(make(tmp_path, labels, "one", patient_id=patients, site=["A"] * 20))
    sites = ["A"] * 10 + ["B"] * 9 + [None]
    with pytest.raises(InputError, match=r"manifest\.parquet row 21, column 'site': blank"):
        split_by_site(make(tmp_path, labels, "gap", patient_id=patients, site=sites))


def test_train_lies_before_val_and_val_before_test(tmp_path):
    rng = np.random.default_rng(0)
    days = pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 1000, 500), unit="D")
    dataset = make(tmp_path, captured_at=days)
    frame = split_by_date(dataset, (0.6, 0.2, 0.2))
    date = dict(zip(dataset.image_ids, days, strict=True))
    when = frame["image_id"].map(date).groupby(frame["split"])
    assert when.max()["train"] < when.min()["val"]
    assert when.max()["val"] < when.min()["test"]
    np.testing.assert_allclose(
        frame["split"].value_counts(normalize=True)[["train", "val", "test"]], [0.6, 0.2, 0.2], atol=0.01
    )


def test_a_patient_who_came_back_goes_where_the_last_photo_belongs(tmp_path, capsys):
    days = pd.date_range("2020-01-01", periods=100)
    patients = [f"p{k}" for k in range(100)]
    patients[0] = patients[99]
    dataset = make(tmp_path, patient_id=patients, captured_at=days)
    frame = split_by_date(dataset)
    assert_is_split(frame, dataset, dataset.groups())
    assert frame["split"][0] == "test"
    last_train = days[frame["split"] == "train"].max()
    assert (days[(frame["split"] != "train")][1:] > last_train).all()
    assert "1 photos in val or test are older than the cut" in capsys.readouterr().err


def test_dates_must_be_known_and_different(tmp_path):
    day = pd.Timestamp("2020-01-01")
    with pytest.raises(InputError, match="2 different dates cannot be cut into 3 parts"):
        split_by_date(make(tmp_path, captured_at=[day, day, day + pd.Timedelta("1D")]))
    with pytest.raises(InputError, match="row 4, column 'captured_at': blank for every photo of this group"):
        split_by_date(make(tmp_path, name="gap", captured_at=[day, day, None, day]))
    # a few days only: every part still gets one
    frame = split_by_date(
        make(tmp_path, name="few", captured_at=[day] * 8 + [day + pd.Timedelta("1D"), day + pd.Timedelta("2D")])
    )
    assert frame["split"].tolist() == ["train"] * 8 + ["val", "test"]


# --- the dealing itself ---


def test_dealing_is_nearly_the_best_possible_on_small_problems():
    rng = np.random.default_rng(0)
    shares = np.array([0.5, 0.25, 0.25])
    for seed in range(2):
        counts = rng.integers(0, 4, (8, 3)).astype(float)
        counts = np.column_stack([counts, counts.sum(axis=1)])
        total = counts.sum(axis=0)

        def distance(parts, counts=counts, total=total):
            got = np.stack([counts[np.asarray(parts) == k].sum(axis=0) for k in range(3)])
            goal = np.outer(shares, total)
            return ((got - goal) ** 2 / np.maximum(goal, 1e-9)).sum()

        best = min(distance(parts) for parts in itertools.product(range(3), repeat=8))
        ours = distance(deal(counts, shares, np.random.default_rng(seed)))
        typical = np.median([distance(rng.integers(0, 3, 8)) for _ in range(200)])
        assert ours - best < 0.15 * (typical - best)


def test_which_of_equal_groups_goes_where_is_drawn():
    counts = np.ones((100, 2))
    draws = [deal(counts, np.array([0.5, 0.0, 0.5]), np.random.default_rng(seed)) for seed in range(2)]
    assert all(np.bincount(draw, minlength=3).tolist() == [50, 0, 50] for draw in draws)
    assert 20 < (draws[0] != draws[1]).sum() < 80


def test_128_000_images_of_26_classes_are_split_in_seconds(tmp_path):
    rng = np.random.default_rng(0)
    counts = rng.poisson(0.12, (40_000, 26)).astype(float)
    counts = np.column_stack([counts, counts.sum(axis=1)])
    start = time.process_time()
    part = deal(counts, np.full(5, 0.2), rng)
    assert time.process_time() - start < 10
    share = np.stack([counts[part == k].sum(axis=0) for k in range(5)]) / counts.sum(axis=0)
    np.testing.assert_allclose(share, 0.2, atol=0.002)


# --- balance ---


def test_balance_counts_images_groups_and_shares():
    frame = pd.DataFrame(
        {"image_id": list("abcdef"), "split": ["train"] * 3 + ["val"] + ["test"] * 2, "fold": 0, "repeat": 0}
    )
    labels = np.array(["x", "x", "y", "y", "x", None], dtype=object)
    table = balance(frame, labels, np.array([1, 1, 2, 3, 4, 4])).set_index("split")
    assert table["n_images"].to_dict() == {"train": 3, "val": 1, "test": 2}
    assert table["n_groups"].to_dict() == {"train": 2, "val": 1, "test": 1}
    np.testing.assert_allclose(table["share:x"], [2 / 3, 0, 1])
    np.testing.assert_allclose(table["share:y"], [1 / 3, 1, 0])
    assert table.loc["val", "worst_deviation"] == pytest.approx(-0.6)
    assert table.loc["test", "worst_class"] == "x"


def test_balance_refuses_a_split_of_other_images():
    frame = pd.DataFrame({"image_id": list("abc"), "split": "train", "fold": 0, "repeat": 0})
    with pytest.raises(InputError, match="a split of 3 rows is not of 2 images"):
        balance(frame, np.array(["x", "y"], dtype=object), np.array([1, 2]))
