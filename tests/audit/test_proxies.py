"""Columns that give the label away are found; strong honest columns are not accused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from dermlab.audit.proxies import _weighted_auroc, level_codes, proxy_columns, proxy_findings, stored_findings
from dermlab.core.randomness import generator
from dermlab.data.card import MetadataColumn

CLEAN = ["age", "region", "itch", "grew", "hurt", "changed", "bleed", "elevation"]


@pytest.fixture(scope="module")
def pad(shared_data: Path) -> pd.DataFrame:
    return pd.read_csv(shared_data / "pad-ufes-20" / "metadata.csv")


def verdicts(table: pd.DataFrame, kind: str = "value") -> dict[str, str]:
    rows = table[table["kind"] == kind]
    return dict(zip(rows["column"], rows["verdict"], strict=True))


def test_pads_biopsed_is_a_leak_and_its_clean_questionnaire_is_not(pad: pd.DataFrame) -> None:
    table = proxy_columns(pad, pad["diagnostic"].to_numpy(), pad["patient_id"].to_numpy(), [*CLEAN, "biopsed", "smoke"])
    found = verdicts(table)
    assert found["biopsed"] == "leak"
    assert {found[column] for column in CLEAN} == {"clean"}
    assert found["smoke"] == "clean"  # its answers say nothing,
    assert verdicts(table, "missingness")["smoke"] == "leak"  # its blanks do
    assert table.iloc[0]["column"] == "biopsed"  # worst first
    assert "not one is BCC, MEL, SCC (149 expected)" in table.iloc[0]["reason"]


def test_one_auroc_threshold_could_not_tell_biopsed_from_age(pad: pd.DataFrame) -> None:
    table = proxy_columns(pad, pad["diagnostic"].to_numpy(), pad["patient_id"].to_numpy(), ["age", "biopsed"])
    auroc = table[table["kind"] == "value"].set_index("column")["auroc"]
    assert auroc["age"] > auroc["biopsed"]


def test_the_verdicts_hold_for_benign_against_malignant_too(pad: pd.DataFrame) -> None:
    malignant = np.where(pad["diagnostic"].isin(["BCC", "MEL", "SCC"]), "malignant", "benign")
    found = verdicts(proxy_columns(pad, malignant, pad["patient_id"].to_numpy(), [*CLEAN, "biopsed"]))
    assert [column for column, verdict in found.items() if verdict == "leak"] == ["biopsed"]


def test_hams_dx_type_is_a_leak_and_age_sex_and_localization_are_not(shared_data: Path) -> None:
    ham = pd.read_csv(shared_data / "ham10000" / "HAM10000_metadata.csv")
    columns = ["dx_type", "age", "sex", "localization"]
    table = proxy_columns(ham, ham["dx"].to_numpy(), ham["lesion_id"].to_numpy(), columns)
    assert verdicts(table) == {"dx_type": "leak", "age": "clean", "sex": "clean", "localization": "clean"}


def test_the_label_under_another_name_is_a_leak_whatever_its_type() -> None:
    y = np.array(["a", "b", "c"])[generator(0, "y").integers(0, 3, 300)]
    number = pd.Series(y).map({"a": 1.0, "b": 2.0, "c": 3.0})
    frame = pd.DataFrame(
        {
            "text": pd.Series(y).map({"a": "x", "b": "y", "c": "z"}).astype("string"),
            "number": number,
            "measured": number + 0.05 * generator(0, "noise").standard_normal(300),
            "date": pd.to_datetime("2020-01-01") + pd.to_timedelta(number * 400 + np.arange(300), unit="D"),
        }
    )
    assert set(verdicts(proxy_columns(frame, y)).values()) == {"leak"}


def test_noise_is_clean_even_with_many_levels() -> None:
    rng = generator(1, "noise")
    y = np.array(list("abcdef"))[rng.choice(6, 400, p=[0.4, 0.3, 0.1, 0.1, 0.05, 0.05])]
    frame = pd.DataFrame({f"levels {k}": rng.integers(0, k, 400).astype(str) for k in (2, 3, 10, 50, 400)})
    frame["number"] = rng.standard_normal(400)
    table = proxy_columns(frame, y, np.arange(400) // 2)
    assert set(table["verdict"]) == {"clean"}
    assert table["auroc"].max() < 0.75


def test_a_strong_measurement_is_strong_and_no_leak() -> None:
    y = np.repeat(["nevus", "other"], 300)
    age = np.where(y == "nevus", 35, 60) + 12 * generator(2, "age").standard_normal(600)
    row = proxy_columns(pd.DataFrame({"age": age}), y).iloc[0]
    assert row["verdict"] == "strong"
    assert 0.90 <= row["auroc"] < 0.95


def test_a_value_that_stands_for_an_answer_in_a_measured_column_is_a_leak() -> None:
    rng = generator(3, "thickness")
    malignant = rng.random(600) < 0.4
    thickness = np.where(malignant, rng.uniform(0.1, 4, 600), 0.0)  # measured under the microscope only
    row = proxy_columns(pd.DataFrame({"thickness": thickness}), np.where(malignant, "mal", "ben")).iloc[0]
    assert row["verdict"] == "leak"
    assert "thickness = any other value not one is ben" in row["reason"]


def test_numbers_are_binned_and_their_shared_values_kept_as_answers() -> None:
    values = pd.Series([*np.linspace(1, 9, 80), *[0.0] * 20, np.nan])
    bins, answers, names = level_codes(values, "numeric")
    assert bins[-1] == answers[-1] == -1
    assert len(np.unique(bins[:-1])) <= 20
    assert names == ["0", "any other value"]
    assert (answers[80:100] == 0).all()
    assert (answers[:80] == 1).all()


def test_weighted_auroc_is_scikit_learns() -> None:
    rng = generator(4, "auroc")
    score = rng.integers(0, 8, 500) / 8  # with ties
    y, weight = rng.random(500) < 0.3, rng.uniform(0.1, 2, 500)
    ours = _weighted_auroc(score, np.where(y, weight, 0), np.where(y, 0, weight))
    assert ours == pytest.approx(roc_auc_score(y, score, sample_weight=weight))


def columns_of(frame: pd.DataFrame) -> list[MetadataColumn]:
    return [MetadataColumn(column=column, kind="boolean") for column in frame]


def leaking() -> tuple[pd.DataFrame, np.ndarray]:
    rng = generator(5, "leak")
    malignant = rng.random(400) < 0.4
    blank = ~malignant & (rng.random(400) < 0.7)
    frame = pd.DataFrame(
        {
            "biopsed": pd.array(malignant | (rng.random(400) < 0.2), dtype="boolean"),
            "smoke": pd.array(np.where(blank, None, rng.random(400) < 0.3), dtype="boolean"),
            "drink": pd.array(np.where(blank, None, rng.random(400) < 0.3), dtype="boolean"),
            "itch": pd.array(rng.random(400) < 0.5, dtype="boolean"),
        }
    )
    return frame, np.where(malignant, "mal", "ben")


def test_a_leaking_input_is_an_error_that_names_the_line_that_resolves_it() -> None:
    frame, y = leaking()
    findings = proxy_findings("clinic", frame, y, np.arange(400), used=columns_of(frame))
    error = findings[0]
    assert (error.code, error.severity) == ("proxy:biopsed", "error")
    assert "label_proxies: [biopsed]" in error.remedy
    assert "waive: [proxy:biopsed]" in error.remedy
    assert error.evidence["counts"]
    assert error.evidence["ruled_out"] > error.evidence["ruled_out_threshold"]


def test_a_declared_or_unused_leak_is_a_warning() -> None:
    frame, y = leaking()
    used = columns_of(frame[["itch"]])
    for role in ({"declared": ["biopsed"]}, {"unused": ["biopsed"]}):
        found = proxy_findings("clinic", frame, y, np.arange(400), used=used, **role)
        assert [finding.severity for finding in found if finding.code == "proxy:biopsed"] == ["warning"]


def test_columns_blank_in_the_same_rows_are_one_finding_and_a_warning_as_they_are_dropped() -> None:
    frame, y = leaking()
    found = proxy_findings("clinic", frame, y, np.arange(400), used=columns_of(frame))
    (blank,) = [finding for finding in found if finding.code == "missingness"]
    assert blank.severity == "warning"
    assert blank.evidence["columns"] == ["smoke", "drink"]
    assert "drops them whole" in blank.remedy


def test_every_column_tested_is_listed() -> None:
    frame, y = leaking()
    (last,) = [f for f in proxy_findings("x", frame, y, np.arange(400), used=columns_of(frame)) if f.severity == "info"]
    assert last.table is not None
    assert set(last.table["column"]) == set(frame)


def test_photos_of_one_diagnosis_cut_to_another_size_are_told() -> None:
    y = np.repeat(["nv", "mel"], [300, 100])
    rng = generator(6, "bytes")
    headers = pd.DataFrame(
        {
            "width_px": np.where(y == "mel", 512.0, 600.0),
            "height_px": 450.0,
            "format": "JPEG",
            "bytes": rng.integers(20_000, 60_000, 400).astype(float),
        }
    )
    (finding,) = stored_findings("clinic", headers, y, np.arange(400))
    assert finding.severity == "warning"
    assert finding.evidence["columns"] == ["width"]
    assert stored_findings("clinic", headers.assign(width_px=600.0), y, np.arange(400)) == []
