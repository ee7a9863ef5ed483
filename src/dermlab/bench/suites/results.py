"""What came of a suite: every value with its interval, beside the published ones, and averages over common tasks."""

from __future__ import annotations

import csv
import datetime
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from dermlab import __version__
from dermlab.bench.suites.config import PublishedValue, Suite
from dermlab.core.device import environment
from dermlab.core.files import atomic_path, write_json
from dermlab.evaluate.across import across

Json = dict[str, Any]
FORMAT = 1
COLUMNS = ("task", "model", "method", "kind", "metric", "value", "low", "high", "n", "n_groups", "unit", "seeds", "run")

HIGHER, LOWER, CANNOT_TELL = "ours higher", "ours lower", "cannot tell"
OTHER_CASES = "other test cases"
"""Verdicts on ours beside theirs; the last where their test part was another, or nobody says which."""


def assemble(suite: Suite, tasks: Sequence[Json], skipped: Sequence[Json]) -> Json:
    """Put the tasks' results together.

    Args:
        suite: the suite.
        tasks: what :func:`dermlab.bench.suites.work.run_task` returned for each.
        skipped: what was left out before it began.

    Returns:
        The content of ``results.json``: ``{"format", "suite", "title", "about", "citation", "made_at", "dermlab",
        "environment", "metric", "tasks": [...], "rows": [...], "skipped": [...], "tables": [average],
        "published": [...], "beside": [...], "elsewhere": [...], "differences": [...]}``.
    """
    rows = [row for task in tasks if task["status"] == "done" for row in task["rows"]]
    all_skipped = [*skipped]
    for task in tasks:
        all_skipped += task["skipped"]
        if task["status"] == "failed":
            all_skipped.append({"task": task["task"], "model": "", "reason": task["reason"], "why": "failed"})
    return {
        "format": FORMAT,
        "suite": suite.name,
        "title": suite.title,
        "about": suite.about,
        "citation": suite.citation,
        "made_at": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC",
        "dermlab": __version__,
        "environment": environment(),
        "metric": suite.protocol.metric,
        "n_tasks": len(suite.tasks),
        "tasks": [
            {key: value for key, value in task.items() if key not in ("rows", "skipped")}
            for task in tasks
            if task["status"] == "done"
        ],
        "rows": rows,
        "skipped": all_skipped,
        "tables": averages(rows, {task["task"]: task["metric"] for task in tasks}),
        "published": [vars(value) for value in suite.values()],
        "beside": beside(rows, suite.values()),
        "elsewhere": [_family(item) for item in suite.elsewhere],
        "differences": list(suite.differences),
    }


def write_results(record: Mapping[str, Any], out: str | Path) -> list[Path]:
    """Write ``results.json`` and ``results.csv`` (one row a task, model, method and metric) and return their paths."""
    out = Path(out)
    written = [write_json(out / "results.json", record), out / "results.csv"]
    with atomic_path(written[1]) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for row in record["rows"]:
            for name, value in row["metrics"].items():
                writer.writerow({key: row.get(key) for key in COLUMNS} | {"metric": name} | value)
    return written


