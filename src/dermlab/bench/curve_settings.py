"""What a user may say about label efficiency and robustness; light to import."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from dermlab.adapt.config import DEFAULT_SPLIT
from dermlab.core.config import Config
from dermlab.core.errors import InputError
from dermlab.data.corruptions import CORRUPTIONS, SEVERITIES, corruption
from dermlab.evaluate.metrics import metric

PER_CLASS = (1, 3, 10, 30, 100, 300, 1000)
PERCENT = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0)
CS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
HeadName = Literal["knn", "linear"]
HEADS: tuple[HeadName, ...] = ("knn", "linear")


class Curves(Config):
    """What a label-efficiency run is asked, apart from the data and the encoders."""

    split: str = Field(DEFAULT_SPLIT, description="name of the split; with folds each repeat draws in every fold")
    target: str | None = Field(None, description="target; none means the data set's default one")
    per_class: tuple[int, ...] = Field(PER_CLASS, description="labels per class")
    percent: tuple[float, ...] = Field(PERCENT, description="shares of the training labels, in percent, stratified")
    repeats: int = Field(50, ge=2, description="draws of each size")
    heads: tuple[HeadName, ...] = Field(HEADS, min_length=1, description="knn, linear or both")
    k: tuple[int, ...] | None = Field(
        None, min_length=1, description="numbers of neighbours, chosen from on val; default 1, 5, 10, … 200"
    )
    weights: Literal["softmax", "uniform"] = Field("softmax", description="how neighbours vote")
    C: tuple[float, ...] = Field(CS, min_length=1, description="inverse penalties, chosen from on val")
    metrics: tuple[str, ...] = Field(
        ("macro_f1", "balanced_accuracy", "top1"),
        min_length=1,
        description="what is reported; the first chooses k and C on val and is what labels needed are read off",
    )
    scores: tuple[float, ...] = Field(
        (), description="scores at which labels needed are read off; default every .05 that a curve reaches"
    )
    seed: int = Field(0, description="of the draws and the bootstrap")
    n_boot: int = Field(1000, ge=100, description="bootstrap replicates")

    @field_validator("per_class", "k")
    @classmethod
    def _positive(cls, value: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if value is None:
            return None
        if any(item < 1 for item in value):
            raise ValueError(f"must be whole numbers from 1, not {min(value)}")
        return tuple(sorted(set(value)))

    @field_validator("percent")
    @classmethod
    def _shares(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if any(not 0 < item <= 100 for item in value):
            raise ValueError("must lie above 0 and up to 100")
        return tuple(sorted(set(value)))

    @field_validator("C")
    @classmethod
    def _above_zero(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if any(not item > 0 for item in value):
            raise ValueError("must be above 0")
        return tuple(sorted(set(value)))

    @field_validator("metrics")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            try:
                known = metric(name)
            except InputError as error:
                raise ValueError(str(error)) from None
            if name == value[0] and not known.higher_is_better:
                raise ValueError(f"{name!r} is better when lower; the first metric must be better when higher")
        return value


class Corrupting(Config):
    """What a robustness run is asked, apart from the model and the data."""

    corruptions: tuple[str, ...] = Field(
        tuple(CORRUPTIONS), min_length=1, description=f"what is done to the photos: {', '.join(CORRUPTIONS)}"
    )
    severities: tuple[int, ...] = Field(SEVERITIES, min_length=1, description="strengths, from 1 to 5")
    limit: int | None = Field(None, ge=2, description="at most about so many test photos, whole patients drawn by seed")
    metrics: tuple[str, ...] = Field(
        ("balanced_accuracy", "top1", "macro_f1", "auroc"),
        min_length=1,
        description="what is reported; the first orders the corruptions and is drawn",
    )
    seed: int = Field(0, description="of the corruptions, the limit and the bootstrap")
    n_boot: int = Field(2000, ge=100, description="bootstrap replicates")

    @field_validator("corruptions")
    @classmethod
    def _corruptions_exist(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            try:
                corruption(name)
            except InputError as error:
                raise ValueError(str(error)) from None
        return tuple(dict.fromkeys(value))

    @field_validator("severities")
    @classmethod
    def _severities_exist(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if any(item not in SEVERITIES for item in value):
            raise ValueError("must be among 1, 2, 3, 4, 5")
        return tuple(sorted(set(value)))

    @field_validator("metrics")
    @classmethod
    def _metrics_exist(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            try:
                known = metric(name)
            except InputError as error:
                raise ValueError(str(error)) from None
            if not known.higher_is_better:
                raise ValueError(
                    f"{name!r} is better when lower; drops are told of metrics that are better when higher"
                )
        return value
