"""What a user may say about a head and about a probe; light to import, shared by commands and bake-off configs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from dermlab.core.config import Config
from dermlab.core.device import Precision

HeadKind = Literal["knn", "linear", "mlp", "fusion", "questionnaire", "majority"]
Decision = Literal["most_probable", "cost"]
DEFAULT_SPLIT = "main"

# Which settings beyond ``kind`` each head has.
SETTINGS: dict[str, tuple[str, ...]] = {
    "knn": ("k", "weights", "centre", "choose_by"),
    "linear": ("C", "standardise", "class_weight", "with_questionnaire", "choose_by"),
    "questionnaire": ("C", "class_weight", "choose_by"),
    "mlp": ("hidden", "epochs", "dropout", "weight_decay", "n_members", "class_weight", "choose_by"),
    "fusion": ("hidden", "epochs", "dropout", "weight_decay", "n_members", "class_weight", "choose_by"),
    "majority": (),
}


def _as_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, int | float) else value


class HeadConfig(Config):
    """A head and its settings; what is not said is the head's own default or is chosen on val."""

    kind: HeadKind = Field(description="knn, linear, mlp, fusion, questionnaire or majority")
    k: Annotated[tuple[int, ...] | None, BeforeValidator(_as_tuple)] = Field(
        None, min_length=1, description="numbers of neighbours to choose from on val"
    )
    weights: Literal["softmax", "uniform"] | None = Field(None, description="how neighbours of knn vote")
    centre: bool | None = Field(None, description="knn: subtract the training mean before the cosine")
    C: Annotated[tuple[float, ...] | None, BeforeValidator(_as_tuple)] = Field(
        None, min_length=1, description="inverse penalties of the logistic regression to choose from on val"
    )
    standardise: bool | None = Field(None, description="linear: false fits the features as they come")
    with_questionnaire: bool | None = Field(None, description="linear: the encoded questionnaire beside the embedding")
    class_weight: Literal["balanced"] | None = Field(None, description="balanced weighs the classes alike in training")
    hidden: int | None = Field(None, ge=1, description="width of the hidden layer of mlp and fusion")
    epochs: int | None = Field(None, ge=1, description="most passes over the training part of mlp and fusion")
    dropout: float | None = Field(None, ge=0, lt=1, description="dropout of mlp and fusion")
    weight_decay: float | None = Field(None, ge=0, description="weight decay of mlp and fusion")
    n_members: int | None = Field(None, ge=1, description="networks averaged by mlp and fusion")
    choose_by: Literal["log_loss", "top1", "balanced_accuracy", "macro_f1", "auroc", "auprc"] | None = Field(
        None, description="metric on val that chooses the head's settings; none: log_loss, and the run's metric for knn"
    )

    @model_validator(mode="after")
    def _settings_fit_the_kind(self) -> HeadConfig:
        allowed = SETTINGS[self.kind]
        for name in self.settings():
            if name not in allowed:
                known = f"it has {', '.join(allowed)}" if allowed else "it has none"
                raise ValueError(f"the head {self.kind!r} has no setting {name!r}; {known}")
        return self

    def settings(self) -> dict[str, Any]:
        """Return what was said beyond ``kind``."""
        return {name: value for name, value in self if name != "kind" and value is not None}


def _from_word(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else value


Head = Annotated[HeadConfig, BeforeValidator(_from_word)]
"""A head in a config: a word, or a mapping with ``kind`` and settings."""


class Embedding(Config):
    """How photos are embedded; an addition to the settings of what is done with their features."""

    device: str = Field("auto", description="auto, cpu, cuda:0 or mps")
    precision: Precision = Field("auto", description="arithmetic of the embedding")
    batch_size: int | None = Field(None, ge=1, description="photos at a time in the embedding; none chooses by device")


class ProbeSettings(Config):
    """What is fitted on a data set; the same fields are the options of ``dermlab probe``."""

    encoder: str | None = Field(None, description="encoder's name; none for the heads questionnaire and majority")
    head: Head = Field(HeadConfig(kind="linear"), description="knn, linear, mlp, fusion, questionnaire or majority")
    split: str = Field(DEFAULT_SPLIT, description="name of the split; main is made (60/20/20, grouped) where missing")
    target: str | None = Field(None, description="what is predicted; none means the card's default target")
    metric: Literal["top1", "balanced_accuracy", "macro_f1", "auroc", "auprc", "quadratic_kappa"] = Field(
        "top1", description="chooses on val; top1 means auroc for a multi-label target"
    )
    decision: Decision = Field(
        "most_probable", description="most_probable, or cost: of least expected cost by the card"
    )
    seed: int = Field(0, ge=0, description="seed of everything")
    max_train_per_class: int | None = Field(None, ge=1, description="at most so many training photos of a class")
    max_val_per_class: int | None = Field(None, ge=1, description="at most so many validation photos of a class")
    include_columns: tuple[str, ...] = Field((), description="label proxies to use as inputs all the same; needs waive")
    waive: tuple[str, ...] = Field(
        (), description="what may pass by name, as proxy:biopsed or group-overlap; told in every result"
    )
    n_boot: int = Field(2000, ge=100, description="bootstrap replicates of the intervals")
