"""What a suite's file may say, and where suites are found; light to import."""

from __future__ import annotations

import difflib
import importlib.resources
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from dermlab.adapt.config import Head, HeadConfig
from dermlab.adapt.finetune.config import FinetuneSettings
from dermlab.bench.curve_settings import Curves
from dermlab.core.config import Config, read_yaml, validate
from dermlab.core.errors import InputError
from dermlab.evaluate.metrics import metric as known_metric

Sure = Literal["read", "transcribed by eye"]
"""Where a published number was taken from: the text of a repository or paper, or the picture of a table."""

Chooses = Literal["top1", "balanced_accuracy", "macro_f1", "auroc"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "area"]
INTERPOLATIONS: tuple[Interpolation, ...] = ("nearest", "bilinear", "bicubic", "area")
NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")


def _is_better_when_higher(name: str) -> str:
    try:
        found = known_metric(name)
    except InputError as error:
        raise ValueError(str(error)) from None
    if not found.higher_is_better:
        raise ValueError(f"{name!r} is better when lower; tasks are ranked by what is better when higher")
    return name


class Split(Config):
    """How a task's photos are divided; groups (patients, else lesions) stay whole where it is drawn here."""

    rule: Literal["official", "drawn"] = Field(
        "drawn", description="official: the source's own test part; drawn: by group, stratified, once for each seed"
    )
    test: float = Field(0.15, gt=0, lt=1, description="drawn: share of the photos")
    val: float | None = Field(
        0.15, gt=0, lt=1, description="share for choosing, drawn for each seed; none: the official split's own val"
    )

    @model_validator(mode="after")
    def _leaves_some(self) -> Split:
        if self.rule == "drawn" and self.val is None:
            raise ValueError("val: null means the official split's own; a drawn split needs a share")
        if self.rule == "drawn" and self.test + (self.val or 0) >= 1:
            raise ValueError("test and val leave nothing to train on")
        return self


class Task(Config):
    """One task: a data set, one of its targets, a split and a metric."""

    name: str = Field(description="in tables and folders; lower case")
    title: str = Field("", description="what is asked of the photos")
    data: str = Field(description="name of the data set: the folder under --data_root, or --data NAME=DIR")
    source: str | None = Field(None, description="source of 'dermlab data import' that reads its own layout")
    options: dict[str, Any] = Field({}, description="options of that source")
    licence_card: str | None = Field(None, description="id of its licence card")
    target: str | None = Field(None, description="none: the data set's default target")
    split: Split | None = Field(None, description="none: the protocol's")
    metric: str | None = Field(None, description="by which it is ranked and averaged; none: the protocol's")
    n: int | None = Field(None, ge=1, description="photos as published, for the plan")
    n_test: int | None = Field(None, ge=1, description="test photos as published, where the split is official")
    photo_px: int | None = Field(None, ge=1, description="side of its photos, where all have one, for the plan")
    get: str = Field("", description="how to get it, a sentence")

    @field_validator("name", "data")
    @classmethod
    def _is_a_folders_name(cls, value: str) -> str:
        if not NAME.fullmatch(value):
            raise ValueError("must be lower-case letters, digits, '.', '_' and '-'")
        return value

    @field_validator("metric")
    @classmethod
    def _metric_exists(cls, value: str | None) -> str | None:
        return value if value is None else _is_better_when_higher(value)


class FewShot(Config):
    """Label efficiency on the first seed's split: the fields of 'dermlab label-efficiency'."""

    per_class: tuple[int, ...] = Field((1, 3, 10, 30, 100, 300, 1000), description="labels per class")
    repeats: int = Field(50, ge=2, description="draws of each size")
    heads: tuple[Literal["knn", "linear"], ...] = Field(("knn", "linear"), min_length=1, description="knn, linear")
    k: tuple[int, ...] | None = Field(None, description="numbers of neighbours, chosen from on val")
    weights: Literal["softmax", "uniform"] = Field("uniform", description="how neighbours vote")
    C: tuple[float, ...] | None = Field(None, description="inverse penalties; none: label-efficiency's own")

    def curves(self, *, split: str, target: str | None, metric: str, seed: int, n_boot: int) -> Curves:
        """Return the settings of a label-efficiency run."""
        given = self.model_dump(exclude={"C"}) | ({"C": self.C} if self.C else {})
        metrics = tuple(dict.fromkeys([metric, "balanced_accuracy", "top1"]))
        return Curves(**given, split=split, target=target, percent=(), metrics=metrics, seed=seed, n_boot=n_boot)


