"""SCIN (Ward et al. 2024, doi 10.1001/jamanetworkopen.2024.46615): 5,033 cases of up to three photos, from the public.

Layout as published, read in the publishers' schema (google-research-datasets/scin, ``dataset_schema.md``):
``scin_cases.csv`` (a row a case: what the contributor said, and ``image_1_path`` to ``image_3_path``) and
``scin_labels.csv`` (what dermatologists said: ``weighted_skin_condition_label`` is a differential with weights that
sum to 1), in ``dataset/``; the photos in ``dataset/images``.
"""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dermlab.data.card import MetadataColumn
from dermlab.data.sources import SourceData
from dermlab.data.sources.files import Matcher, find_images
from dermlab.data.sources.upstream import Rows, collect, find_file, locate, observed_target, published

_UPSTREAM = {
    "monk_skin_tone_us": "monk_skin_tone_label_us",
    "monk_skin_tone_india": "monk_skin_tone_label_india",
}
_FLAGS = ("race_ethnicity_", "textures_", "body_parts_", "condition_symptoms_", "other_symptoms_")
_SHOTS = {1: "image_1_path", 2: "image_2_path", 3: "image_3_path"}
METADATA = (
    MetadataColumn(column="age_group", kind="categorical", description="age group, as the contributor said"),
    MetadataColumn(column="sex_at_birth", kind="categorical", description="sex at birth, as the contributor said"),
    MetadataColumn(column="related_category", kind="categorical", description="what the contributor called it"),
    MetadataColumn(column="condition_duration", kind="categorical", description="for how long"),
    MetadataColumn(column="shot_type", kind="categorical", description="close-up, at an angle or at a distance"),
    MetadataColumn(
        column="monk_skin_tone_us",
        kind="numeric",
        description="Monk skin tone 1 to 10, by graders in the United States",
    ),
    MetadataColumn(
        column="monk_skin_tone_india", kind="numeric", description="Monk skin tone 1 to 10, by graders in India"
    ),
)
_NOT_GIVEN = ("UNKNOWN", "AGE_UNKNOWN", "OTHER_OR_UNSPECIFIED", "NONE_SELECTED", "NONE_OF_THE_ABOVE")

CITATION = (
    "Ward et al.: Creating an empirical dermatology dataset through crowdsourcing with web search advertisements, JAMA "
    "Network Open 7:e2446615 (2024)"
)


def read(path: Path, *, name: str | None = None) -> SourceData:
    """Read SCIN from its upstream layout: one row a photo, ``lesion_id`` is the case.

    ``conditions`` (multilabel, the default) holds every condition of the differential, and ``top_condition`` the one of
    the largest weight, null on a tie. The weights stay as text (JSON, condition to weight) in ``condition_weights``,
    which no model gets to see. ``skin_type`` is the contributor's own answer. A yes/no column that is blank where the
    case answered another one of its group is a no; where the whole group is blank it stays null. The ``race_ethnicity``
    columns are kept for looking at subgroups, and are no part of the questionnaire that models see.

    Args:
        path: the folder of the two tables, or the one above.
        name: name of the data set; None is scin.
    """
    file = find_file(path, ["scin_cases.csv"], "SCIN")
    rows = Rows(file, ["case_id", *_SHOTS.values()])
    files = find_images(file.parent)
    case = rows.ids("case_id")
    flags = _flags(rows)
    labels, quarantined = _labels(find_file(path, ["scin_labels.csv"], "SCIN"))
    columns: dict[str, object] = {"lesion_id": case, "modality": "clinical"}
    for column, values in labels.items():
        columns[column] = pd.Series([values.get(name) for name in case], index=case.index, dtype=object)
    columns |= rows.questionnaire(METADATA, names=_UPSTREAM, missing=_NOT_GIVEN)
    columns |= flags
    if "fitzpatrick_skin_type" in rows:
        columns["skin_type"] = rows.skin_types("fitzpatrick_skin_type", missing=_NOT_GIVEN)
    matcher = Matcher(files)
    photos = []
    for shot, column in _SHOTS.items():
        entries = rows.texts(column)
        photo = pd.DataFrame(
            {
                "image_id": case + f"_{shot}",
                "source_path": locate(entries, matcher, files),
                "shot_type": rows.texts(f"image_{shot}_shot_type"),
                **columns,
            }
        )
        photos.append(photo[entries.notna()])
    is_bare = rows.table.frame[list(_SHOTS.values())].isna().all(axis=1)
    rows.set_aside(is_bare, "image_1_path", "is blank, and so are the others: the case has no photo")
    manifest, missing = collect(files, [(rows, pd.concat(photos).sort_index(kind="stable"))])
    target = observed_target(manifest.explode("conditions"), "conditions", kind="multilabel", default=True)
    origin = [column for column in flags if column.startswith("race_ethnicity_")]
    n_bare = int(manifest["conditions"].isna().sum())
    return published(
        files,
        manifest,
        [*quarantined, *missing],
        targets=[target, observed_target(manifest, "top_condition")],
        metadata=(
            *METADATA,
            *(MetadataColumn(column=column, kind="boolean") for column in flags if column not in origin),
        ),
        notes=[
            f"{n_bare:,} photos have no label: no dermatologist could tell",
            "the photos name no patients: a case is one lesion_id",
        ],
        name=name or "scin",
        description="Photos of skin conditions that people in the United States contributed, with their own answers",
        licence="SCIN Data Use License",
        licence_card="scin",
        citation=CITATION,
        source="https://github.com/google-research-datasets/scin",
        unit="lesion",
    )


def _flags(rows: Rows) -> dict[str, pd.Series]:
    """Return the yes/no columns; a blank is a no where another column of the group has an answer, else null."""
    found: dict[str, pd.Series] = {}
    for prefix in _FLAGS:
        group = {column.casefold(): rows.truths(column) for column in rows.table.columns if column.startswith(prefix)}
        if group:
            is_answered = pd.DataFrame(group).notna().any(axis=1)
            found |= {column: values.mask(values.isna() & is_answered, False) for column, values in group.items()}
    return found


def _labels(file: Path) -> tuple[dict[str, dict[Any, Any]], list[tuple[str, str]]]:
    """Return column -> case -> value for the labels of the dermatologists, and the rows that were set aside."""
    rows = Rows(file, ["case_id", "weighted_skin_condition_label"])
    cases = rows.ids("case_id")
    weights = [_weights(text) for text in rows.texts("weighted_skin_condition_label")]
    rows.set_aside(
        np.array([weight is None for weight in weights]),
        "weighted_skin_condition_label",
        "{value} is not {'condition': weight, ...}",
    )
    labels: dict[str, dict[Any, Any]] = {"conditions": {}, "top_condition": {}, "condition_weights": {}}
    for case, weight, is_kept in zip(cases, weights, rows.is_kept, strict=True):
        if weight and is_kept:
            highest = [name for name, value in weight.items() if value == max(weight.values())]
            labels["conditions"][case] = list(weight)
            labels["top_condition"][case] = highest[0] if len(highest) == 1 else None
            labels["condition_weights"][case] = json.dumps(weight, ensure_ascii=False)
    return labels, rows.quarantined


def _weights(text: Any) -> dict[str, float] | None:
    """Return condition -> weight from text as Python writes a dict; empty where blank, None where it is no dict."""
    if not isinstance(text, str):
        return {}
    try:
        weights = ast.literal_eval(text)
        if not isinstance(weights, dict):
            return None
        return {str(name).strip(): float(value) for name, value in weights.items()}
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
