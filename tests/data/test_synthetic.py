"""The synthetic clinic: reproducible, honest without traps, and with traps exactly as dishonest as it says."""

from __future__ import annotations

import itertools
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.stats import chi2_contingency
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from dermlab.commands.data_synth import DataSynthConfig, run
from dermlab.core.errors import InputError
from dermlab.core.files import read_json
from dermlab.data.dataset import Dataset
from dermlab.data.synthetic import make_clinic
from dermlab.data.synthetic.canvas import ITA_BANDS, RESTING_BLOOD, melanin_of, reflectance
from dermlab.data.synthetic.clinic import QUESTIONS
from dermlab.data.synthetic.looks import DIAGNOSES, LOOKALIKES, MALIGNANT, SUBTYPES
from dermlab.data.synthetic.patients import BLOCK, shots
from dermlab.data.synthetic.photo import render


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A clinic of 240 photos of 32 px."""
    return make_clinic(tmp_path_factory.mktemp("small") / "clinic", n=240, size_px=32, seed=11)


@pytest.fixture(scope="module")
def trapped(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A clinic of 150 photos of 64 px with planted faults."""
    return make_clinic(tmp_path_factory.mktemp("trapped") / "clinic", n=150, size_px=64, seed=5, traps=True)


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """What 3,000 photos' patients answered, without a single photo."""
    rows = [
        {
            "diagnosis": shot.lesion.diagnosis,
            "patient": shot.lesion.patient.patient_id,
            "site": shot.lesion.patient.site,
            "skin_type": shot.lesion.patient.skin_type,
            "modality": shot.dermoscopy,
            "n_photos": 1,
            **shot.answers,
            "device": shot.device,
        }
        for shot in itertools.islice(shots(3), 3000)
    ]
    return pd.DataFrame(rows)


def _pixels(dataset: Dataset, rows: slice = slice(None)) -> np.ndarray:
    return np.stack([np.asarray(Image.open(path).convert("RGB")) for path in dataset.paths[rows]])


def _masks(dataset: Dataset) -> np.ndarray:
    return np.stack([np.asarray(Image.open(dataset.folder / path)) for path in dataset.manifest["mask_path"]]) > 0


def _files(dataset: Dataset, n: int) -> list[bytes]:
    masks = [dataset.folder / path for path in dataset.manifest["mask_path"]]
    return [path.read_bytes() for path in [*dataset.paths[:n], *masks[:n]]]


def _best_auroc(values: np.ndarray, labels: np.ndarray) -> float:
    """Return the best one-vs-rest AUROC that a number alone reaches, in either direction."""
    scores = [roc_auc_score(labels == name, values) for name in np.unique(labels)]
    return max(max(score, 1 - score) for score in scores)


# The same clinic again


def test_a_photo_depends_on_seed_and_number_not_on_n_or_threads(tmp_path: Path) -> None:
    one = make_clinic(tmp_path / "one", n=24, size_px=48, seed=9, threads=1)
    two = make_clinic(tmp_path / "two", n=12, size_px=48, seed=9, threads=3)
    assert _files(one, 12) == _files(two, 12)
    pd.testing.assert_frame_equal(one.manifest.iloc[:12], two.manifest)


def test_another_seed_is_another_clinic(tmp_path: Path) -> None:
    one = make_clinic(tmp_path / "one", n=6, size_px=32, seed=1)
    two = make_clinic(tmp_path / "two", n=6, size_px=32, seed=2)
    assert not set(_files(one, 6)) & set(_files(two, 6))


def test_a_photo_of_another_size_shows_the_same_scene() -> None:
    for shot in itertools.islice(shots(4), 0, 40, 5):
        small, small_mask = render(shot, 4, 64)
        large, large_mask = render(shot, 4, 384)
        assert small.shape == (64, 64, 3)
        assert large.shape == (384, 384, 3)
        reduced = cv2.resize(large, (64, 64), interpolation=cv2.INTER_AREA)
        blurred = [cv2.GaussianBlur(picture, (0, 0), 2).astype(float).ravel() for picture in (small, reduced)]
        assert np.corrcoef(*blurred)[0, 1] > 0.95
        reduced_mask = cv2.resize(large_mask, (64, 64), interpolation=cv2.INTER_AREA) > 127
        both, either = (small_mask > 0) & reduced_mask, (small_mask > 0) | reduced_mask
        assert both.sum() / either.sum() > 0.8


@pytest.mark.parametrize("size_px", [28, 33, 1024])
def test_any_size_from_28_to_1024(tmp_path: Path, size_px: int) -> None:
    dataset = make_clinic(tmp_path / "clinic", n=2, size_px=size_px, seed=0)
    assert _pixels(dataset).shape == (2, size_px, size_px, 3)
    assert _masks(dataset).shape == (2, size_px, size_px)