def averages(rows: Iterable[Json], metrics: Mapping[str, str]) -> list[Json]:
    """Average each method's models over the tasks that every one of them has, and rank them over these.

    A mean over other tasks is another question: models that lack a task are left out of the mean by taking the task
    out for all, never by averaging over what each happens to have.

    Args:
        rows: rows of all tasks.
        metrics: the metric of each task.

    Returns:
        For each method ``{"method", "tasks": [those all models have], "left_out": [tasks that some lack], "models":
        [{"model", "n_parameters", "values": {task: {value, low, high}}, "mean"}] best first, "across", "diagram"}``.
    """
    found = []
    by_method: dict[str, dict[str, dict[str, Json]]] = {}
    parameters: dict[str, int | None] = {}
    for row in rows:
        value = row["metrics"].get(metrics[row["task"]])
        if value is None:
            continue
        by_method.setdefault(row["method"], {}).setdefault(row["model"], {})[row["task"]] = value
        parameters[row["model"]] = row["n_parameters"]
    for method, models in by_method.items():
        everywhere = [task for task in metrics if any(task in held for held in models.values())]
        common = [task for task in everywhere if all(task in held for held in models.values())]
        listed: list[Json] = [
            {
                "model": model,
                "n_parameters": parameters[model],
                "values": held,
                "mean": sum(held[task]["value"] for task in common) / len(common) if common else None,
            }
            for model, held in models.items()
        ]
        listed.sort(key=lambda item: (item["mean"] is None, -(item["mean"] or 0.0)))
        table: Json = {
            "method": method,
            "metrics": sorted({metrics[task] for task in everywhere}),
            "tasks": common,
            "left_out": [task for task in everywhere if task not in common],
            "models": listed,
            "across": None,
            "diagram": None,
        }
        if len(common) > 1 and len(models) > 1:
            values = pd.DataFrame(
                {item["model"]: [item["values"][task]["value"] for task in common] for item in listed}
            )
            values.index = pd.Index(common)
            table["across"] = across(values)
            if table["across"]["critical_difference"] is not None:
                table["diagram"] = f"across-{method}.svg"  # the report draws it
        found.append(table)
    return found


def beside(rows: Iterable[Json], published: Sequence[PublishedValue]) -> list[Json]:
    """Set each of our values beside what was published for the same task and metric by the same protocol.

    Returns:
        ``{"task", "metric", "method", "ours": model, "value", "low", "high", "n", "theirs": model, "published",
        "difference", "n_published", "verdict", "source", "sure", "conditions"}``. ``cannot tell`` where theirs lies
        within our interval, which tells how far ours would swing on other patients and nothing of theirs;
        ``other test cases`` where ours were drawn here, or their number is another, so that nothing can be said.
    """
    found = []
    same = {value.model for value in published}
    for row in rows:
        for theirs in published:
            ours = row["metrics"].get(theirs.metric)
            if theirs.task != row["task"] or theirs.protocol != row["method"] or ours is None:
                continue
            if row["model"] in same and theirs.model != row["model"]:
                continue  # a published model that was run here is held against its own value alone
            found.append(
                {
                    "task": row["task"],
                    "metric": theirs.metric,
                    "method": row["method"],
                    "ours": row["model"],
                    **ours,
                    "n": row["n"],
                    "theirs": theirs.model,
                    "published": theirs.value,
                    "n_published": theirs.n,
                    "difference": ours["value"] - theirs.value,
                    "verdict": verdict(ours, theirs.value, row["n"] if row["official"] else None, theirs.n),
                    "source": theirs.source,
                    "sure": theirs.sure,
                    "conditions": theirs.conditions,
                }
            )
    return found


def verdict(ours: Mapping[str, float | None], theirs: float, n: int | None, n_theirs: int | None) -> str:
    """Say how ours stands to theirs: higher, lower, cannot tell, or measured on other cases.

    Args:
        ours: value, low and high.
        theirs: the published value.
        n: test cases of the official test part; None where ours is not the official one.
        n_theirs: theirs; None where nobody says.
    """
    if n is None or n != n_theirs:
        return OTHER_CASES
    low, high = ours["low"], ours["high"]
    if low is None or high is None or low <= theirs <= high:
        return CANNOT_TELL
    return HIGHER if theirs < low else LOWER


def _family(item: Any) -> Json:
    """Return a family that is no task of the suite, with whether there is task code for it in this dermlab."""
    import importlib.util

    try:
        there = importlib.util.find_spec(item.module) is not None
    except ModuleNotFoundError:
        there = False
    status = f"task code is here ({item.module}), not run by this suite" if there else "no task code in this dermlab"
    return {"name": item.name, "tasks": item.tasks, "published": item.published, "status": status}
