"""Run a published benchmark: its tasks and protocol on any encoder or recipe, ours beside the published numbers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from dermlab.core import words
from dermlab.core.config import Config
from dermlab.core.device import Precision
from dermlab.core.errors import InputError


class SuiteConfig(Config):
    """Options of ``dermlab suite``."""

    positional: ClassVar[tuple[str, ...]] = ("suite",)

    suite: str = Field(description="a suite's name (medmnist, derm12, panderm, gen2a, …) or its YAML file")
    out: Path = Field(description="folder to write; the same command goes on with what is there")
    data: tuple[str, ...] = Field(
        (), description="NAME=DIR: where a task's or data set's photos are, as a data set folder or its source's layout"
    )
    data_root: Path | None = Field(None, description="folder that holds data sets by their names")
    fetch: bool = Field(False, description="download MedMNIST sets that are not here, by its package")
    tasks: tuple[str, ...] = Field((), description="only these tasks")
    encoders: tuple[str, ...] | None = Field(None, description="encoders in place of the suite's own; [] for none")
    recipes: tuple[str, ...] | None = Field(
        None, description="networks to train in place of the suite's: its names, or files of configs/finetune"
    )
    also: tuple[str, ...] = Field((), description="further questions of the suite, as model-size or fine-tuning")
    jobs: int = Field(1, ge=1, description="tasks at a time, each in a process")
    executor: Literal["processes", "ray"] = Field("processes", description="processes here, or a Ray cluster")
    device: str = Field("auto", description="auto, cpu, cuda:0 or mps")
    precision: Precision = Field("auto", description="auto, fp32, bf16 or fp16")
    batch_size: int | None = Field(None, ge=1, description="photos at a time in the embedding")
    dry_run: bool = Field(False, description="print the plan, the disk and the hours it would take here, and stop")

    @field_validator("data")
    @classmethod
    def _are_pairs(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for item in value:
            name, equals, place = item.partition("=")
            if not (name and equals and place):
                raise ValueError("must be NAME=DIR, as pad-ufes-20=clinic")
        names = [item.partition("=")[0] for item in value]
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise ValueError(f"names {twice[0]!r} twice")
        return value


@dataclass(frozen=True)
class SuiteResult:
    """What came of a suite: the content of ``results.json`` and the page."""

    record: dict[str, Any]
    page: Path
    out: Path

    def lines(self) -> list[str]:
        """Return a table for each method, what was left out, and the page's path."""
        return [*table(self.record), "", f"results: {self.out / 'results.json'}", f"page: {self.page}"]

    def to_json(self) -> dict[str, Any]:
        """Return the content of ``results.json``."""
        return self.record


@dataclass(frozen=True)
class SuitePlan:
    """What a suite would take here."""

    plan: dict[str, Any]
    table: tuple[str, ...]

    def lines(self) -> list[str]:
        """Return the plan."""
        return list(self.table)

    def to_json(self) -> dict[str, Any]:
        """Return the plan's figures."""
        return self.plan


def run(config: SuiteConfig) -> SuiteResult | SuitePlan:
    """Run the suite and draw its page, or only say what it would take."""
    from dermlab.bench.suites.config import read_suite
    from dermlab.bench.suites.run import Request, run_suite

    suite = read_suite(config.suite)
    request = Request(
        data={name: Path(place) for name, _, place in (item.partition("=") for item in config.data)},
        data_root=config.data_root,
        fetch=config.fetch,
        tasks=config.tasks,
        encoders=config.encoders,
        recipes=None if config.recipes is None else tuple(_recipe(suite, name) for name in config.recipes),
        also=config.also,
        device=config.device,
        precision=config.precision,
        batch_size=config.batch_size,
        jobs=config.jobs,
        executor=config.executor,
    )
    if config.dry_run:
        from dermlab.bench.suites.planning import plan

        found = plan(suite, request)
        return SuitePlan(found, tuple(plan_lines(found)))
    from dermlab.report.suite import write_suite

    record = run_suite(suite, request, config.out)
    return SuiteResult(record, write_suite(config.out), config.out)


