"""Records that cannot all be true are listed; records that can are left in peace."""

from __future__ import annotations

import pandas as pd

from dermlab.audit.columns import column_findings
from dermlab.audit.contradictions import contradiction_findings
from dermlab.data.card import Target

TARGETS = (Target(column="diagnosis", classes=("a", "b")),)


def manifest(**changes: list[object]) -> pd.DataFrame:
    columns: dict[str, object] = {
        "image_id": ["i0", "i1", "i2", "i3"],
        "patient_id": ["p", "p", "q", "q"],
        "lesion_id": ["l", "l", "m", "n"],
        "captured_at": pd.to_datetime(["2020-01-01", "2021-01-01", "2020-01-01", "2020-06-01"]),
        "sex": ["f", "f", "m", None],
        "age": [50.0, 51.0, 30.0, 30.0],
        "region": ["arm", "arm", "back", "face"],
        "diagnosis": ["a", "a", "b", "a"],
    }
    return pd.DataFrame({**columns, **changes})


def kinds(**changes: list[object]) -> dict[str, int]:
    found = [f for f in contradiction_findings("clinic", manifest(**changes), TARGETS) if f.code == "contradictions"]
    assert all(finding.severity == "warning" for finding in found)
    return found[0].evidence["kinds"] if found else {}


def test_consistent_records_give_no_finding() -> None:
    assert contradiction_findings("clinic", manifest(), TARGETS) == []


def test_a_patient_has_one_sex_and_one_skin_type() -> None:
    assert kinds(sex=["f", "m", "m", None]) == {"patient": 1}
    assert kinds(fitspatrick=[2.0, 2.0, 1.0, 4.0]) == {"patient": 1}


def test_an_age_follows_the_dates() -> None:
    assert kinds(age=[50.0, 48.0, 30.0, 30.0]) == {"age": 1}
    assert kinds(age=[50.0, 60.0, 30.0, 30.0]) == {"age": 1}
    assert kinds(age=[50.0, 52.0, 30.0, 31.0]) == {}  # rounding


def test_a_lesion_stays_where_it_is_and_has_one_diagnosis() -> None:
    assert kinds(region=["arm", "leg", "back", "face"]) == {"lesion": 1}
    (finding,) = contradiction_findings("clinic", manifest(diagnosis=["a", "b", "b", "a"]), TARGETS)
    assert finding.code == "lesion-labels"
    assert finding.evidence["n"] == 1
    assert "l: diagnosis a and b" in finding.message


def test_follow_up_is_whole() -> None:
    event = [True, False, None, True]
    assert kinds(event=pd.array(event, dtype="boolean"), time_to_event=[1.0, 2.0, None, 3.0]) == {}
    assert kinds(event=pd.array(event, dtype="boolean"), time_to_event=[1.0, -2.0, 4.0, None]) == {"follow-up": 3}


def test_impossible_numbers_are_known_by_their_column() -> None:
    frame = manifest(
        age=[50.0, 51.0, -3.0, 130.0], fitzpatrick=[0.0, 2.0, 7.0, 6.0], birth_year=[1850, 1990, 1980, 3000]
    )
    (finding,) = [f for f in column_findings("clinic", frame, ()) if f.code == "impossible-values"]
    assert finding.evidence["columns"] == {"age": 2, "fitzpatrick": 2, "birth_year": 2}
