"""Make a data set folder from your photos or from a public layout."""

from __future__ import annotations

import difflib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from dermlab.core.config import Config
from dermlab.core.errors import InputError
from dermlab.data.card import Modality, TargetKind, Unit

if TYPE_CHECKING:
    from dermlab.data.sources import SourceData

_OF_THE_CARD = ("licence", "group_by", "unit", "label_proxies")
_OF_THE_COMMAND = ("source", "path", "out", "images", "threads", "modality", *_OF_THE_CARD)


class DataImportConfig(Config):
    """Options of ``dermlab data import``."""

    positional: ClassVar[tuple[str, ...]] = ("source", "path")

    source: str = Field(
        description="layout: folder, csv, imagefolder, npz, medmnist, or a published set as pad-ufes-20, ham10000, "
        "ddi, isic-2019 (a wrong word lists them all)"
    )
    path: Path = Field(description="where it lies: a folder, a table, an .npz file, or a MedMNIST flag")
    out: Path = Field(description="data set folder to write; one of the same source is brought up to date")
    name: str | None = Field(default=None, description="name of the data set; default from the path")
    licence: str | None = Field(default=None, description="terms of the photos: an SPDX identifier or a name")
    label_proxies: tuple[str, ...] = Field(
        default=(), description="columns that give the label away (known only after the diagnosis); never an input"
    )
    modality: Modality | None = Field(default=None, description="what all photos are, where no column says so")
    unit: Unit | None = Field(default=None, description="what is scored: image, lesion or patient")
    group_by: str | None = Field(
        default=None, description="column that no split may divide; default patient, else lesion"
    )
    images: Literal["copy", "hardlink"] = Field(
        default="copy", description="copy without metadata, or hardlink, which keeps the originals' EXIF and GPS"
    )
    image_folder: Path | None = Field(default=None, description="csv: folder of the photos; default the table's")
    image_column: str | None = Field(default=None, description="csv: column that names the files")
    label_column: tuple[str, ...] = Field(
        default=(), description="csv, imagefolder: columns of labels, the default first"
    )
    onehot_columns: tuple[str, ...] = Field(default=(), description="csv: 0/1 columns, one a class")
    patient_column: str | None = Field(default=None, description="csv: column of patients; - for none")
    lesion_column: str | None = Field(default=None, description="csv: column of lesions; - for none")
    site_column: str | None = Field(default=None, description="csv: column of the clinic; - for none")
    date_column: str | None = Field(default=None, description="csv: column of the day of the photo; - for none")
    metadata_columns: tuple[str, ...] = Field(
        default=(), description="csv, imagefolder: columns to keep as questionnaire; default all that can be"
    )
    label_separator: str | None = Field(default=None, description="csv: what separates several labels of one image")
    lesion_ids: Literal["unique", "per-patient"] | None = Field(
        default=None, description="csv: how lesions are numbered; default per patient where ids recur under patients"
    )
    missing_values: tuple[str, ...] = Field(
        default=(), description="csv, imagefolder: texts that mean a missing value, as UNK or unknown"
    )
    delimiter: str | None = Field(default=None, description="csv: what separates columns; default found by itself")
    encoding: str | None = Field(default=None, description="csv: text encoding; default found by itself")
    levels: str | None = Field(default=None, description="folder: meaning of the subfolders, as label or label/patient")
    kind: TargetKind | None = Field(default=None, description="kind of the target; default binary or multiclass")
    classes: tuple[str, ...] = Field(default=(), description="its classes in order; default in natural order")
    size: int | None = Field(default=None, description="medmnist: 28, 64, 128 or 224 pixels")
    threads: int | None = Field(default=None, ge=1, description="decoding threads; default one for each CPU")


