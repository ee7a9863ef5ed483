"""What the fine-tuned candidates of a bake-off will cost, from a few real steps of each, before any is trained."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dermlab.bench.candidates import Plan, Setting, plan, recipe_settings
from dermlab.bench.config import BakeoffConfig
from dermlab.bench.screening import screened
from dermlab.core.errors import DermlabError, InputError, first_line
from dermlab.core.progress import note

if TYPE_CHECKING:
    import torch

    from dermlab.adapt.finetune.config import FinetuneSettings
    from dermlab.adapt.finetune.network import FinetuneNetwork
    from dermlab.data.pixel_cache import Pixels

N_STEPS = 3
MOMENTS = {"sgd": 1, "rmsprop": 1}
"""fp32 values beside each trained weight that an optimiser keeps; AdamW and most others keep two."""
VIEWS = {"none": 1, "flips": 4, "dihedral": 8}


@dataclass(frozen=True)
class PhasePlan:
    """One phase of one training.

    Attributes:
        name: frozen or finetune.
        steps: optimiser steps of all its epochs.
        seconds_per_step: the median of the measured ones, loading of photos included.
        memory_gb: at the peak: weights, gradients, moments, averaged weights and what is kept for the backward pass;
            measured on CUDA, worked out from the tensors elsewhere.
    """

    name: str
    steps: int
    seconds_per_step: float
    memory_gb: float


@dataclass(frozen=True)
class TrainingPlan:
    """All trainings of one candidate at one stage.

    Attributes:
        candidate: its name.
        stage: screening or full.
        n_trainings: seeds × folds × repeats.
        phases: of one training.
        judge_seconds: of one training: val after each epoch, val and test at the end.
        hours: of all trainings; with early stopping they may be fewer.
        price: of all, where the config has price_per_hour.
        error: why nothing could be measured.
    """

    candidate: str
    stage: str
    n_trainings: int
    phases: tuple[PhasePlan, ...] = ()
    judge_seconds: float = 0.0
    hours: float | None = None
    price: float | None = None
    error: str = ""


def plan_costs(config: BakeoffConfig) -> list[TrainingPlan]:
    """Measure a few steps of every fine-tuned candidate, frozen and whole, and return what all of them will take.

    Nothing is trained, judged or written but decoded photos in the pixel cache (and the split, where there is none).
    The questionnaire's branch is measured on blanks.

    Raises:
        InputError: there is no fine-tuned candidate, or data, split or names will not do.
    """
    from dermlab.bench.bakeoff import open_setting

    setting = open_setting(config, Path())
    tuned = [item for item in plan(setting.config, setting.dataset) if item.recipe is not None]
    if not tuned:
        raise InputError("dry_run: measures fine-tuned candidates (finetune:), and there is none")
    found = []
    for item in tuned:
        note(f"{item.name}: measuring a few steps")
        assert item.recipe is not None
        stages = [("full", item.recipe, item.trainings(config.seed))]
        if config.screening is not None:
            stages.insert(0, ("screening", screened(item.recipe, config.screening), {config.seed: ""}))
        measured: dict[str, tuple[float, float]] = {}
        for stage, recipe, trainings in stages:
            try:
                found.append(_plan_one(setting, item, stage, recipe, len(trainings), measured))
            except DermlabError as error:
                found.append(TrainingPlan(item.name, stage, len(trainings), error=first_line(error)))
    return found


def _plan_one(
    setting: Setting,
    item: Plan,
    stage: str,
    recipe: FinetuneSettings,
    n_seeds: int,
    measured: dict[str, tuple[float, float]],
) -> TrainingPlan:
    """Return the plan of one candidate at one stage; steps that were measured for another stage are not again."""
    from dermlab.adapt.finetune.fit import phases_of
    from dermlab.models.cost import estimate

    settings = recipe_settings(setting, recipe, setting.config.seed)
    counts = {name: _mean_rows(setting, name) for name in ("train", "val", "test")}
    n_train = min(counts["train"], settings.max_train_samples or counts["train"])
    n_val = min(counts["val"], settings.max_val_samples or counts["val"])
    phases = phases_of(settings)
    wanted = [phase.name for phase in phases]
    if any(name not in measured for name in (*wanted, "judge")):
        measured |= _measure(setting, settings, wanted)
    steps = math.ceil(max(1, n_train // settings.batch_size) / settings.accumulate)
    planned = tuple(PhasePlan(phase.name, steps * phase.n_epochs, *measured[phase.name]) for phase in phases)
    n_epochs = sum(phase.n_epochs for phase in phases)
    n_told = counts["val"] + (counts["test"] if stage == "full" else 0)
    judge = (n_epochs * n_val + VIEWS[settings.tta] * n_told) * measured["judge"][0]
    seconds = sum(phase.steps * phase.seconds_per_step for phase in planned) + judge
    n_trainings = n_seeds * len(setting.split[["repeat", "fold"]].drop_duplicates())
    # Priced as embedding is: so many trainings, each at its pace.
    cost = estimate(1, 1 / seconds, epochs=n_trainings, price_per_hour=setting.config.price_per_hour)
    return TrainingPlan(item.name, stage, n_trainings, planned, judge, cost.hours, cost.price)


def _mean_rows(setting: Setting, part: str) -> int:
    """Return the photos of a part, the mean over folds."""
    split = setting.split
    n_folds = len(split[["repeat", "fold"]].drop_duplicates())
    return round(int((split["split"] == part).sum()) / n_folds)


def _measure(setting: Setting, settings: FinetuneSettings, phases: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Return seconds a step and memory in GB of each phase, and under ``judge`` seconds a photo in eval mode."""
    from dermlab.adapt.finetune.network import build_network, freeze, train_mode
    from dermlab.core.device import resolve
    from dermlab.data.pixel_cache import open_pixels
    from dermlab.models.cost import measure_steps
    from dermlab.training.loop import quiet_randomness

    runtime = resolve(settings.device, settings.precision)
    n_classes = len(setting.dataset.card.target(setting.target).classes)
    n_questionnaire = setting.dataset.questionnaire().shape[1] if settings.head == "fusion" else 0
    found: dict[str, tuple[float, float]] = {}
    with quiet_randomness():
        network = build_network(settings, n_classes, n_questionnaire).to(runtime.device)
        n_wanted = min(len(setting.dataset), (N_STEPS + 1) * settings.batch_size)
        pixels = open_pixels(setting.dataset.paths[:n_wanted], network.backbone.preprocess.recipe())
        pixels.fill()
        for name in phases:
            freeze(network, settings.train_from, whole_backbone=name == "frozen")
            train_mode(network)
            _reset_peak(runtime.device)
            step = _stepper(network, settings, pixels, n_classes, n_questionnaire, runtime, name)
            seconds, kept = measure_steps(step, network.parameters(), runtime.device, steps=N_STEPS)
            found[name] = seconds, _memory(network, settings, kept, runtime.device) / 1e9
        network.eval()
        judged = iter(_batches(pixels, settings, network, runtime.device, augment=False))

        def judge() -> None:
            import torch

            images, _ = next(judged)
            with torch.no_grad(), runtime.autocast():
                network(images, *_blanks(len(images), n_questionnaire, runtime.device))

        seconds, _ = measure_steps(judge, network.parameters(), runtime.device, steps=N_STEPS)
        found["judge"] = seconds / settings.batch_size, 0.0
    return found