# An ordinary data set folder


def test_the_folder_opens_as_a_data_set_with_card_and_masks(small: Dataset) -> None:
    dataset = Dataset.open(small.folder)
    assert dataset.card.licence == "CC0-1.0"
    assert dataset.card.label_proxies == ()
    assert dataset.group_column() == "patient_id"
    target = dataset.card.target()
    assert (target.column, target.kind) == ("diagnosis", "multiclass")
    assert set(target.classes) == set(DIAGNOSES) == set(dataset.labels())
    assert target.hierarchy is not None
    cost = np.array(target.cost_matrix)
    assert (np.diag(cost) == 0).all()
    assert cost[target.classes.index("MEL"), target.classes.index("NEV")] == cost.max()
    assert set(dataset.labels("malignant")) == {"benign", "malignant"}
    is_malignant = np.isin(dataset.labels(), MALIGNANT)
    assert ((dataset.labels("malignant") == "malignant") == is_malignant).all()
    assert list(dataset.questionnaire()) == [question.column for question in QUESTIONS]


def test_photos_are_of_patients_with_several_lesions_visits_and_views(small: Dataset) -> None:
    manifest = small.manifest
    assert manifest.groupby("patient_id")["lesion_id"].nunique().max() >= 2
    assert manifest.groupby("lesion_id")["captured_at"].nunique().max() >= 2
    assert manifest.groupby("lesion_id")["modality"].nunique().max() == 2
    assert set(manifest["skin_type"]) == {1, 2, 3, 4, 5, 6}
    assert manifest.groupby("lesion_id")["diagnosis"].nunique().max() == 1
    assert manifest.groupby("patient_id")["site"].nunique().max() == 1


def test_classes_are_unbalanced_alike_in_small_and_large_clinics(table: pd.DataFrame) -> None:
    shares = table["diagnosis"].value_counts(normalize=True)
    first = table["diagnosis"].iloc[:200].value_counts(normalize=True).reindex(shares.index)
    assert shares.max() / shares.min() > 2.5
    assert (first - shares).abs().max() < 0.08
    assert set(BLOCK) == set(SUBTYPES) == set(LOOKALIKES) == set(DIAGNOSES)


def test_subtypes_make_up_their_diagnosis() -> None:
    for subtypes in SUBTYPES.values():
        assert sum(share for share, _ in subtypes.values()) == pytest.approx(1.0)
        for _, ranges in subtypes.values():
            assert all(low <= high for low, high in ranges.values())


# The pictures


def test_the_skin_has_the_typology_angle_it_was_given() -> None:
    for low, high in ITA_BANDS.values():
        for angle in (low, (low + high) / 2, high):
            linear = reflectance(melanin_of(angle), RESTING_BLOOD)
            encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
            lightness, _, b = cv2.cvtColor(encoded.astype(np.float32).reshape(1, 1, 3), cv2.COLOR_RGB2LAB).ravel()
            assert np.degrees(np.arctan2(lightness - 50, b)) == pytest.approx(angle, abs=1.0)


def test_darker_skin_types_are_darker_in_the_photos(small: Dataset) -> None:
    around = ~_masks(small)
    lightness = [np.median(photo[where].mean(axis=1)) for photo, where in zip(_pixels(small), around, strict=True)]
    by_type = pd.Series(lightness).groupby(small.manifest["skin_type"].to_numpy()).median()
    assert by_type.is_monotonic_decreasing
    assert by_type[1] - by_type[6] > 60


def test_the_mask_is_where_the_lesion_is(small: Dataset) -> None:
    share = _masks(small).mean(axis=(1, 2))
    assert (share > 0.004).all()
    assert (share < 0.85).all()
    assert _masks(small)[:, 8:-8, 8:-8].any(axis=(1, 2)).all()


def test_the_pixels_of_the_lesion_tell_the_diagnosis_and_the_skin_around_it_does_not(small: Dataset) -> None:
    masks, pixels = _masks(small), _pixels(small).astype(float)
    inside = np.stack([_colours(photo, mask) for photo, mask in zip(pixels, masks, strict=True)])
    rim = np.zeros(masks.shape[1:], bool)
    rim[:3], rim[-3:], rim[:, :3], rim[:, -3:] = True, True, True, True
    outside = np.stack([_colours(photo, rim & ~mask) for photo, mask in zip(pixels, masks, strict=True)])
    assert _grouped_balanced_accuracy(inside, small) > 0.35
    assert _grouped_balanced_accuracy(outside, small) < 0.27  # one in six is chance


