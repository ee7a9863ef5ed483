"""Where a suite's tasks find their photos, and how these are divided; what is not there is said, with what to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from dermlab.bench.suites.config import Split, Suite, Task
from dermlab.core.errors import InputError
from dermlab.core.fingerprint import hash_json
from dermlab.core.progress import note
from dermlab.data.dataset import CARD, MANIFEST, Dataset
from dermlab.data.ingest import OFFICIAL
from dermlab.data.sources import SOURCES
from dermlab.data.splits import split_by_fraction


@dataclass(frozen=True)
class Place:
    """Where a task's photos are.

    Attributes:
        path: a data set folder or, with ``imports``, what a source reads; None where there is neither.
        imports: whether it has to be imported first.
        missing: why there is none, and how to get it.
    """

    path: Path | None
    imports: bool = False
    missing: str = ""


def find_data(task: Task, given: Mapping[str, Path], root: Path | None, *, fetch: bool = False) -> Place:
    """Say where a task's photos are: what was given for the task or its data set, else below the root.

    Args:
        task: the task.
        given: folder or source by name of task or data set.
        root: folder that holds data sets by their names, imported or in their sources' layouts.
        fetch: whether a MedMNIST set that is nowhere may be downloaded by its package.
    """
    named = given.get(task.name, given.get(task.data))
    if named is not None:
        named = named.expanduser()
        if not named.exists():
            raise InputError(f"--data {task.name}={named}: no such folder or file")
        return _of(task, named)
    if root is not None:
        root = root.expanduser()
        for name in (task.data, f"{task.data}.npz"):
            if (root / name).exists():
                return _of(task, root / name)
    if fetch and task.source == "medmnist":
        return Place(Path(str(task.options.get("flag", task.data.partition("_")[0]))), imports=True)
    return Place(None, missing=how_to_get(task))


def how_to_get(task: Task) -> str:
    """Return the sentence that says how to get a task's photos."""
    told = task.get.rstrip(".")
    told = f"{told}; then " if told else ""
    if task.source is None:
        return f"{told}--data {task.data}=DIR"
    if task.source not in SOURCES:
        return f"{told}import them with 'dermlab data import csv' and pass --data {task.data}=DIR"
    options = "".join(f" --{key} {value}" for key, value in task.options.items() if key != "flag")
    return (
        f"{told}'dermlab data import {task.source} PATH{options} --out {task.data}' and --data {task.data}=DIR, or "
        f"--data {task.data}=PATH"
    )


def open_data(task: Task, place: Place, imported: Path) -> Dataset:
    """Open a task's data set; a source's own layout is imported into ``imported`` first, once.

    Raises:
        InputError: it is no data set, cannot be imported, or lacks the target.
    """
    assert place.path is not None
    folder = place.path
    if place.imports:
        from dermlab.data.ingest import import_source
        from dermlab.data.sources import read_source

        folder = imported / task.data
        if not (folder / MANIFEST).is_file():
            assert task.source is not None
            note(f"{task.name}: imports {place.path}")
            options = {key: value for key, value in task.options.items() if key != "flag"}
            import_source(read_source(task.source, place.path, **options), folder)
    dataset = Dataset.open(folder)
    dataset.card.target(task.target)
    return dataset


def make_split(dataset: Dataset, task: Task, suite: Suite) -> tuple[str, pd.DataFrame, list[str]]:
    """Write a task's split into the data set folder and return its name, its frame and what to know of it.

    Each of the protocol's seeds is a repeat. Drawn splits keep groups whole and are stratified by the target. Of an
    official split the test part stays as it is; where it has no val part, or the suite wants its own, val is drawn
    from the training part, once for each seed.

    Raises:
        InputError: the photos are too few.
    """
    rule, target = suite.split_of(task), dataset.card.target(task.target).column
    seeds = suite.protocol.seeds
    told: list[str] = []
    if rule.rule == OFFICIAL:
        if OFFICIAL in dataset.split_names():
            frame, told = _official(dataset, rule, target, seeds)
            return _written(dataset, task, suite, frame), frame, told
        told.append(
            f"{dataset.card.name} here has no official split: test is {rule.test:.0%} drawn by "
            f"{dataset.group_column()}, not the published one"
        )
    val = rule.val if rule.val is not None else 0.15
    frame = _stacked(
        [split_by_fraction(dataset, (1 - rule.test - val, val, rule.test), target=target, seed=seed) for seed in seeds]
    )
    return _written(dataset, task, suite, frame), frame, told


def _official(dataset: Dataset, rule: Split, target: str, seeds: tuple[int, ...]) -> tuple[pd.DataFrame, list[str]]:
    """Return the official split with a val part, and what to know of it."""
    given = dataset.read_split(OFFICIAL)
    part = given["split"].to_numpy(str)[: len(dataset)]
    told = []
    own_val = bool((part == "val").any())
    if rule.val is None and own_val:
        frame = given[(given["repeat"] == 0) & (given["fold"] == 0)].reset_index(drop=True)
    else:
        share = rule.val if rule.val is not None else 0.15
        frames = []
        for seed in seeds:
            drawn = split_by_fraction(dataset, (1 - share, share, 0.0), target=target, seed=seed)
            drawn["split"] = np.where(part == "test", "test", drawn["split"].to_numpy(str))
            frames.append(drawn)
        frame = _stacked(frames)
        if rule.val is None:
            told.append(f"the official split has no val part: {share:.0%} of training, drawn for each seed, chooses")
    groups = dataset.groups()
    shared = np.intersect1d(groups[part == "test"], groups[part != "test"])
    if len(shared):
        told.append(
            f"{len(shared)} of {dataset.group_column()} lie in the official test part and outside it: its figures "
            "are of photos that training has met in part"
        )
    return frame, told


def _stacked(frames: list[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat([frame.assign(repeat=np.int32(place)) for place, frame in enumerate(frames)], ignore_index=True)


def _written(dataset: Dataset, task: Task, suite: Suite, frame: pd.DataFrame) -> str:
    """Write the split where the data set does not hold it yet; its name tells the rule and the seeds."""
    rule = {"split": suite.split_of(task).model_dump(mode="json"), "seeds": suite.protocol.seeds}
    name = f"{suite.name}.{task.name}-{hash_json(rule)[:8]}"
    if name not in dataset.split_names() or not _same(dataset, name, frame):
        dataset.write_split(name, frame)
    return name


def _same(dataset: Dataset, name: str, frame: pd.DataFrame) -> bool:
    try:
        known = dataset.read_split(name)
    except InputError:
        return False  # of an earlier import with other photos
    columns = ["image_id", "split", "fold", "repeat"]
    return known[columns].astype(str).equals(frame[columns].astype(str).reset_index(drop=True))


def _of(task: Task, path: Path) -> Place:
    if path.is_dir() and (path / CARD).is_file() and (path / MANIFEST).is_file():
        return Place(path)
    if task.source in SOURCES:
        return Place(path, imports=True)
    said = f"no source {task.source!r} reads it here" if task.source else "and the suite names no source for it"
    return Place(None, missing=f"{path} is no data set folder, {said}; {how_to_get(task)}")
