"""The config of a bake-off: a page that a clinician can read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from dermlab.adapt.config import DEFAULT_SPLIT, Head, HeadConfig
from dermlab.adapt.finetune.config import FinetuneSettings
from dermlab.core.config import Config, read_yaml
from dermlab.core.device import Precision
from dermlab.core.errors import InputError
from dermlab.evaluate.assessment import Assessment
from dermlab.evaluate.columns import Columns

Use = Literal["research", "internal", "commercial", "commercial-medical"]
Metric = Literal["top1", "balanced_accuracy", "macro_f1", "auroc", "auprc", "quadratic_kappa"]
WITHOUT_ENCODER = ("questionnaire", "majority")
RESERVED_NAMES = ("ensemble",)


FLOORS = ("majority", "questionnaire", "histogram-knn")
DRAWS_NOTHING = ("knn", "linear", "questionnaire", "majority")
"""Heads that come out the same for every seed."""

RULED = ("split", "target", "seed", "waive", "device", "n_boot", "data", "out")
"""Fields of a fine-tuning recipe that the bake-off decides for all candidates."""


class CandidateConfig(Config):
    """One candidate: an encoder and the head that is fitted on its features, or a recipe that trains the whole network.

    A recipe is read from its file when the config is, and is kept in full: what runs is what stands in the record.
    """

    name: str | None = Field(None, min_length=1, max_length=80, description="how tables call it")
    encoder: str | None = Field(None, description="the encoder's name; none for a head that looks at no photo")
    head: Head | None = Field(None, description="the head: a word, or its settings as a mapping with kind:")
    finetune: FinetuneSettings | None = Field(
        None, description="in place of encoder and head: a recipe's file (configs/finetune/…), or its fields"
    )
    changes: dict[str, Any] = Field({}, description="single fields of that recipe changed")
    seeds: tuple[int, ...] = Field((), description="trained once with each; none means the bake-off's seed")

    @model_validator(mode="before")
    @classmethod
    def _read_recipe(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        recipe, changes = given.get("finetune"), given.get("changes") or {}
        if changes and recipe is None:
            raise ValueError("changes: are of a recipe; name it under finetune:")
        if not isinstance(recipe, str | Path | dict) or not isinstance(changes, dict):
            return given
        ruled = [name for name in changes if name in RULED]
        if ruled:
            raise ValueError(f"changes: {ruled[0]} is the bake-off's, the same for all candidates" + _where(ruled[0]))
        if isinstance(recipe, dict):
            fields = recipe
        else:
            try:
                fields = read_yaml(recipe)
            except InputError as error:
                raise ValueError(f"finetune: {error}") from None
            given = {**given, "name": given.get("name") or Path(recipe).stem}
        return {**given, "finetune": {k: v for k, v in fields.items() if k not in RULED} | changes, "changes": {}}

    @model_validator(mode="after")
    def _fits(self) -> CandidateConfig:
        if len(set(self.seeds)) < len(self.seeds) or any(seed < 0 for seed in self.seeds):
            raise ValueError("seeds: must be different numbers from 0 up")
        if self.finetune is not None:
            if self.encoder is not None or self.head is not None:
                raise ValueError("finetune: stands in place of encoder and head; change the recipe's own by changes:")
            return self
        if self.head is None:
            raise ValueError("head is required (or finetune: with a recipe)")
        if self.seeds and self.head.kind in DRAWS_NOTHING:
            raise ValueError(f"seeds: the head {self.head.kind!r} draws nothing and comes out the same for each")
        if self.seeds and (self.encoder or "").endswith("+random"):
            raise ValueError("seeds: random weights are drawn by the bake-off's seed; finetune: trains them with each")
        needs = self.head.kind not in WITHOUT_ENCODER
        if needs and self.encoder is None:
            raise ValueError(f"encoder is required for the head {self.head.kind!r}")
        if not needs and self.encoder is not None:
            raise ValueError(f"the head {self.head.kind!r} looks at no photo; leave encoder out")
        return self

    @property
    def network(self) -> str | None:
        """The encoder that is used or trained; None where no photo is looked at."""
        return self.encoder if self.finetune is None else self.finetune.encoder

    @property
    def label(self) -> str:
        """The name in tables: the given one, else made of encoder and head."""
        if self.name is not None:
            return self.name
        if self.finetune is not None:
            return f"{short_encoder(self.finetune.encoder)}-finetuned"
        assert self.head is not None
        return f"{short_encoder(self.encoder)}-{self.head.kind}" if self.encoder else str(self.head.kind)


def _where(field: str) -> str:
    return "; name them under seeds:" if field == "seed" else ""


class Screening(Config):
    """Before the full budget: every recipe on the same part of the photos for the same epochs, judged on val."""

    max_train_samples: int = Field(24000, ge=2, description="a seeded, stratified part of train, the same for all")
    max_val_samples: int | None = Field(4000, ge=1, description="the same of val; none: all")
    frozen_epochs: int = Field(1, ge=0, description="of every recipe that has any")
    finetune_epochs: int = Field(4, ge=0, description="of every recipe that has any")
    finalists: int | None = Field(
        None, ge=1, description="so many go on, the best on val; none: all that val cannot tell from the best"
    )


class Step(Config):
    """One step of a gain decomposition: what was changed, and the candidate that has this and all before it."""

    factor: str = Field(min_length=1, description="what was changed: recipe, backbone, questionnaire, …")
    candidate: str = Field(min_length=1, description="the candidate's name")


class Combination(Config):
    """A candidate with only some of the factors, for the average over all orders (Shapley)."""

    factors: tuple[str, ...] = Field(min_length=1, description="the factors that it has")
    candidate: str = Field(min_length=1, description="the candidate's name")


class Decomposition(Config):
    """Which lever gave what: an ordered list of candidates that differ by one factor each."""

    baseline: str = Field(min_length=1, description="the candidate that has none of the factors")
    steps: tuple[Step, ...] = Field(min_length=1, description="in the order in which the factors were added")
    combinations: tuple[Combination, ...] = Field((), description="candidates with other sets of the factors")

    @model_validator(mode="after")
    def _names_each_set_once(self) -> Decomposition:
        names = [step.factor for step in self.steps]
        if len(set(names)) < len(names):
            raise ValueError("steps: each factor is added once")
        taken = set(self.subsets())
        for place, item in enumerate(self.combinations):
            strange = [name for name in item.factors if name not in names]
            if strange:
                raise ValueError(f"combinations.{place}: {strange[0]!r} is no factor of steps: ({', '.join(names)})")
            if frozenset(item.factors) in taken:
                raise ValueError(f"combinations.{place}: {' + '.join(item.factors)} has a candidate already")
            taken.add(frozenset(item.factors))
        return self

    @property
    def factors(self) -> tuple[str, ...]:
        """The factors in the order in which they were added."""
        return tuple(step.factor for step in self.steps)

    def subsets(self) -> dict[frozenset[str], str]:
        """Return the candidate of each set of factors that the steps name."""
        found = {frozenset[str](): self.baseline}
        for place, step in enumerate(self.steps):
            found[frozenset(self.factors[: place + 1])] = step.candidate
        return found

    def runs(self) -> dict[frozenset[str], str]:
        """Return the candidate of each set of factors that has one."""
        return self.subsets() | {frozenset(item.factors): item.candidate for item in self.combinations}


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
    metric: Metric = Field(
        "top1", description="chooses on val and compares on test; top1 means auroc for a multi-label target"
    )
    seed: int = Field(0, ge=0, description="seed of everything")
    encoders: tuple[str, ...] = Field((), description="each of these with each of the heads")
    heads: tuple[Head, ...] = Field(
        (HeadConfig(kind="linear"),), description="heads for the encoders: knn, linear, mlp, fusion"
    )
    candidates: tuple[CandidateConfig, ...] = Field((), description="further candidates, one by one")
    ensemble: bool = Field(
        True, description="add the weighted mean of the candidates that may ship; of one answer a case"
    )
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
    screening: Screening | None = Field(
        None, description="first a small budget, equal for all fine-tuned candidates; only its finalists go on"
    )
    decomposition: Decomposition | None = Field(None, description="which of several changes gave how much")
    price_per_hour: float | None = Field(None, gt=0, description="of this machine: for the plan of --dry_run")
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
            for folder in folders_of(candidate, self.seed):
                if folder in taken or folder in RESERVED_NAMES:
                    other = taken.get(folder, folder)
                    raise ValueError(
                        f"candidates: {candidate.label!r} and {other!r} have the same name; give one a name:"
                    )
                taken[folder] = candidate.label
        self._check_recipes()
        names = {*taken.values(), *FLOORS}
        wanted = self.decomposition.runs().values() if self.decomposition is not None else ()
        strange = [name for name in wanted if name not in names]
        if strange:
            raise ValueError(f"decomposition: {strange[0]!r} is none of the candidates: {', '.join(sorted(names))}")
        return self

    def _check_recipes(self) -> None:
        """Refuse what a fine-tuned candidate cannot follow, or what has none to hold for."""
        tuned = [item.label for item in self.candidates if item.finetune is not None]
        if self.screening is not None and not tuned:
            raise ValueError("screening: is for fine-tuned candidates, and there is none")
        for name in ("max_train_per_class", "max_val_per_class", "include_columns"):
            if tuned and getattr(self, name):
                raise ValueError(f"{name}: holds for frozen encoders alone, but {tuned[0]!r} is fine-tuned")

    def everything(self) -> list[CandidateConfig]:
        """Return the encoders with each head, then the candidates named one by one."""
        crossed = [CandidateConfig(encoder=encoder, head=head) for encoder in self.encoders for head in self.heads]
        return crossed + list(self.candidates)

    def encoder_names(self) -> dict[str, str | None]:
        """Return every encoder by its place in the config: ``encoders.0``, ``candidates.2.encoder``."""
        crossed: dict[str, str | None] = {f"encoders.{k}": name for k, name in enumerate(self.encoders)}
        for place, item in enumerate(self.candidates):
            crossed[f"candidates.{place}.{'finetune.' if item.finetune else ''}encoder"] = item.network
        return crossed

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


def seed_folder(label: str, seed: int) -> str:
    """Return the folder name of one of a candidate's trainings."""
    return f"{folder_name(label)}-seed{seed}"


def folders_of(candidate: CandidateConfig, seed: int) -> list[str]:
    """Return the names of the folders that a candidate writes below ``runs``.

    Args:
        candidate: the candidate.
        seed: the bake-off's, where it names none.
    """
    own = [folder_name(candidate.label)]
    if candidate.finetune is None and not candidate.seeds:
        return own
    return own + [seed_folder(candidate.label, one) for one in candidate.seeds or (seed,)]