def _stepper(
    network: FinetuneNetwork,
    settings: FinetuneSettings,
    pixels: Pixels,
    n_classes: int,
    n_questionnaire: int,
    runtime: Any,
    phase: str,
) -> Any:
    """Return a function that takes one real step: photos loaded, forward, backward, weights moved."""
    from torch.nn.functional import cross_entropy

    from dermlab.training.loop import Stepper, make_fabric
    from dermlab.training.optimiser import AveragedWeights, make_optimiser, parameter_groups

    rate = settings.frozen_learning_rate if phase == "frozen" else settings.learning_rate
    groups = parameter_groups(network, rate, weight_decay=settings.weight_decay)
    stepper = Stepper(
        fabric=make_fabric(runtime),
        network=network,
        optimiser=make_optimiser(settings.optimiser, groups, momentum=settings.momentum),
        rate=lambda step: 1e-6,  # the weights are to stay sound; how far they move takes no time
        seed=settings.seed,
        clip_norm=settings.clip_norm,
        accumulate=settings.accumulate,
        average=AveragedWeights(network, settings.ema_decay) if settings.ema_decay else None,
    )
    loaded = iter(_batches(pixels, settings, network, runtime.device, augment=True))

    def part(images: torch.Tensor) -> Any:
        import torch

        labels = torch.arange(len(images), device=images.device) % n_classes
        blanks = _blanks(len(images), n_questionnaire, runtime.device)
        return lambda forward: (cross_entropy(forward(images, *blanks).float(), labels), len(images))

    return lambda: stepper.take([part(next(loaded)[0]) for _ in range(settings.accumulate)])