@dataclass(frozen=True)
class DataImportResult:
    """What was found and written."""

    folder: Path
    name: str
    licence: str | None
    n_images: int
    n_new: int
    n_patients: int | None
    n_lesions: int | None
    classes: dict[str, dict[str, int]]
    columns: list[dict[str, Any]]
    parts: dict[str, int]
    n_quarantined: int
    n_missing_files: int
    reasons: dict[str, int]
    notes: tuple[str, ...] = ()
    quarantine: Path | None = field(default=None)

    def lines(self) -> list[str]:
        """Return what a person reads."""
        of = [
            f"{n:,} {what}" for n, what in ((self.n_lesions, "lesions"), (self.n_patients, "patients")) if n is not None
        ]
        new = "" if self.n_new >= self.n_images else f" ({self.n_new:,} new)"
        lines = [f"{self.folder}: {self.n_images:,} images{new}" + "".join(f" of {words}" for words in of)]
        for target, counts in self.classes.items():
            lines.append(f"target {target}: " + ", ".join(f"{name} {n:,}" for name, n in counts.items()))
        if not self.classes:
            lines.append("target: none, the images have no labels")
        if self.columns:
            lines.append(f"questionnaire: {len(self.columns)} columns")
            width = max(len(column["column"]) for column in self.columns)
            for column in self.columns:
                proxy = ", label proxy: never an input" if column["proxy"] else ""
                blank = f", {column['missing']:,} blank" if column["missing"] else ""
                lines.append(f"  {column['column']:<{width}}  {column['kind']}{blank}{proxy}")
        if self.parts:
            lines.append("split official: " + ", ".join(f"{part} {n:,}" for part, n in self.parts.items()))
        if self.n_quarantined:
            reasons = "; ".join(f"{n:,} × {reason}" for reason, n in list(self.reasons.items())[:5])
            more = f"; {len(self.reasons) - 5} more reasons" if len(self.reasons) > 5 else ""
            lines.append(f"set aside: {self.n_quarantined:,}, listed in {self.quarantine}: {reasons}{more}")
        lines.append(
            f"licence: {self.licence or 'unknown, which never counts as fine: give --licence or edit card.yaml'}"
        )
        lines += [f"note: {note}" for note in self.notes]
        lines.append(f"next: dermlab data check {self.folder}")
        lines.append(f"      dermlab data split {self.folder}")
        return lines

    def to_json(self) -> dict[str, Any]:
        """Return the same for ``--json``."""
        return asdict(self)


def run(config: DataImportConfig) -> DataImportResult:
    """Read the source, write the data set folder and count what is in it."""
    import dataclasses

    import pandas as pd

    from dermlab.data.card import Card
    from dermlab.data.dataset import QUARANTINE
    from dermlab.data.ingest import OFFICIAL, import_source
    from dermlab.data.sources import read_source
    from dermlab.data.sources.files import NO_SUCH_FILE

    given = {name: getattr(config, name) for name in type(config).model_fields if name not in _OF_THE_COMMAND}
    options = {name: value for name, value in given.items() if value not in (None, ())}
    source = read_source(config.source, config.path, **options)
    on_card = {name: getattr(config, name) for name in _OF_THE_CARD if getattr(config, name) not in (None, ())}
    _require_columns(config.label_proxies, source)
    card = Card(**{**source.card.model_dump(), **on_card})
    manifest = source.manifest
    if config.modality is not None:
        manifest = manifest.assign(modality=config.modality)
    source = dataclasses.replace(source, card=card, manifest=manifest)
    report = import_source(source, config.out, images=config.images, threads=config.threads, said=on_card)

    dataset = report.dataset
    card = dataset.card
    manifest = dataset.manifest
    counts = {}
    for target in card.targets:
        labels = manifest[target.column].explode().value_counts()
        counts[target.column] = {name: int(labels.get(name, 0)) for name in target.classes}
        if manifest[target.column].isna().any():
            counts[target.column]["(no label)"] = int(manifest[target.column].isna().sum())
    columns = [
        {
            "column": column.column,
            "kind": f"{column.kind} in {column.unit}" if column.unit else column.kind,
            "missing": int(manifest[column.column].isna().sum()),
            "proxy": column.column in card.label_proxies,
        }
        for column in card.metadata
    ]
    parts = (
        dataset.read_split(OFFICIAL)["split"].value_counts() if source.official is not None else pd.Series(dtype=int)
    )
    quarantine = dataset.quarantine
    return DataImportResult(
        folder=config.out,
        name=card.name,
        licence=card.licence,
        n_images=len(dataset),
        n_new=report.n_new,
        n_patients=int(manifest["patient_id"].nunique()) if "patient_id" in manifest else None,
        n_lesions=int(manifest["lesion_id"].nunique()) if "lesion_id" in manifest else None,
        classes=counts,
        columns=columns,
        parts={part: int(parts[part]) for part in ("train", "val", "test") if part in parts},
        n_quarantined=len(quarantine),
        n_missing_files=int((quarantine["reason"] == NO_SUCH_FILE).sum()),
        reasons=report.reasons,
        notes=report.notes,
        quarantine=config.out / QUARANTINE if len(quarantine) else None,
    )


def _require_columns(names: tuple[str, ...], source: SourceData) -> None:
    """Refuse label proxies that are no column: a word that is misspelt would protect nothing."""
    known = [column.column for column in source.card.metadata]
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise InputError(f"label_proxies: no questionnaire column {name!r}{hint}; there is {', '.join(known)}")