class Protocol(Config):
    """What is done on each task, the same for all models."""

    seeds: tuple[int, ...] = Field((0,), min_length=1, description="a split each; the results are averaged over them")
    split: Split = Field(Split(), description="of tasks that name none")
    heads: tuple[Head, ...] = Field((HeadConfig(kind="linear"),), description="fitted on each encoder's features")
    penalty: Literal["own", "features-and-classes"] = Field(
        "own", description="linear: its own C, or λ = features × classes / 100 as PanDerm's protocol has it"
    )
    metric: str = Field("macro_f1", description="by which tasks are ranked and averaged")
    metrics: tuple[str, ...] = Field(
        ("top1", "balanced_accuracy", "macro_f1", "auroc"), min_length=1, description="shown beside it"
    )
    choose_by: Chooses = Field("macro_f1", description="on val: chooses what heads leave open")
    few_shot: FewShot | None = Field(None, description="curves over labels per class")
    n_boot: int = Field(1000, ge=100, description="bootstrap replicates of the intervals")

    @field_validator("seeds")
    @classmethod
    def _seeds_differ(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(value)) < len(value) or min(value) < 0:
            raise ValueError("must be different numbers from 0 up")
        return value

    @field_validator("heads")
    @classmethod
    def _heads_differ(cls, value: tuple[HeadConfig, ...]) -> tuple[HeadConfig, ...]:
        kinds = [head.kind for head in value]
        if len(set(kinds)) < len(kinds):
            raise ValueError("names a kind of head twice")
        return value

    @field_validator("metric")
    @classmethod
    def _metric_exists(cls, value: str) -> str:
        return _is_better_when_higher(value)


class Recipe(Config):
    """A network that is trained: a fine-tuning config, perhaps with a few fields changed."""

    name: str = Field(description="in tables and folders")
    file: str = Field(description="a file of configs/finetune, with or without .yaml, or a path")
    changes: dict[str, Any] = Field({}, description="fields of it that are other here")
    seeds: tuple[int, ...] = Field((), description="trained once with each; none: the file's own seed")

    @field_validator("name")
    @classmethod
    def _is_a_folders_name(cls, value: str) -> str:
        if not NAME.fullmatch(value):
            raise ValueError("must be lower-case letters, digits, '.', '_' and '-'")
        return value

    def settings(self, **given: Any) -> FinetuneSettings:
        """Return the recipe with its changes, and with ``given`` laid over both.

        Raises:
            InputError: there is no such file, or it and the changes do not go together.
        """
        path = find_config("finetune", self.file)
        return validate(FinetuneSettings, {**read_yaml(path), **self.changes, **given}, source=f"recipe {self.name}")


class Also(Config):
    """What a suite can be asked for beyond its main table, by ``--also NAME``."""

    title: str = Field(description="what question it answers")
    encoders: tuple[str, ...] = Field((), description="encoders added")
    recipes: tuple[Recipe, ...] = Field((), description="recipes added")


class Published(Config):
    """A published table: one metric under one protocol, models × tasks."""

    metric: str = Field(description="by our name: top1, auroc, …")
    protocol: str = Field(description="knn, linear, end-to-end, … as ours are called where they are the same")
    tasks: tuple[str, ...] = Field(min_length=1, description="columns of values: names of tasks, or 'average of 12'")
    values: dict[str, tuple[float | None, ...]] = Field(description="model → a value for each task, in the given unit")
    unit: Literal["share", "percent", "number"] = Field("share", description="percent is divided by 100")
    n: tuple[int | None, ...] = Field((), description="test cases of each task")
    conditions: str = Field("", description="what else must be known: seeds, epochs, which photos")
    source: str = Field(min_length=1, description="where it stands: work, table, page or file")
    sure: Sure = Field(description="read, or transcribed by eye; what is only recalled is left out")

    @model_validator(mode="after")
    def _is_a_table(self) -> Published:
        for model, row in self.values.items():
            if len(row) != len(self.tasks):
                raise ValueError(f"values.{model}: has {len(row)} values for {len(self.tasks)} tasks")
        if self.n and len(self.n) != len(self.tasks):
            raise ValueError(f"n: has {len(self.n)} numbers for {len(self.tasks)} tasks")
        return self

    def flat(self) -> Iterator[PublishedValue]:
        """Yield every value by itself."""
        for model, row in self.values.items():
            for place, (task, value) in enumerate(zip(self.tasks, row, strict=True)):
                if value is not None:
                    yield PublishedValue(
                        task=task,
                        model=model,
                        metric=self.metric,
                        # Rounded, so that 94.85 percent is .9485 and not a neighbour of it.
                        value=round(value / 100, 10) if self.unit == "percent" else value,
                        n=self.n[place] if self.n else None,
                        protocol=self.protocol,
                        conditions=self.conditions,
                        source=self.source,
                        sure=self.sure,
                    )


@dataclass(frozen=True)
class PublishedValue:
    """One published number: of which model, on which task, by which protocol, and how sure it is."""

    task: str
    model: str
    metric: str
    value: float
    n: int | None
    protocol: str
    conditions: str
    source: str
    sure: Sure


