"""The questionnaire's encoding: learned on the training part, blanks marked, leaks dropped whole."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.preprocessing import OneHotEncoder, RobustScaler

from dermlab.core.errors import InputError
from dermlab.data.card import MetadataColumn
from dermlab.data.metadata import CLIP, IQR_OF_NORMAL, QuestionnaireEncoder

COLUMNS = (
    MetadataColumn(column="age", kind="numeric", unit="years"),
    MetadataColumn(column="itch", kind="boolean"),
    MetadataColumn(column="region", kind="categorical", values=("ARM", "BACK", "FACE", "NOSE")),
)


def answers(n: int = 200, seed: int = 0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "age": random.normal(55, 15, size=n).round(),
            "itch": pd.array(random.random(n) < 0.4, dtype="boolean"),
            "region": random.choice(["FACE", "BACK", "ARM"], size=n),
        }
    )
    for column in frame:
        frame.loc[random.random(n) < 0.1, column] = None
    return frame


def test_numbers_are_scaled_as_scikit_learns_robust_scaler_does() -> None:
    frame = answers()
    encoder = QuestionnaireEncoder().fit(frame, columns=COLUMNS[:1])
    present = frame["age"].notna()
    oracle = RobustScaler().fit_transform(frame.loc[present, ["age"]])[:, 0] * IQR_OF_NORMAL
    features = encoder.transform(frame)
    np.testing.assert_allclose(features[present, 0], np.clip(oracle, -CLIP, CLIP), atol=1e-5)
    assert encoder.transform(pd.DataFrame({"age": [9999.0, -9999.0]}))[:, 0].tolist() == [CLIP, -CLIP]
    assert (features[~present] == [0, 1]).all()
    assert (features[present, 1] == 0).all()


def test_levels_are_one_hot_as_scikit_learns_encoder_does_and_an_unseen_one_is_its_own() -> None:
    frame = answers().dropna()
    encoder = QuestionnaireEncoder().fit(frame, columns=COLUMNS[2:])
    oracle = OneHotEncoder(sparse_output=False).fit_transform(frame[["region"]])
    features = encoder.transform(frame)
    assert encoder.feature_names_ == [
        "region=ARM",
        "region=BACK",
        "region=FACE",
        "region=(unseen)",
        "region is missing",
    ]
    np.testing.assert_array_equal(features[:, :3], oracle)
    assert encoder.transform(pd.DataFrame({"region": ["NOSE", None]})).tolist() == [[0, 0, 0, 1, 0], [0, 0, 0, 0, 1]]


def test_truth_values_are_plus_and_minus_one_and_blanks_are_marked() -> None:
    encoder = QuestionnaireEncoder().fit(answers(), columns=COLUMNS[1:2])
    for values in (
        pd.array([True, False, None], dtype="boolean"),
        np.array(["True", "no", None], dtype=object),
        np.array([1.0, 0.0, np.nan]),
    ):
        assert encoder.transform(pd.DataFrame({"itch": values})).tolist() == [[1, 0], [-1, 0], [0, 1]]


def test_only_the_training_rows_are_learned_from() -> None:
    frame = answers()
    changed = frame.copy()
    changed.loc[100:, "age"] = 5.0
    changed.loc[100:, "region"] = "NOSE"
    first = QuestionnaireEncoder().fit(frame[:100], columns=COLUMNS)
    second = QuestionnaireEncoder().fit(changed[:100], columns=COLUMNS)
    assert first.to_dict() == second.to_dict()
    assert np.array_equal(first.transform(frame[:100]), second.transform(frame[:100]))


def test_a_blank_that_betrays_the_label_drops_the_column_whole() -> None:
    frame = answers(400)
    y = np.where(np.arange(400) % 2, "BCC", "NEV")
    frame["diameter"] = np.where(y == "BCC", 7.0, np.nan)
    columns = (*COLUMNS, MetadataColumn(column="diameter", kind="numeric"))
    encoder = QuestionnaireEncoder().fit(frame, y, columns)
    assert list(encoder.dropped_) == ["diameter"]
    assert not any("diameter" in name for name in encoder.feature_names_)
    assert encoder.kept_ == ["age", "itch", "region"]
    kept = QuestionnaireEncoder(drop_leaking=False).fit(frame, y, columns)
    assert "diameter is missing" in kept.feature_names_


def test_blanks_and_constants_are_left_out_with_their_reason() -> None:
    frame = answers().assign(empty=np.nan, same="yes", once=["yes"] * 199 + [None])
    columns = [MetadataColumn(column=name, kind="categorical") for name in ("empty", "same", "once")]
    encoder = QuestionnaireEncoder().fit(frame, columns=columns)
    assert "blank" in encoder.dropped_["empty"]
    assert "same value" in encoder.dropped_["same"]
    assert encoder.kept_ == ["once"]


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        ("age", "old", "finite number"),
        ("age", np.inf, "finite number"),
        ("itch", "maybe", "true or false"),
        ("region", "MOON", "one of ARM, BACK, FACE, NOSE"),
    ],
)
def test_a_wrong_value_names_its_column_and_what_is_right(column: str, value: object, expected: str) -> None:
    frame = answers().astype(object)
    encoder = QuestionnaireEncoder().fit(answers(), columns=COLUMNS)
    frame.loc[3, column] = value
    with pytest.raises(InputError, match=f"{column!r}.*record 4.*{expected}"):
        encoder.transform(frame)


def test_a_missing_column_names_those_that_are_needed() -> None:
    encoder = QuestionnaireEncoder().fit(answers(), columns=COLUMNS)
    with pytest.raises(InputError, match="needs the columns age, itch, region; missing here: itch"):
        encoder.transform(answers().drop(columns="itch"))


def test_the_encoder_survives_json_and_cloning() -> None:
    frame = answers()
    encoder = QuestionnaireEncoder().fit(frame, np.arange(200) % 2, COLUMNS)
    again = QuestionnaireEncoder.from_dict(json.loads(json.dumps(encoder.to_dict())))
    assert np.array_equal(again.transform(frame), encoder.transform(frame))
    assert again.feature_names_ == encoder.feature_names_
    assert again.blocks_ == encoder.blocks_ == (2, 2, 5)
    assert clone(encoder).drop_leaking is True
    assert list(encoder.get_feature_names_out()) == encoder.feature_names_


def test_the_last_feature_of_every_block_is_its_blank() -> None:
    encoder = QuestionnaireEncoder().fit(answers(), columns=COLUMNS)
    blank = encoder.transform(pd.DataFrame({"age": [np.nan], "itch": [None], "region": [None]}))[0]
    np.testing.assert_array_equal(blank, encoder.blank())
    assert np.flatnonzero(blank).tolist() == [1, 3, 8]


def test_a_thousand_columns_take_no_time() -> None:
    random = np.random.default_rng(0)
    frame = pd.DataFrame(random.normal(size=(1000, 1000)), columns=[f"q{k}" for k in range(1000)])
    frame = frame.mask(random.random(frame.shape) < 0.05)
    start = time.process_time()
    encoder = QuestionnaireEncoder().fit(frame, random.integers(0, 5, size=1000).astype(str))
    assert encoder.transform(frame).shape == (1000, 2000)
    assert time.process_time() - start < 10


HONEST = ["age", "region", "itch", "grew", "hurt", "changed", "bleed", "elevation"]
LEAKING = [
    *("smoke", "drink", "background_father", "background_mother", "pesticide", "gender", "skin_cancer_history"),
    *("cancer_history", "has_piped_water", "has_sewage_system", "fitspatrick", "diameter_1", "diameter_2"),
]


def test_pad_ufes_20_loses_the_thirteen_columns_whose_blanks_betray_and_keeps_the_rest(shared_data: Path) -> None:
    table = pd.read_csv(shared_data / "pad-ufes-20" / "metadata.csv").replace("UNK", None)
    numeric = {"age", "diameter_1", "diameter_2", "fitspatrick"}
    text = {"region", "background_father", "background_mother", "gender"}
    columns = [
        MetadataColumn(column=name, kind="numeric" if name in numeric else "categorical" if name in text else "boolean")
        for name in HONEST + LEAKING
    ]
    patients = table["patient_id"].to_numpy()
    for seed in range(4):  # whatever 60 % of the patients are drawn for training
        train = np.isin(patients, np.random.default_rng(seed).permutation(np.unique(patients))[:394])
        encoder = QuestionnaireEncoder().fit(
            table[train], table["diagnostic"].to_numpy()[train], columns, groups=patients[train]
        )
        assert sorted(encoder.dropped_) == sorted(LEAKING)
        assert encoder.kept_ == HONEST
        assert all(encoder.dropped_.values())