def _colours(photo: np.ndarray, where: np.ndarray) -> np.ndarray:
    chosen = photo[where] if where.any() else photo.reshape(-1, 3)
    return np.concatenate([chosen.mean(axis=0), chosen.std(axis=0), [where.mean()]])


def _grouped_balanced_accuracy(features: np.ndarray, dataset: Dataset) -> float:
    labels = dataset.labels().astype(str)
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    model = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=1000))
    predicted = cross_val_predict(model, features, labels, groups=dataset.groups(), cv=folds)
    return float(balanced_accuracy_score(labels, predicted))


def test_a_growing_lesion_is_larger_at_the_next_visit() -> None:
    pairs = []
    for _, visits in itertools.groupby(itertools.islice(shots(8), 900), key=lambda shot: shot.lesion.number):
        clinical = [shot for shot in visits if not shot.dermoscopy]
        if len(clinical) >= 2 and clinical[0].lesion.look.growth > 0.2 and clinical[-1].years > 0.5:
            pairs.append((clinical[0], clinical[-1]))
    assert len(pairs) >= 5
    for first, last in pairs[:5]:
        areas = [(render(shot, 8, 96)[1] > 0).sum() for shot in (first, last)]
        assert areas[1] > areas[0]
        assert last.diameter_mm > first.diameter_mm


# Follow-up


def test_follow_up_counts_down_from_visit_to_visit_and_malignant_lesions_come_back_more(small: Dataset) -> None:
    manifest = small.manifest
    assert (manifest["time_to_event"] > 0).all()
    end = manifest["captured_at"] + pd.to_timedelta(manifest["time_to_event"], unit="D")
    assert (end.groupby(manifest["lesion_id"]).nunique() == 1).all()
    assert (manifest.groupby("lesion_id")["event"].nunique() == 1).all()
    rate = manifest.astype({"event": float}).groupby("malignant")["event"].mean()
    assert rate["malignant"] > rate["benign"] + 0.1


# Nothing leaks that should not


def test_no_answer_alone_gives_the_diagnosis_away(table: pd.DataFrame) -> None:
    labels = table["diagnosis"].to_numpy()
    for column in (question.column for question in QUESTIONS):
        values = table[column]
        if not pd.api.types.is_numeric_dtype(values):
            # The best a single categorical answer can do: each level scored by how often it goes with the class.
            scores = []
            for name in np.unique(labels):
                odds = pd.Series(labels == name).groupby(values.astype("string").fillna("?").to_numpy()).mean()
                scores.append(roc_auc_score(labels == name, values.astype("string").fillna("?").map(odds)))
            assert max(scores) < 0.85, column
        else:
            known = values.notna().to_numpy()
            assert _best_auroc(values[known].to_numpy(dtype=float), labels[known]) < 0.85, column


def test_what_is_blank_tells_nothing(table: pd.DataFrame) -> None:
    labels = table["diagnosis"].to_numpy()
    blanks = [column.column for column in QUESTIONS if table[column.column].isna().any()]
    assert len(blanks) >= 10
    for column in blanks:
        assert _best_auroc(table[column].isna().to_numpy(dtype=float), labels) < 0.54, column


def test_site_device_modality_and_skin_type_do_not_go_with_the_diagnosis(table: pd.DataFrame) -> None:
    first = table.drop_duplicates("patient")  # one row a patient, as a chi-squared test wants
    for column in ("site", "skin_type", "device", "modality"):
        test = chi2_contingency(pd.crosstab(first[column], first["diagnosis"]))
        assert test.pvalue > 0.001, column
    photos = table.groupby("patient")["n_photos"].sum().to_numpy()
    assert _best_auroc(photos, first["diagnosis"].to_numpy()) < 0.59


def test_the_questionnaire_as_a_whole_carries_signal(table: pd.DataFrame) -> None:
    columns = [question.column for question in QUESTIONS]
    features = pd.get_dummies(table[columns].fillna({"age": 60, "diameter_mm": 8}), dummy_na=True).astype(float)
    folds = StratifiedGroupKFold(3, shuffle=True, random_state=0)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    predicted = cross_val_predict(model, features, table["diagnosis"], groups=table["patient"], cv=folds)
    assert 0.3 < balanced_accuracy_score(table["diagnosis"], predicted) < 0.6


def test_without_traps_no_two_photos_are_alike(small: Dataset) -> None:
    assert len(set(_files(small, 240)[:240])) == 240
    assert not (small.folder / "traps.json").exists()
    assert small.split_names() == []


# Traps