class Elsewhere(Config):
    """A family of the publication that needs task code of its own: named, so that it is not silently missing."""

    name: str = Field(description="the family")
    tasks: str = Field(description="what it holds")
    module: str = Field(description="module of dermlab that would do it; the page says whether it is there")
    published: str = Field("", description="what was published, in a sentence")


class Resolution(Config):
    """The resolution study: photos shrunk to each size, seen at that size or enlarged again, by each interpolation."""

    sizes: tuple[int, ...] = Field((28, 64, 128, 224), min_length=2, description="sides in pixels the photos keep")
    interpolations: tuple[Interpolation, ...] = Field(
        INTERPOLATIONS, min_length=1, description="ways to enlarge them to the encoder's own input"
    )
    native: bool = Field(True, description="also without enlarging, where the network takes the size")


class Suite(Config):
    """A published benchmark: tasks, protocol, models to start with, and what others published."""

    name: str = Field(description="as in dermlab suite NAME")
    title: str = Field(description="as it stands on its page")
    about: str = Field("", description="what it is, in a few sentences")
    citation: str = Field("", description="how to cite it")
    tasks: tuple[Task, ...] = Field(min_length=1, description="the tasks")
    protocol: Protocol = Field(Protocol(), description="what is done on each")
    encoders: tuple[str, ...] = Field((), description="frozen encoders to start with")
    recipes: tuple[Recipe, ...] = Field((), description="trained networks to start with")
    also: dict[str, Also] = Field({}, description="further questions, asked by --also")
    bakeoff: dict[str, Any] | None = Field(
        None, description="in place of heads and recipes: a bake-off on each task, its fields but data and out"
    )
    resolution: Resolution | None = Field(None, description="in place of heads and recipes: the resolution study")
    published: tuple[Published, ...] = Field((), description="what others report")
    elsewhere: tuple[Elsewhere, ...] = Field((), description="families that are no tasks of this suite")
    differences: tuple[str, ...] = Field((), description="where ours departs from what was published")

    @model_validator(mode="after")
    def _names_once(self) -> Suite:
        for what, names in (
            ("tasks", [task.name for task in self.tasks]),
            ("recipes", [recipe.name for recipe in self.recipes]),
            ("encoders", list(self.encoders)),
        ):
            twice = [name for name in names if names.count(name) > 1]
            if twice:
                raise ValueError(f"{what}: {twice[0]!r} stands there twice")
        if self.bakeoff is not None and self.resolution is not None:
            raise ValueError("bakeoff and resolution: a suite is one or the other")
        return self

    def metric_of(self, task: Task) -> str:
        """Return the metric by which a task is ranked."""
        return task.metric or self.protocol.metric

    def split_of(self, task: Task) -> Split:
        """Return how a task's photos are divided."""
        return task.split or self.protocol.split

    def known_recipes(self) -> dict[str, Recipe]:
        """Return every recipe of the suite by its name: its own, those of further questions, of its bake-off."""
        found = {item.name: item for item in self.recipes}
        for question in self.also.values():
            found |= {item.name: item for item in question.recipes}
        for item in (self.bakeoff or {}).get("candidates", ()):
            if isinstance(item.get("finetune"), str):
                name = slug(str(item.get("name", item["finetune"])))
                found[name] = Recipe(name=name, file=item["finetune"], changes=item.get("changes", {}))
        return found

    def values(self) -> list[PublishedValue]:
        """Return every published value."""
        return [value for table in self.published for value in table.flat()]


def slug(name: str) -> str:
    """Return a name as folders and ``--recipes`` write it: lower case, dashes for blanks."""
    return re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("-.")


def configs_folder() -> Path:
    """Return the folder of the configs that come with dermlab: the checkout's, or the wheel's copy of it."""
    checkout = Path(__file__).resolve().parents[4] / "configs"
    if (checkout / "suites").is_dir():
        return checkout
    return Path(str(importlib.resources.files("dermlab").joinpath("configs")))


def find_config(kind: str, name: str) -> Path:
    """Return the file of a config: a path that is there, or a name in the folder ``configs/<kind>``.

    Raises:
        InputError: there is neither.
    """
    path = Path(name).expanduser()
    if path.suffix in (".yaml", ".yml") and path.is_file():
        return path
    folder = configs_folder() / kind
    found = folder / (name if path.suffix in (".yaml", ".yml") else f"{name}.yaml")
    if found.is_file():
        return found
    known = sorted(file.stem for file in folder.glob("*.yaml"))
    near = difflib.get_close_matches(path.stem, known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise InputError(f"{name!r}: neither a YAML file nor one of {', '.join(known) or 'none'}{hint}")


def read_suite(name: str) -> Suite:
    """Read a suite by its name or its file.

    Raises:
        InputError: there is none, or a field is wrong.
    """
    path = find_config("suites", name)
    return validate(Suite, read_yaml(path), source=str(path.name))


def suite_names() -> list[str]:
    """Return the names of the suites that come with dermlab."""
    return sorted(file.stem for file in (configs_folder() / "suites").glob("*.yaml"))
