"""The card of a data set: what it is, under which terms, what is predicted from it and what the questionnaire means."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, model_validator

from dermlab.core.config import Config, read_yaml, validate, write_yaml
from dermlab.core.errors import InputError
from dermlab.core.files import write_text

TargetKind = Literal["binary", "multiclass", "multilabel", "ordinal"]
MetadataKind = Literal["numeric", "boolean", "categorical"]
Unit = Literal["image", "lesion", "patient"]
Modality = Literal["clinical", "dermoscopy", "tbp", "histopathology"]

MODALITIES: tuple[str, ...] = get_args(Modality)

RESERVED: dict[str, str] = {
    "image_id": "text",
    "path": "text",
    "patient_id": "text",
    "lesion_id": "text",
    "captured_at": "date",
    "site": "text",
    "mask_path": "text",
    "skin_type": "integer",
    "modality": "text",
    "event": "boolean",
    "time_to_event": "numeric",
}
"""The manifest's reserved columns and the type of each; every other column is a target or questionnaire metadata."""


def _as_text(value: Any) -> Any:
    """Take a number that stands where text is meant (``classes: [0, 1, 2]``) as its text; refuse YAML's yes and no."""
    if isinstance(value, bool):
        # YAML 1.1 reads yes, no, on and off as truth values: which word the author wrote cannot be known any more.
        raise ValueError(
            "put it in quotes: YAML reads yes, no, on, off, true and false without quotes as a truth value"
        )
    return str(value) if isinstance(value, int) else value


Text = Annotated[str, BeforeValidator(_as_text)]


def _repeated(values: Iterable[str]) -> list[str]:
    return [value for value, count in Counter(values).items() if count > 1]


class Target(Config):
    """One thing to predict: a column of the manifest and its ordered classes."""

    column: Text = Field(description="column of the manifest that holds the labels")
    kind: TargetKind = Field(
        default="multiclass",
        description="binary (the second class is positive), multiclass, multilabel or ordinal (in order)",
    )
    classes: tuple[Text, ...] = Field(min_length=1, description="the classes, in the order of every table and array")
    default: bool = Field(default=False, description="the target used where none is named")
    names: dict[Text, str] = Field(default={}, description="class -> what a person reads")
    hierarchy: dict[Text, tuple[Text, ...]] | None = Field(
        default=None,
        description="group -> classes, for example benign and malignant; a class belongs to at most one group",
    )
    cost_matrix: tuple[tuple[float, ...], ...] | None = Field(
        default=None, description="cost of a decision: row = the true class, column = the predicted class"
    )

    @model_validator(mode="after")
    def _is_consistent(self) -> Target:
        if repeated := _repeated(self.classes):
            raise ValueError(f"class {repeated[0]!r} of {self.column!r} is listed twice")
        if "" in self.classes:
            raise ValueError(f"a class of {self.column!r} is empty text; a missing label is null and no class")
        if self.kind == "binary" and len(self.classes) != 2:
            raise ValueError(f"binary target {self.column!r} needs exactly 2 classes, the second is the positive one")
        if self.kind in ("multiclass", "ordinal") and len(self.classes) < 2:
            raise ValueError(f"{self.kind} target {self.column!r} needs at least 2 classes")
        known = ", ".join(self.classes)
        for name in self.names:
            if name not in self.classes:
                raise ValueError(f"names: {name!r} is not a class of {self.column!r} ({known})")
        if self.hierarchy is not None:
            members = [name for group in self.hierarchy.values() for name in group]
            for name in members:
                if name not in self.classes:
                    raise ValueError(f"hierarchy: {name!r} is not a class of {self.column!r} ({known})")
            if repeated := _repeated(members):
                raise ValueError(f"hierarchy: class {repeated[0]!r} stands in two groups")
        if self.cost_matrix is not None:
            n = len(self.classes)
            if len(self.cost_matrix) != n or any(len(row) != n for row in self.cost_matrix):
                raise ValueError(f"cost_matrix must have {n} rows of {n} numbers, one per class of {self.column!r}")
        return self


