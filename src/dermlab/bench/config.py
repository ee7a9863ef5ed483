"""The config of a bake-off: a page that a clinician can read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from dermlab.adapt.config import DEFAULT_SPLIT, Head, HeadConfig
from dermlab.core.config import Config
from dermlab.core.device import Precision
from dermlab.evaluate.assessment import Assessment
from dermlab.evaluate.columns import Columns

Use = Literal["research", "internal", "commercial", "commercial-medical"]
Metric = Literal["top1", "balanced_accuracy", "macro_f1", "auroc"]
WITHOUT_ENCODER = ("questionnaire", "majority")
RESERVED_NAMES = ("ensemble",)


class CandidateConfig(Config):
    """One candidate: an encoder and the head that is fitted on its features."""

    name: str | None = Field(None, min_length=1, max_length=80, description="how tables call it")
    encoder: str | None = Field(None, description="the encoder's name; none for a head that looks at no photo")
    head: Head = Field(description="the head: a word, or its settings as a mapping with kind:")

    @model_validator(mode="after")
    def _fits(self) -> CandidateConfig:
        needs = self.head.kind not in WITHOUT_ENCODER
        if needs and self.encoder is None:
            raise ValueError(f"encoder is required for the head {self.head.kind!r}")
        if not needs and self.encoder is not None:
            raise ValueError(f"the head {self.head.kind!r} looks at no photo; leave encoder out")
        return self

    @property
    def label(self) -> str:
        """The name in tables: the given one, else made of encoder and head."""
        if self.name is not None:
            return self.name
        return f"{short_encoder(self.encoder)}-{self.head.kind}" if self.encoder else str(self.head.kind)


class BakeoffConfig(Config):
    """Candidates, a protocol, and what is at stake."""

    data: Path = Field(description="data set folder")
    target: str | None = Field(None, description="what is predicted; none means the card's default target")
    split: str | None = Field(
        None, description="name of the split; made where it is missing; none means main, or by folds"
    )
    folds: int | None = Field(
        None, ge=2, description="number of folds of a split that is made here; none means one split"
    )
    repeats: int = Field(1, ge=1, description="how often the folds are drawn anew")
    use: Use = Field("commercial", description="what the winner is for: decides which licences will do")
    metric: Metric = Field("top1", description="chooses on val and compares on test")
    seed: int = Field(0, ge=0, description="seed of everything")
    encoders: tuple[str, ...] = Field((), description="each of these with each of the heads")
    heads: tuple[Head, ...] = Field(
        (HeadConfig(kind="linear"),), description="heads for the encoders: knn, linear, mlp, fusion"
    )
    candidates: tuple[CandidateConfig, ...] = Field((), description="further candidates, one by one")
    ensemble: bool = Field(True, description="add the weighted mean of the candidates that may ship")
    max_train_per_class: int | None = Field(None, ge=1, description="at most so many training photos of a class")
    max_val_per_class: int | None = Field(None, ge=1, description="at most so many validation photos of a class")
    baseline: Path | None = Field(None, description="what you have: a run folder, or anyone's predictions table")
    baseline_name: str | None = Field(None, description="what to call it; none means its own name")
    baseline_columns: Columns | None = Field(None, description="how the baseline's table names its columns")
    margin: float = Field(
        0.0, gt=-1, lt=1, description="least gain over the baseline that is worth a change (0.02: two points)"
    )
    include_columns: tuple[str, ...] = Field((), description="label proxies used as inputs all the same; needs waive")
    waive: tuple[str, ...] = Field(
        (), description="findings of the audit that may pass, by name; printed in the report"
    )
    device: str = Field("auto", description="auto, cpu, cuda:0 or mps")
    precision: Precision = Field("auto", description="auto, fp32, bf16 or fp16")
    n_boot: int = Field(2000, ge=100, description="bootstrap replicates of the intervals")
    assessment: Assessment = Field(
        Assessment(), description="what is asked of the winner beyond its metrics: subgroups, referral, coverage, …"
    )
    full_data_images: int | None = Field(None, ge=1, description="photos you have in all: for the estimate of the cost")
    photos: bool = Field(True, description="put thumbnails of patients' photos into the report")

    @model_validator(mode="after")
    def _is_consistent(self) -> BakeoffConfig:
        for place, head in enumerate(self.heads):
            if head.kind in WITHOUT_ENCODER:
                raise ValueError(f"heads.{place}: {head.kind!r} looks at no photo; it is among the floors anyway")
        if not self.everything():
            raise ValueError("no candidate: name encoders: and heads:, or candidates:")
        if self.margin and self.baseline is None:
            raise ValueError("margin: needs a baseline: to be held against")
        if self.repeats > 1 and self.folds is None:
            raise ValueError("repeats: needs folds:")
        taken: dict[str, str] = {}
        for candidate in self.everything():
            folder = folder_name(candidate.label)
            if folder in taken or folder in RESERVED_NAMES:
                other = taken.get(folder, folder)
                raise ValueError(f"candidates: {candidate.label!r} and {other!r} have the same name; give one a name:")
            taken[folder] = candidate.label
        return self

    def everything(self) -> list[CandidateConfig]:
        """Return the encoders with each head, then the candidates named one by one."""
        crossed = [CandidateConfig(encoder=encoder, head=head) for encoder in self.encoders for head in self.heads]
        return crossed + list(self.candidates)

    def encoder_names(self) -> dict[str, str | None]:
        """Return every encoder by its place in the config: ``encoders.0``, ``candidates.2.encoder``."""
        crossed = {f"encoders.{k}": name for k, name in enumerate(self.encoders)}
        return {**crossed, **{f"candidates.{k}.encoder": item.encoder for k, item in enumerate(self.candidates)}}

    @property
    def split_name(self) -> str:
        """The split's name: the given one, else ``main``, else one that says how it was made."""
        if self.split is not None:
            return self.split
        if self.folds is None:
            return DEFAULT_SPLIT
        times = f"x{self.repeats}" if self.repeats > 1 else ""
        return f"folds{self.folds}{times}-seed{self.seed}"


def short_encoder(name: str) -> str:
    """Return an encoder's name for tables: without the library's prefix; of a path its telling part."""
    text = name.removesuffix("+random")
    random = name[len(text) :]
    _, _, rest = text.rpartition("@")
    if "/" in rest and not re.match(r"(hf|hf-hub):", rest):
        path = Path(rest)
        named = path.parent.name if path.name == "encoder" and path.parent.name else path.stem
        return named + random
    return rest.rpartition(":")[2].rpartition("/")[2] + random


def folder_name(label: str) -> str:
    """Return a candidate's folder name: letters, digits, ``.``, ``_``, ``+`` and ``-``."""
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", label).strip("-.") or "candidate"