def test_traps_are_what_the_record_says(trapped: Dataset) -> None:
    record = read_json(trapped.folder / "traps.json")
    rows = trapped.manifest.set_index("image_id")
    content = {name: path.read_bytes() for name, path in zip(trapped.image_ids, trapped.paths, strict=True)}
    assert len(trapped) == record["n"] == 150
    for trap in record["exact_duplicates"]:
        a, b = trap["image_id"], trap["copy_of"]
        assert content[a] == content[b]
        assert rows.at[a, "diagnosis"] == rows.at[b, "diagnosis"]
        assert rows.at[a, "patient_id"] != rows.at[b, "patient_id"]
    for trap in record["label_conflicts"]:
        a, b = trap["image_id"], trap["copy_of"]
        assert content[a] == content[b]
        assert {rows.at[a, "diagnosis"], rows.at[b, "diagnosis"]} == set(trap["labels"])
        assert len(set(trap["labels"])) == 2
    duplicated = {trap["image_id"] for kind in ("exact_duplicates", "label_conflicts") for trap in record[kind]}
    assert len(set(content.values())) == len(content) - len(duplicated)
    for trap in record["unreadable"]:
        with pytest.raises(OSError, match=r"(?i)truncated|cannot identify"):
            Image.open(trapped.folder / rows.at[trap["image_id"], "path"]).load()


def test_near_duplicates_show_the_same_photo_in_other_bytes(trapped: Dataset) -> None:
    record = read_json(trapped.folder / "traps.json")
    paths = dict(zip(trapped.image_ids, trapped.paths, strict=True))
    undo = {"mirrored left to right": np.fliplr, "turned by 180 degrees": lambda picture: picture[::-1, ::-1]}
    assert len({trap["change"] for trap in record["near_duplicates"]}) == 5
    for trap in record["near_duplicates"]:
        a, b = (np.asarray(Image.open(paths[trap[key]])).astype(float) for key in ("image_id", "copy_of"))
        a = undo.get(trap["change"], lambda picture: picture)(a)
        assert paths[trap["image_id"]].read_bytes() != paths[trap["copy_of"]].read_bytes()
        assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.85


def test_the_planted_column_and_blank_betray_the_label_and_their_values_otherwise_do_not(trapped: Dataset) -> None:
    record = read_json(trapped.folder / "traps.json")
    malignant = trapped.labels("malignant") == "malignant"
    column, blank = record["leaking_column"]["column"], record["leaking_blank"]["column"]
    assert roc_auc_score(malignant, trapped.manifest[column].astype(float)) > 0.9
    assert roc_auc_score(malignant, trapped.manifest[blank].notna()) > 0.9
    assert {column, blank} <= set(trapped.questionnaire())
    assert trapped.card.label_proxies == ()  # that is for the audit to find


def test_the_planted_split_tears_patients_apart(trapped: Dataset) -> None:
    record = read_json(trapped.folder / "traps.json")
    split = trapped.read_split("leaky")
    parts = split["split"].groupby(trapped.groups()).nunique()
    assert sorted(parts.index[parts > 1]) == record["leaking_group"]["patients"]
    assert len(record["leaking_group"]["patients"]) > 5


def test_the_honest_part_of_a_trapped_clinic_is_the_clinic_without_traps(trapped: Dataset, tmp_path: Path) -> None:
    record = read_json(trapped.folder / "traps.json")
    plain = make_clinic(tmp_path / "clinic", n=20, size_px=64, seed=5)
    assert record["n_clean"] > 100
    assert _files(plain, 20) == _files(trapped, 20)


# Wrong turns


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"n": 0}, "at least 1"),
        ({"size_px": 27}, "28 to 1024"),
        ({"size_px": 1025}, "28 to 1024"),
        ({"threads": 0}, "1 or more"),
        ({"n": 59, "traps": True}, "at least 60"),
    ],
)
def test_numbers_out_of_range_are_one_clear_line(tmp_path: Path, arguments: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        make_clinic(**{"out": tmp_path / "clinic", "n": 60, "size_px": 32, "seed": 0, **arguments})  # type: ignore[arg-type]
    assert not (tmp_path / "clinic").exists()


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="not empty"):
        make_clinic(tmp_path, n=2, size_px=32, seed=0)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_the_command_writes_the_clinic_and_says_what_it_holds(tmp_path: Path) -> None:
    result = run(DataSynthConfig(out=tmp_path / "clinic", n=12, size=28, seed=1))
    assert len(Dataset.open(tmp_path / "clinic")) == 12
    told = result.to_json()
    assert told["n_images"] == sum(told["classes"].values()) == 12
    assert told["traps"] is None
    assert any("dermlab data check" in line for line in result.lines())