class MetadataColumn(Config):
    """One column of the questionnaire and its type."""

    column: Text = Field(description="column of the manifest")
    kind: MetadataKind = Field(description="numeric, boolean or categorical")
    unit: str | None = Field(default=None, description="unit of a numeric column, for example mm or years")
    values: tuple[Text, ...] | None = Field(default=None, description="the values a categorical column may take")
    description: str = Field(default="", description="the question that was asked")

    @model_validator(mode="after")
    def _is_consistent(self) -> MetadataColumn:
        if self.unit is not None and self.kind != "numeric":
            raise ValueError(f"only a numeric column has a unit; {self.column!r} is {self.kind}")
        if self.values is not None and self.kind != "categorical":
            raise ValueError(f"only a categorical column lists its values; {self.column!r} is {self.kind}")
        if self.values is not None and (repeated := _repeated(self.values)):
            raise ValueError(f"value {repeated[0]!r} of {self.column!r} is listed twice")
        return self


class Card(Config):
    """What a data set is; ``card.yaml`` of its folder."""

    name: Text = Field(min_length=1, description="short name, as it stands in reports")
    version: Text = Field(default="1", description="version of the data, raised when they change")
    description: str = Field(default="", description="what was photographed, where and when, of whom")
    licence: str | None = Field(
        default=None, description="SPDX identifier or named terms; null counts as unknown, never as fine"
    )
    licence_card: str | None = Field(default=None, description="id of the card in dermlab's licence list")
    citation: str = Field(default="", description="how to cite it")
    source: str = Field(default="", description="where it came from, and how it was brought here")
    targets: tuple[Target, ...] = Field(default=(), description="what can be predicted")
    metadata: tuple[MetadataColumn, ...] = Field(default=(), description="the questionnaire")
    label_proxies: tuple[Text, ...] = Field(
        default=(), description="columns that give the label away (known only after the diagnosis); never an input"
    )
    group_by: Text | None = Field(
        default=None, description="column that no split may divide; null = patient_id, else lesion_id, else every image"
    )
    unit: Unit = Field(default="image", description="what is scored: image, lesion or patient")
    pooling: Literal["mean", "max"] = Field(
        default="mean", description="how probabilities of one unit's images are pooled"
    )

    @model_validator(mode="after")
    def _is_consistent(self) -> Card:
        columns = [target.column for target in self.targets] + [column.column for column in self.metadata]
        if repeated := _repeated(columns):
            raise ValueError(f"column {repeated[0]!r} is listed twice among targets and metadata")
        for column in columns:
            if column in RESERVED:
                raise ValueError(
                    f"{column!r} is a reserved column and can be neither a target nor metadata; copy it to another name"
                )
        if sum(target.default for target in self.targets) > 1:
            raise ValueError("only one target can be the default one")
        for column in self.label_proxies:
            if column in (target.column for target in self.targets):
                raise ValueError(f"{column!r} is a target and cannot be a label proxy too")
        return self

    def target(self, name: str | None = None) -> Target:
        """Return the target called ``name``, or the default one (marked so, or the only one).

        Raises :class:`InputError` where there is none of that name, none at all, or several and none is marked.
        """
        names = ", ".join(target.column for target in self.targets)
        if name is not None:
            for target in self.targets:
                if target.column == name:
                    return target
            raise InputError(f"{self.name}: no target {name!r}; there is {names or 'none: the data set has no labels'}")
        if not self.targets:
            raise InputError(f"{self.name}: the data set has no target; name one under 'targets:' in its card.yaml")
        marked = [target for target in self.targets if target.default]
        if marked or len(self.targets) == 1:
            return (marked or list(self.targets))[0]
        raise InputError(
            f"{self.name}: which target? There are {names}; name one or mark one with 'default: true' in card.yaml"
        )


def read_card(path: str | Path) -> Card:
    """Read and validate a ``card.yaml``; every fault is one :class:`InputError` line naming file and field."""
    return validate(Card, read_yaml(path), source=str(path))


def write_card(path: str | Path, card: Card) -> Path:
    """Write a card as YAML, without the fields that stand at their default."""
    data = card.model_dump(mode="json", exclude_defaults=True)
    data = {"name": card.name, "version": card.version, **data}
    return write_text(path, write_yaml(data))
