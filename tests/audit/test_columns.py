"""Impossible values, stand-ins for missing ones and identifying columns are found; ordinary ones are left alone."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from dermlab.audit.columns import column_findings
from dermlab.audit.findings import Finding
from dermlab.core.randomness import generator
from dermlab.data.card import MetadataColumn
from dermlab.data.manifest import TEXT

N = 200
NUMBER = {
    name: MetadataColumn(column=name, kind="numeric", unit=unit) for name, unit in (("width", "mm"), ("score", None))
}


def manifest(**columns: object) -> pd.DataFrame:
    frame = pd.DataFrame({"image_id": [f"i{i}" for i in range(N)], "path": [f"{i}.jpg" for i in range(N)]})
    frame = frame.astype(TEXT)
    for name, values in columns.items():
        series = pd.Series(values)
        frame[name] = series.astype(TEXT) if series.dtype == object or series.dtype == "str" else series
    return frame


def found(frame: pd.DataFrame, *metadata: MetadataColumn) -> dict[str, Finding]:
    return {finding.code: finding for finding in column_findings("clinic", frame, metadata)}


def test_an_ordinary_questionnaire_gets_no_finding() -> None:
    rng = generator(0, "ordinary")
    frame = manifest(
        age=rng.integers(0, 100, N).astype(float),
        width=rng.uniform(1, 30, N).round(1),
        score=rng.standard_normal(N),
        itch=pd.array(rng.random(N) < 0.5, dtype="boolean"),
        region=rng.choice(["arm", "leg"], N),
        captured_at=pd.Timestamp("2020-05-01") + pd.to_timedelta(rng.integers(0, 900, N), unit="D"),
    )
    assert found(frame, *NUMBER.values()) == {}


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        ("age", 421.0, "0 to 120 years"),
        ("age_years", -3.0, "0 to 120 years"),
        ("width", 0.0, "above 0 to 500 mm"),
        ("captured_at", pd.Timestamp("2191-01-01"), "1990-01-01 to today"),
        ("captured_at", pd.Timestamp("1900-01-01"), "1990-01-01 to today"),
    ],
)
def test_a_value_that_cannot_be_is_named_with_its_image(column: str, value: object, expected: str) -> None:
    ordinary = pd.Timestamp("2021-01-01") if column == "captured_at" else 40.0
    frame = manifest(**{column: [ordinary] * 7 + [value] + [ordinary] * (N - 8)})
    finding = found(frame, NUMBER["width"])["impossible-values"]
    assert finding.evidence["n"] == 1
    assert finding.evidence["examples"][0]["image_id"] == "i7"
    assert finding.evidence["examples"][0]["possible"] == expected


def test_a_column_that_only_ends_like_age_is_no_age() -> None:
    assert found(manifest(percentage=[130.0] * N, image_page=[400.0] * N)) == {}


@pytest.mark.parametrize(("number", "n"), [(-1.0, 5), (999.0, 3), (-99.0, 2)])
def test_numbers_that_stand_apart_stand_for_missing(number: float, n: int) -> None:
    values = generator(1, "score").uniform(0, 50, N)
    values[:n] = number
    finding = found(manifest(score=values), NUMBER["score"])["stand-in-values"]
    assert finding.severity == "warning"
    assert finding.evidence["examples"] == [{"column": "score", "value": f"{number:g}", "photos": n}]


def test_minus_one_among_negative_numbers_is_a_number() -> None:
    values = generator(2, "score").integers(-5, 6, N).astype(float)
    assert "stand-in-values" not in found(manifest(score=values), NUMBER["score"])


@pytest.mark.parametrize("word", ["UNK", "unknown", "N/A", "not recorded", "?"])
def test_words_that_mean_missing_are_found(word: str) -> None:
    frame = manifest(region=["arm", "leg"] * (N // 2 - 2) + [word] * 4)
    assert found(frame)["stand-in-values"].severity == "info"
    used = MetadataColumn(column="region", kind="categorical")
    assert found(frame, used)["stand-in-values"].severity == "warning"


def test_a_nearly_unique_input_is_warned_of() -> None:
    frame = manifest(chart=[f"chart {i}" for i in range(N)])
    assert found(frame)["identifier"].severity == "info"
    finding = found(frame, MetadataColumn(column="chart", kind="categorical"))["identifier"]
    assert finding.severity == "warning"
    assert finding.evidence["inputs"] == ["chart"]


def test_whole_numbers_that_never_repeat_identify_and_measurements_do_not() -> None:
    assert "identifier" in found(manifest(visit=np.arange(N, dtype=float)))
    assert "identifier" not in found(manifest(score=generator(3, "x").standard_normal(N)))


@pytest.mark.parametrize(
    ("column", "values"),
    [("surname", ["Huber", "Maier"]), ("date_of_birth", ["1950-01-01"]), ("remark", ["write to a.b@example.org"])],
)
def test_names_births_and_addresses_are_personal_data(column: str, values: list[str]) -> None:
    frame = manifest(**{column: (values * N)[:N]})
    assert found(frame)["personal-data"].evidence == {"columns": [column]}


def test_the_body_region_is_no_address() -> None:
    assert "personal-data" not in found(manifest(region=["arm"] * N, phone_model=["x"] * N))