def _recipe(suite: Any, name: str) -> Any:
    """Return a recipe of the suite by its name, else one made of a file of ``configs/finetune`` or a path."""
    from dermlab.bench.suites.config import Recipe, find_config, slug

    known = suite.known_recipes()
    if name in known:
        return known[name]
    try:
        path = find_config("finetune", name)
    except InputError as error:
        raise InputError(f"recipes: {error}; of the suite: {', '.join(known) or 'none'}") from None
    return Recipe(name=slug(path.stem), file=str(path))


def table(record: dict[str, Any]) -> list[str]:
    """Return the results as aligned lines for a terminal."""
    lines: list[str] = []
    titles = {task["task"]: task["metric"] for task in record["tasks"]}
    for found in record["tables"]:
        tasks = [*found["tasks"], *found["left_out"]]
        head = [found["method"], *tasks, f"mean of {len(found['tasks'])}"]
        rows = [head]
        for item in found["models"]:
            cells = []
            for task in tasks:
                value = item["values"].get(task)
                kind = words.metric_words(titles[task])[2]
                cells.append(
                    "–" if value is None else f"{words.score(value['value'], kind)} ({words.span(value, kind)})"
                )
            rows.append([item["model"], *cells, "–" if item["mean"] is None else f"{100 * item['mean']:.1f}"])
        lines += _aligned(rows, 1)
        metrics = " or ".join(words.metric_words(name)[0] for name in found["metrics"])
        lines.append(f"{metrics} on test, 95% intervals; the mean is over the tasks that all models have")
        if found["left_out"]:
            lines.append(f"not in the mean, since some model lacks them: {', '.join(found['left_out'])}")
        lines.append("")
    compared = [item for item in record["beside"] if item["verdict"] != "other test cases"]
    if compared:
        told = {word: sum(item["verdict"] == word for item in compared) for word in ("ours higher", "ours lower")}
        unsure = len(compared) - sum(told.values())
        lines.append(
            f"beside published values of the same test cases: {told['ours higher']} ours higher, "
            f"{told['ours lower']} ours lower, {unsure} cannot tell"
        )
    lines += [
        f"left out: {' · '.join(part for part in (item['task'], item['model']) if part)}: {item['reason']}"
        for item in record["skipped"]
    ]
    return lines


def plan_lines(found: dict[str, Any]) -> list[str]:
    """Return a plan as aligned lines for a terminal: the pace of each model, then each task, and what is not here."""
    from dermlab.commands.cache import bytes_text

    told = [f"suite {found['suite']} on {found['device']}, {found['precision']}", ""]
    rows = [["model", "", "input px", "photos/s", "passes"]]
    for pace in found["paces"]:
        if pace["error"]:
            rows.append([pace["model"], pace["kind"], "–", "–", f"not measured: {pace['error']}"])
        else:
            figures = [words.rate(pace["images_per_second"]), f"{pace['epochs'] * pace['trainings']:g}"]
            kind = pace["kind"] if pace["weights_here"] else f"{pace['kind']}, weights not here"
            rows.append([pace["model"], kind, f"{pace['input_px']}", *figures])
    told += [*_aligned(rows, 2), ""]
    rows = [["task", "photos", "source", "pixels", "features", "time"]]
    for task in found["tasks"]:
        disk = (bytes_text(task[f"{kind}_bytes"]) for kind in ("download", "pixel", "feature"))
        hours = words.duration(task["hours_in_all"] * 3600) if task["n"] else "unknown"
        rows.append([task["task"], words.count(task["n"]) + ("" if task["here"] else " *"), *disk, hours])
    told += [*_aligned(rows, 1), ""]
    told.append(
        f"in all: {words.duration(found['hours'] * 3600)} of embedding and training here, measured on noise; fitting "
        f"heads comes on top. Disk: {bytes_text(found['disk_bytes'])}, uncompressed, at most"
    )
    if found["unknown"]:
        told.append(f"photos unknown, not counted: {', '.join(found['unknown'])}")
    missing = [task for task in found["tasks"] if not task["here"]]
    if missing:
        told.append("* not here:")
        told += [f"  {task['task']}: {task['advice']}" for task in missing]
    return told


def _aligned(rows: list[list[str]], first_right: int) -> list[str]:
    """Return rows of cells as lines, columns from ``first_right`` on set to the right."""
    plain = [row for row in rows if not row[-1].startswith("not measured")]
    widths = [max(len(row[place]) for row in plain) for place in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if place < first_right or cell.startswith("not measured") else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
