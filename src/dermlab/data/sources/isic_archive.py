"""A metadata export of the ISIC archive (api.isic-archive.com), with the images beside it.

Layout: ``metadata.csv`` as the archive's page and ``isic-cli`` write it: ``isic_id`` and, of a long list of columns,
those that have a value. Read in Digital-Dermatology/core, which maps the older export (``image``, ``diagnosis``,
``anatom_site_general``) and the newer one (``diagnosis_1`` to ``_5``, ``anatom_site_1`` …) onto each other; both are
understood here. The images are named ``<isic_id>.jpg``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pandas as pd

from dermlab.core.errors import InputError
from dermlab.data.card import MetadataColumn, Target
from dermlab.data.sources import SourceData
from dermlab.data.sources.files import Matcher, find_images, require_folder, without_extension
from dermlab.data.sources.upstream import (
    UNKNOWN,
    Rows,
    collect,
    find_file,
    locate,
    malignancy,
    observed_target,
    published,
)

METADATA = (
    MetadataColumn(column="age_approx", kind="numeric", unit="years", description="age, rounded to 5 years"),
    MetadataColumn(column="sex", kind="categorical", description="sex"),
    MetadataColumn(column="anatomical_site", kind="categorical", description="where on the body"),
    MetadataColumn(column="clin_size_long_diam_mm", kind="numeric", unit="mm", description="longest diameter"),
    MetadataColumn(column="personal_hx_mm", kind="boolean", description="had the patient a melanoma before"),
    MetadataColumn(column="family_hx_mm", kind="boolean", description="had the family melanomas"),
    MetadataColumn(column="acquisition_day", kind="numeric", unit="days", description="day since the first image"),
    MetadataColumn(column="dermoscopic_type", kind="categorical", description="contact or not, polarized or not"),
    MetadataColumn(column="diagnosis_confirm_type", kind="categorical", description="how the diagnosis was made"),
    MetadataColumn(column="concomitant_biopsy", kind="boolean", description="was there a biopsy"),
    MetadataColumn(column="melanocytic", kind="boolean", description="is the lesion melanocytic"),
    MetadataColumn(column="nevus_type", kind="categorical", description="of nevi"),
    MetadataColumn(column="mel_class", kind="categorical", description="of melanomas"),
    MetadataColumn(column="mel_type", kind="categorical", description="of melanomas"),
    MetadataColumn(column="mel_thick_mm", kind="numeric", unit="mm", description="of melanomas"),
    MetadataColumn(column="mel_mitotic_index", kind="categorical", description="of melanomas"),
    MetadataColumn(column="mel_ulcer", kind="boolean", description="of melanomas"),
)
PROXIES = (
    "diagnosis_confirm_type",
    "concomitant_biopsy",
    "melanocytic",
    "nevus_type",
    "mel_class",
    "mel_type",
    "mel_thick_mm",
    "mel_mitotic_index",
    "mel_ulcer",
)
_MALIGNANT = {"benign": "benign", "malignant": "malignant"}
_MODALITIES = {"dermoscopic": "dermoscopy", "clinical": "clinical", "tbp": "tbp"}
CITATION = "International Skin Imaging Collaboration, ISIC archive, https://www.isic-archive.com; see 'attribution'"


def read(path: Path, *, name: str | None = None) -> SourceData:
    """Read an export of the ISIC archive.

    Args:
        path: the folder with ``metadata.csv`` and the images.
        name: name of the data set; None is isic-archive.
    """
    return read_export(
        path,
        "an export of the ISIC archive",
        name=name or "isic-archive",
        description="Images of the ISIC archive",
        citation=CITATION,
        source="https://api.isic-archive.com",
    )


def read_export(
    path: Path,
    what: str,
    *,
    default: Literal["malignancy", "diagnosis"] = "malignancy",
    licence_card: str | None = None,
    **card: Any,
) -> SourceData:
    """Read an export of the ISIC archive as a data set of its own.

    ``malignancy`` is the archive's benign or malignant (anything between is null), ``diagnosis`` the third level of its
    diagnoses (the second where there is no third), or the flat one of older exports. Whatever is known only with the
    diagnosis (how it was confirmed, a melanoma's thickness, a nevus's type) is a label proxy.

    Args:
        path: the folder.
        what: what is expected there, for messages.
        default: the target that is used where none is named.
        licence_card: id; None is told by the licences of the images: the strictest counts.
        card: fields of the card.
    """
    rows = Rows(_table(path, what), [], missing=UNKNOWN)
    key = next((column for column in ("isic_id", "image") if column in rows), None)
    if key is None:
        raise InputError(f"{rows.table.file}: not an export of the ISIC archive, it lacks isic_id")
    files = find_images(path)
    ids = rows.ids(key)
    columns: dict[str, Any] = {
        "image_id": ids.map(without_extension, na_action="ignore"),
        "source_path": locate(ids, Matcher(files), files),
        "modality": _modality(rows),
        "malignancy": _malignancy(rows),
        "diagnosis": _diagnosis(rows),
    }
    for column in ("patient_id", "lesion_id"):
        if column in rows and rows.texts(column).notna().any():
            columns[column] = rows.texts(column)
    if "fitzpatrick_skin_type" in rows:
        columns["skin_type"] = rows.skin_types("fitzpatrick_skin_type")
    site = next((c for c in ("anatom_site_general", "anatom_site_1") if c in rows), "anatom_site_general")
    columns |= rows.questionnaire(METADATA, names={"anatomical_site": site}, missing=UNKNOWN)
    licences = rows.texts("copyright_license")
    manifest, quarantined = collect(files, [(rows, pd.DataFrame(columns).assign(licence=licences))])
    terms = manifest.pop("licence").value_counts()
    notes = ["licences of the images: " + ", ".join(f"{name} {n:,}" for name, n in terms.items())] if len(terms) else []
    is_free = len(terms) > 0 and not terms.index.str.upper().str.contains("NC").any()
    return published(
        files,
        manifest,
        quarantined,
        targets=_targets(manifest, default),
        metadata=METADATA,
        label_proxies=PROXIES,
        notes=notes,
        licence_card=licence_card or ("isic-cc0-ccby" if is_free else "isic-cc-by-nc"),
        licence=" and ".join(str(name) for name in sorted(terms.index)) or None,
        **card,
    )


def _table(path: Path, what: str) -> Path:
    """Return the export: ``metadata.csv``, else the only CSV of the folder."""
    require_folder(path, f"the folder of {what} with metadata.csv")
    tables = sorted(file for file in path.glob("*.csv") if file.name != "attribution.csv")
    if not (path / "metadata.csv").is_file() and len(tables) == 1:
        return tables[0]
    return find_file(path, ["metadata.csv"], what)


def _malignancy(rows: Rows) -> pd.Series:
    column = "benign_malignant" if "benign_malignant" in rows else "diagnosis_1"
    return rows.texts(column).str.casefold().map(_MALIGNANT)


def _diagnosis(rows: Rows) -> pd.Series:
    if "diagnosis" in rows:
        return rows.texts("diagnosis")
    return rows.texts("diagnosis_3").fillna(rows.texts("diagnosis_2"))


def _modality(rows: Rows) -> pd.Series:
    """Return the modality: 'dermoscopic', 'clinical: close-up', 'TBP tile: close-up'; blank is dermoscopy."""
    words = rows.texts("image_type").str.casefold().str.extract(r"^([a-z]+)", expand=False)
    rows.set_aside(
        words.notna() & ~words.isin(list(_MODALITIES)),
        "image_type",
        "{value} is none of dermoscopic, clinical, TBP",
    )
    return words.map(_MODALITIES).fillna("dermoscopy") if "image_type" in rows else words.fillna("dermoscopy")


def _targets(manifest: pd.DataFrame, default: str) -> list[Target]:
    """Return the targets whose labels occur: benign or malignant, and the diagnosis."""
    targets = [malignancy("malignancy")] if manifest["malignancy"].nunique() == 2 else []
    diagnosis = observed_target(manifest, "diagnosis", groups="malignancy")
    if diagnosis is not None:
        targets.append(diagnosis)
    wanted = next((target for target in targets if target.column == default), targets[0] if targets else None)
    return [target.model_copy(update={"default": target is wanted}) for target in targets]
