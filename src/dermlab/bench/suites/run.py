"""A suite from file to results: tasks found, done in processes or on a Ray cluster, and put side by side."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from dermlab.bench.suites.config import Recipe, Suite, Task, slug
from dermlab.bench.suites.data import Place, find_data, open_data
from dermlab.bench.suites.results import assemble, write_results
from dermlab.bench.suites.work import Job, run_task
from dermlab.core.config import write_yaml
from dermlab.core.device import Precision
from dermlab.core.errors import DermlabError, InputError, MissingExtraError
from dermlab.core.files import write_text
from dermlab.core.progress import note, progress
from dermlab.core.telemetry import switch_off
from dermlab.models.known import require_known

Json = dict[str, Any]
Executor = Literal["processes", "ray"]


@dataclass(frozen=True)
class Request:
    """What is asked of a suite beyond its file.

    Attributes:
        data: folder or source by name of task or data set.
        data_root: folder that holds data sets by their names.
        fetch: whether MedMNIST sets may be downloaded.
        tasks: only these; none: all.
        encoders: in place of the suite's; None: the suite's.
        recipes: in place of the suite's; None: the suite's.
        also: further questions of the suite.
        device: auto, cpu, cuda:0 or mps.
        precision: of embedding and training.
        batch_size: photos at a time in the embedding.
        jobs: tasks at a time.
        executor: processes here, or ray.
    """

    data: Mapping[str, Path] = field(default_factory=dict)
    data_root: Path | None = None
    fetch: bool = False
    tasks: tuple[str, ...] = ()
    encoders: tuple[str, ...] | None = None
    recipes: tuple[Recipe, ...] | None = None
    also: tuple[str, ...] = ()
    device: str = "auto"
    precision: Precision = "auto"
    batch_size: int | None = None
    jobs: int = 1
    executor: Executor = "processes"


@dataclass(frozen=True)
class Selection:
    """What of a suite is done: tasks with their photos, encoders and recipes; and tasks without photos."""

    suite: Suite
    tasks: tuple[tuple[Task, Place], ...]
    missing: tuple[tuple[Task, Place], ...]
    encoders: tuple[str, ...]
    recipes: tuple[Recipe, ...]


def select(suite: Suite, request: Request) -> Selection:
    """Lay a request over a suite and look for the photos.

    Raises:
        InputError: a name of a task, data set, question or encoder is none, or a path is not there.
    """
    names = [task.name for task in suite.tasks]
    _refuse_unknown("tasks", request.tasks, names)
    _refuse_unknown("data", list(request.data), [*names, *(task.data for task in suite.tasks)])
    _refuse_unknown("also", request.also, list(suite.also))
    encoders = list(suite.encoders if request.encoders is None else request.encoders)
    recipes = list(suite.recipes if request.recipes is None else request.recipes)
    for name in request.also:
        encoders += [item for item in suite.also[name].encoders if item not in encoders]
        recipes += [item for item in suite.also[name].recipes if item not in recipes]
    require_known({f"encoders.{place}": name for place, name in enumerate(encoders)})
    if suite.bakeoff is not None:
        suite = suite.model_copy(update={"bakeoff": _lay_over(suite.bakeoff, request)})
    elif not encoders and not recipes:
        raise InputError(f"the suite {suite.name} names no model; --encoders A,B does")
    chosen = [task for task in suite.tasks if not request.tasks or task.name in request.tasks]
    places = [(task, find_data(task, request.data, request.data_root, fetch=request.fetch)) for task in chosen]
    return Selection(
        suite,
        tuple((task, place) for task, place in places if place.path is not None),
        tuple((task, place) for task, place in places if place.path is None),
        tuple(encoders),
        tuple(recipes),
    )


def _lay_over(bakeoff: Mapping[str, Any], request: Request) -> Json:
    """Return a bake-off's fields with the encoders and recipes that were asked for in place of its own.

    A decomposition stays only as long as every candidate that it names does.
    """
    fields = dict(bakeoff)
    if request.encoders is not None:
        fields["encoders"] = list(request.encoders)
    if request.recipes is not None:
        own = {slug(item["name"]): item for item in fields.get("candidates", ()) if "name" in item}
        fields["candidates"] = [
            own.get(item.name, {"name": item.name, "finetune": item.file}) for item in request.recipes
        ]
    plan = fields.get("decomposition")
    if plan is not None:
        there = {item.get("name") for item in fields.get("candidates", ())}
        named = {plan["baseline"], *(item["candidate"] for item in [*plan["steps"], *plan.get("combinations", ())])}
        if not named <= there:
            fields["decomposition"] = None
    return fields


def _refuse_unknown(what: str, given: Sequence[str], known: Sequence[str]) -> None:
    import difflib

    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise InputError(f"{what}: the suite has no {name!r}{hint}; it has {', '.join(dict.fromkeys(known))}")


def run_suite(suite: Suite, request: Request, out: str | Path) -> Json:
    """Run a suite and write ``results.json``, ``results.csv`` and ``suite.yaml`` into ``out``.

    What an earlier run with the same ``out`` has finished is read, not repeated; tasks and models that are not here are
    named among the skipped, with what to do.

    Args:
        suite: the suite.
        request: data, models, processes.
        out: folder to write.

    Returns:
        The content of ``results.json`` (:func:`dermlab.bench.suites.results.assemble`).

    Raises:
        InputError: nothing can be run at all, or a name is wrong.
    """
    out = Path(out)
    selection = select(suite, request)
    if not selection.tasks:
        sentences = "; ".join(f"{task.name}: {place.missing}" for task, place in selection.missing[:3])
        more = f"; and {len(selection.missing) - 3} more ('--dry_run' lists them)" if len(selection.missing) > 3 else ""
        raise InputError(f"suite {suite.name}: no task's photos are here. {sentences}{more}")
    failed: list[Json] = []
    jobs = list(_jobs(selection, request, out, failed))
    if not jobs:
        told = "; ".join(f"{item['task']}: {item['reason']}" for item in failed)
        raise InputError(f"suite {suite.name}: no task could be run. {told}")
    write_text(out / "suite.yaml", write_yaml(suite))
    done = {found["task"]: found for found in _results(jobs, request)}
    tasks = [done[task.name] for task, _ in selection.tasks if task.name in done]
    skipped = [
        {"task": task.name, "model": "", "reason": place.missing, "why": "not here"}
        for task, place in selection.missing
    ]
    record = assemble(suite, tasks, [*skipped, *failed])
    write_results(record, out)
    return record


def _jobs(selection: Selection, request: Request, out: Path, failed: list[Json]) -> Iterator[Job]:
    """Open every task's data set, imported first where need be: here, since tasks may share one."""
    n_tasks = len(selection.tasks)
    workers = max(1, min(request.jobs, n_tasks))
    threads = max(1, _cores() // workers) if workers > 1 else None
    for task, place in selection.tasks:
        try:
            dataset = open_data(task, place, out / "data")
        except DermlabError as error:
            failed.append({"task": task.name, "model": "", "reason": str(error), "why": "failed"})
            note(f"{task.name} left out: {error}")
            continue
        yield Job(
            suite=selection.suite,
            task=task,
            folder=dataset.folder,
            out=out,
            encoders=selection.encoders,
            recipes=selection.recipes,
            device=request.device,
            precision=request.precision,
            batch_size=request.batch_size,
            threads=threads,
        )


def _cores() -> int:
    from dermlab.data.decode import available_cores

    return available_cores()


def _results(jobs: Sequence[Job], request: Request) -> Iterator[Json]:
    """Yield each task's result as it is done."""
    with progress("suite", len(jobs), "tasks") as advance:
        for found in _RUNNERS[request.executor](jobs, request.jobs):
            advance(1)
            yield found


def _in_processes(jobs: Sequence[Job], n_at_once: int) -> Iterator[Json]:
    if n_at_once == 1 or len(jobs) < 2:
        yield from map(run_task, jobs)
        return
    import multiprocessing

    # Forked children would inherit torch's threads half alive: each begins afresh.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(n_at_once, len(jobs)), mp_context=context) as pool:
        for future in as_completed([pool.submit(run_task, job) for job in jobs]):
            yield future.result()


def _on_ray(jobs: Sequence[Job], n_at_once: int) -> Iterator[Json]:
    switch_off()  # before ray is imported: it sends usage statistics unless told not to
    try:
        import ray
    except ImportError:
        raise MissingExtraError("--executor ray", "ray", "ray") from None
    address = os.environ.get("RAY_ADDRESS")
    ray.init(address=address, include_dashboard=False, log_to_driver=False, ignore_reinit_error=True)
    work = ray.remote(num_cpus=max(1, _cores() // n_at_once) if address is None else 1)(run_task)
    waiting = [work.remote(job) for job in jobs]
    try:
        while waiting:
            (first,), waiting = ray.wait(waiting, num_returns=1)
            yield ray.get(first)
    finally:
        ray.shutdown()


_RUNNERS = {"processes": _in_processes, "ray": _on_ray}
