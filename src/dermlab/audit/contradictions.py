"""Records that cannot all be true: a patient of two sexes, an age that goes backwards, a lesion in two places."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from dermlab.audit.findings import Finding, examples
from dermlab.core.words import plural
from dermlab.data.card import RESERVED, Target

OF_A_PATIENT = re.compile(
    r"(^|_)(sex|gender|skin_?type|fitz\w*|fits?patrick|year_of_birth|birth_?year)($|_)", re.IGNORECASE
)
"""Columns that do not change within a patient."""

OF_A_LESION = re.compile(
    r"(^|_)(region|body_?(site|part|region)|anatom\w*|localization|localisation|location)($|_)", re.IGNORECASE
)
"""Columns that do not change within a lesion."""

AGE = re.compile(r"(^|_)age($|_years$)", re.IGNORECASE)

AGE_SLACK_YEARS = 1.5
"""Ages are rounded and dates are of a visit: so much more or less than the time between is no contradiction."""

_KINDS = {
    "patient": "patients with two values of what one person has once",
    "age": "patients whose age does not follow their dates",
    "lesion": "lesions in two places",
    "follow-up": "photos whose follow-up is half recorded or negative",
}


def contradiction_findings(name: str, manifest: pd.DataFrame, targets: Sequence[Target]) -> list[Finding]:
    """Compare the rows of one patient, and of one lesion, with each other.

    Args:
        name: opens the sentences.
        manifest: as :class:`dermlab.data.dataset.Dataset` holds it.
        targets: the card's: a lesion has one diagnosis.
    """
    tables = [
        *(_changing(manifest, "patient_id", column, "patient") for column in _columns(manifest, OF_A_PATIENT)),
        *(_changing(manifest, "lesion_id", column, "lesion") for column in _columns(manifest, OF_A_LESION)),
        *(_ages(manifest, column) for column in _columns(manifest, AGE)),
        _follow_up(manifest),
    ]
    found = [table for table in tables if len(table)]
    findings = _lesion_labels(name, manifest, targets)
    if not found:
        return findings
    table = pd.concat(found, ignore_index=True)
    counts = table.groupby("kind", sort=False).size()
    told = "; ".join(f"{count:,} {_KINDS[str(kind)]}" for kind, count in counts.items())
    first = table.iloc[0]
    message = (
        f"{name}: records contradict each other: {told} (for one, {first['id']}: {first['column']} {first['values']})."
    )
    evidence = {"n": len(table), "kinds": counts.to_dict(), "examples": examples(table)}
    remedy = "Mend them at the source: two people may share an id, and a split by patient rests on it."
    return [Finding("contradictions", "warning", message, evidence, remedy, table), *findings]


def _columns(manifest: pd.DataFrame, pattern: re.Pattern[str]) -> list[str]:
    """Return the columns whose names match; ``site`` is where a photo was taken, not where on the body."""
    return [
        str(column)
        for column in manifest
        if pattern.search(str(column)) and (column not in RESERVED or column == "skin_type")
    ]


def _changing(manifest: pd.DataFrame, by: str, column: str, kind: str) -> pd.DataFrame:
    """List the ids of ``by`` that have several values in a column."""
    if by not in manifest:
        return pd.DataFrame()
    known = manifest[[by, column, "image_id"]].dropna()
    if known.empty or not pd.api.types.is_hashable(known[column].iloc[0]):
        return pd.DataFrame()
    known = known[known.groupby(by)[column].transform("nunique") > 1]
    rows = [
        (
            kind,
            str(one),
            column,
            " and ".join(sorted({str(value) for value in block[column]})),
            block["image_id"].iloc[0],
        )
        for one, block in known.groupby(by)
    ]
    return pd.DataFrame(rows, columns=["kind", "id", "column", "values", "image_id"])


def _ages(manifest: pd.DataFrame, column: str) -> pd.DataFrame:
    """List the patients whose age rises or falls by more than the time between their photos allows."""
    if not {"patient_id", "captured_at"} <= set(manifest) or not pd.api.types.is_numeric_dtype(manifest[column].dtype):
        return pd.DataFrame()
    known = manifest[["patient_id", "captured_at", column, "image_id"]].dropna().sort_values("captured_at")
    if known.empty:
        return pd.DataFrame()
    years = (known["captured_at"] - known["captured_at"].min()).dt.total_seconds() / (365.25 * 86_400)
    known["born"] = known[column].astype(float) - years  # the age at one common date
    rows = []
    for patient, block in known.groupby("patient_id"):
        if np.ptp(block["born"].to_numpy()) > AGE_SLACK_YEARS:
            values = ", then ".join(
                f"{age:g} on {date:%Y-%m-%d}" for age, date in zip(block[column], block["captured_at"], strict=True)
            )
            rows.append(("age", str(patient), column, values, block["image_id"].iloc[0]))
    return pd.DataFrame(rows, columns=["kind", "id", "column", "values", "image_id"])


def _follow_up(manifest: pd.DataFrame) -> pd.DataFrame:
    """List the photos with an event and no time, a time and no event, or a time below 0."""
    if not {"event", "time_to_event"} <= set(manifest):
        return pd.DataFrame()
    event, time = manifest["event"], manifest["time_to_event"]
    wrong = ((event.notna() != time.notna()) | (time < 0)).to_numpy(dtype=bool, na_value=True)
    rows = [
        ("follow-up", str(image), "event, time_to_event", f"{one} and {other}", image)
        for image, one, other in zip(manifest["image_id"][wrong], event[wrong], time[wrong], strict=True)
    ]
    return pd.DataFrame(rows, columns=["kind", "id", "column", "values", "image_id"])


def _lesion_labels(name: str, manifest: pd.DataFrame, targets: Sequence[Target]) -> list[Finding]:
    """Say which lesions have two diagnoses: one of them is wrong, or the id is of two lesions."""
    columns = [target.column for target in targets if target.kind != "multilabel"]
    tables = [table for column in columns if len(table := _changing(manifest, "lesion_id", column, "lesion"))]
    if not tables:
        return []
    table = pd.concat(tables, ignore_index=True).drop(columns="kind")
    first = table.iloc[0]
    n = table["id"].nunique()
    message = (
        f"{name}: {plural(n, 'lesion')} {'has' if n == 1 else 'have'} two labels (for one, {first['id']}: "
        f"{first['column']} {first['values']})."
    )
    evidence = {"n": n, "examples": examples(table)}
    remedy = "Find out which label is right; a lesion that changed its diagnosis over time should say so by its date."
    return [Finding("lesion-labels", "warning", message, evidence, remedy, table)]
