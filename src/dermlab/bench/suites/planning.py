"""What a suite would take on this machine: photos, disk and hours, from steps of each network that were measured."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from dermlab.bench.suites.config import Recipe, Suite, Task
from dermlab.bench.suites.data import Place
from dermlab.bench.suites.run import Request, select
from dermlab.core.errors import DermlabError, MissingWeightsError
from dermlab.core.progress import progress
from dermlab.data.dataset import CARD, Dataset
from dermlab.features import histogram

if TYPE_CHECKING:
    from dermlab.models.encoders import Encoder

Json = dict[str, Any]
CHANNELS, FLOAT32 = 3, 4
TYPICAL_PHOTO_BYTES = 60_000
"""Of a photo of unknown size, imported: a JPEG of a few hundred pixels a side."""

MEASURED = 4


def plan(suite: Suite, request: Request) -> Json:
    """Return what a suite would take, task by task, without embedding or training anything.

    Each encoder's pace is measured on noise, in the runtime that a run would use; fitting heads comes on top and is
    not measured. A task's number of photos is that of its data set where it is here, else the published one.

    Args:
        suite: the suite.
        request: data, models, device.

    Returns:
        ``{"suite", "device", "precision", "paces": [{"model", "kind", "images_per_second", "input_px", "dim",
        "epochs", "trainings", "weights_here", "error"}], "tasks": [{"task", "n", "here", "advice", "download_bytes",
        "pixel_bytes", "feature_bytes", "hours": {model: h}, "hours_in_all"}], "hours", "disk_bytes", "unknown": [tasks
        of unknown size]}``.
    """
    from dermlab.core.device import resolve

    selection = select(suite, request)
    runtime = resolve(request.device, request.precision)
    paces: list[Json] = []
    models: list[str | Recipe] = [*selection.encoders, *selection.recipes]
    suite = selection.suite
    if suite.bakeoff is not None:
        models = [*suite.bakeoff.get("encoders", ()), *suite.known_recipes().values()]
    with progress("measure", len(models), "models") as advance:
        for model in models:
            paces.append(_pace(model, request, runtime))
            advance(1)
    tasks = [
        _task(suite, task, place, paces)
        for task, place in sorted(
            [*selection.tasks, *selection.missing],
            key=lambda pair: [one.name for one in suite.tasks].index(pair[0].name),
        )
    ]
    return {
        "suite": suite.name,
        "device": runtime.device,
        "precision": runtime.precision,
        "paces": paces,
        "tasks": tasks,
        "hours": sum(task["hours_in_all"] for task in tasks),
        "disk_bytes": sum(task[f"{kind}_bytes"] for task in tasks for kind in ("download", "pixel", "feature")),
        "unknown": [task["task"] for task in tasks if task["n"] is None],
    }


def _pace(model: str | Recipe, request: Request, runtime: Any) -> Json:
    """Measure an encoder, or the two phases of a recipe's network; weights that are not here are drawn for it."""
    from dermlab.models.cost import measure

    name = model if isinstance(model, str) else model.name
    found: Json = {
        "model": name,
        "kind": "frozen" if isinstance(model, str) else "trained",
        "images_per_second": None,
        "input_px": None,
        "dim": 0,
        "epochs": 1.0,
        "trainings": 1,
        "weights_here": True,
        "error": "",
    }
    if model == histogram.NAME:
        return found | _histogram_pace()
    try:
        if isinstance(model, str):
            encoder, found["weights_here"] = _build(model)
            pace = measure(encoder, runtime, batch_size=MEASURED).images_per_second
        else:
            settings = model.settings()
            encoder, found["weights_here"] = _build(settings.encoder, settings.size_px)
            frozen, trained = settings.frozen_epochs, settings.finetune_epochs
            seconds = frozen / measure(encoder, runtime, batch_size=MEASURED).images_per_second if frozen else 0.0
            if trained:
                seconds += trained / measure(encoder, runtime, batch_size=MEASURED, train=True).images_per_second
            found |= {"epochs": float(frozen + trained), "trainings": len(model.seeds) or 1}
            pace = (frozen + trained) / seconds
        found |= {"images_per_second": pace, "input_px": encoder.preprocess.size_px, "dim": encoder.dim}
    except DermlabError as error:
        found["error"] = str(error)
    return found


def _build(name: str, size_px: int | None = None) -> tuple[Encoder, bool]:
    """Build an encoder and tell whether its weights are here; without them one of random weights is as fast."""
    from dermlab.models.encoders import create_encoder

    try:
        return create_encoder(name, size_px=size_px)[0], True
    except MissingWeightsError:
        return create_encoder(f"{name}+random", size_px=size_px)[0], False


def _histogram_pace() -> Json:
    """Measure the colour histogram, which is no network."""
    side = histogram.RECIPE.size_px
    noise = np.random.default_rng(0).integers(0, 256, (MEASURED, side, side, CHANNELS), dtype=np.uint8)
    start = time.perf_counter()
    histogram.color_histogram(noise)
    return {
        "images_per_second": MEASURED / (time.perf_counter() - start),
        "input_px": side,
        "dim": histogram.DIM,
    }


def _task(suite: Suite, task: Task, place: Place, paces: list[Json]) -> Json:
    """Return one task's photos, disk and hours."""
    n, here = task.n, place.path is not None
    if place.path is not None and not place.imports and (place.path / CARD).is_file():
        n = len(Dataset.open(place.path))
    photos = n or 0
    side = task.photo_px
    download = photos * (side * side * CHANNELS if side else TYPICAL_PHOTO_BYTES) if not here or place.imports else 0
    known = [pace for pace in paces if pace["images_per_second"]]
    sizes = {pace["input_px"] for pace in known}
    repeats = len(suite.protocol.seeds) if suite.split_of(task).val is not None else 1
    hours = {}
    for pace in known:
        passes = pace["epochs"] * pace["trainings"] * (repeats if pace["kind"] == "trained" else 1)
        hours[pace["model"]] = photos * passes / pace["images_per_second"] / 3600
    if suite.resolution is not None:
        ways = len(suite.resolution.sizes) * (len(suite.resolution.interpolations) + suite.resolution.native)
        hours = {model: value * ways for model, value in hours.items()}
    return {
        "task": task.name,
        "n": n,
        "here": here,
        "advice": place.missing,
        "download_bytes": download,
        "pixel_bytes": photos * sum(px * px * CHANNELS for px in sizes),
        "feature_bytes": photos * sum(pace["dim"] for pace in known if pace["kind"] == "frozen") * FLOAT32,
        "hours": hours,
        "hours_in_all": sum(hours.values()),
    }