def _batches(
    pixels: Pixels, settings: FinetuneSettings, network: FinetuneNetwork, device: str, *, augment: bool
) -> Iterator[tuple[torch.Tensor, np.ndarray]]:
    """Yield batches of readable photos without end, augmented as the recipe says."""
    from dermlab.data.augment import preset
    from dermlab.data.loader import batches

    preprocess = network.backbone.preprocess
    views = None
    if augment and (settings.augmentation != "none" or settings.augmentation_changes):
        views = preset(settings.augmentation, preprocess.size_px, **settings.augmentation_changes)
    readable = np.setdiff1d(np.arange(len(pixels)), list(pixels.failures))
    if not len(readable):
        raise InputError("none of the first photos can be read: nothing can be measured")
    rows = np.resize(readable, 64 * settings.batch_size)
    epoch = 0
    while True:
        epoch += 1
        yield from batches(
            pixels,
            rows,
            settings.batch_size,
            augment=views,
            seed=settings.seed,
            epoch=epoch,
            mean=preprocess.mean,
            std=preprocess.std,
            device=device,
        )


def _blanks(n: int, n_questionnaire: int, device: str) -> tuple[torch.Tensor, ...]:
    import torch

    if not n_questionnaire:
        return ()
    return torch.zeros(n, n_questionnaire, device=device), torch.zeros(n, dtype=torch.bool, device=device)


def _reset_peak(device: str) -> None:
    import torch

    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)


def _memory(network: FinetuneNetwork, settings: FinetuneSettings, kept: int, device: str) -> float:
    """Return bytes at the peak of a step."""
    import torch

    if device.startswith("cuda"):
        return float(torch.cuda.max_memory_allocated(device))
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in network.parameters()]
    n, n_trained = sum(size for size, _ in sizes), sum(size for size, trained in sizes if trained)
    average = n if settings.ema_decay else 0
    return 4.0 * (n + average + n_trained * (1 + MOMENTS.get(settings.optimiser, 2))) + kept


def lines(plans: Sequence[TrainingPlan]) -> list[str]:
    """Return the plan as aligned lines for a terminal, with the sum."""
    head = ["candidate", "stage", "trainings", "phase", "steps", "s/step", "memory GB", "hours in all", "price"]
    rows = [head]
    for item in plans:
        whole = ["–" if item.hours is None else f"{item.hours:.2f}", "–" if item.price is None else f"{item.price:.2f}"]
        if item.error:
            rows.append([item.candidate, item.stage, str(item.n_trainings), f"not measured: {item.error}", *[""] * 5])
        for place, phase in enumerate(item.phases):
            own = [item.candidate, item.stage, str(item.n_trainings)] if not place else ["", "", ""]
            figures = [f"{phase.steps:,}", f"{phase.seconds_per_step:.3f}", f"{phase.memory_gb:.2f}"]
            rows.append([*own, phase.name, *figures, *(whole if not place else ["", ""])])
    known = [item.hours for item in plans if item.hours is not None]
    prices = [item.price for item in plans if item.price is not None]
    rows.append(["all", "", "", "", "", "", "", f"{sum(known):.2f}", f"{sum(prices):.2f}" if prices else "–"])
    # A line that says why nothing was measured is no column's width.
    plain = [row for row in rows if not row[3].startswith("not measured")]
    widths = [max(len(row[place]) for row in plain) for place in range(len(head))]
    told = [
        "  ".join(
            cell.rjust(width) if place > 3 or place == 2 else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return [
        *told,
        f"steps and s/step of one training, the median of {N_STEPS} measured; hours: all trainings, with judging val "
        "and predicting; early stopping may end them sooner, and only finalists of a screening go on",
    ]
