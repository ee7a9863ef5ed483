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
    from dermlab.adapt.finetune.fit import FoldData
    from dermlab.adapt.finetune.losses import Objective
    from dermlab.adapt.finetune.network import FinetuneNetwork
    from dermlab.core.device import Runtime
    from dermlab.models.preprocess import Preprocess

N_STEPS = 3
MOMENTS = {"sgd": 1, "rmsprop": 1}
"""fp32 values beside each trained weight that an optimiser keeps; AdamW and most others keep two."""
VIEWS = {"none": 1, "flips": 4, "dihedral": 8}


@dataclass(frozen=True)
class PhasePlan:
    """One phase of one training.

    Attributes:
        name: frozen or finetune.
        steps: optimiser steps of all its epochs, of photos or of cases.
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
        not_measured: what the recipe has and the measured steps had not.
    """

    candidate: str
    stage: str
    n_trainings: int
    phases: tuple[PhasePlan, ...] = ()
    judge_seconds: float = 0.0
    hours: float | None = None
    price: float | None = None
    error: str = ""
    not_measured: tuple[str, ...] = ()


def plan_costs(config: BakeoffConfig) -> list[TrainingPlan]:
    """Measure a few steps of every fine-tuned candidate, frozen and whole, and return what all of them will take.

    Nothing is trained, judged or written but decoded photos in the pixel cache (and the split, where there is none).
    Labels are made up, and the questionnaire's branch is measured on blanks; several devices and torch.compile are not
    measured, which the plan says.

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
    counts = {name: _mean_rows(setting, settings, name) for name in ("train", "val", "test")}
    n_train = min(counts["train"], settings.max_train_samples or counts["train"])
    n_val = min(counts["val"], settings.max_val_samples or counts["val"])
    phases = phases_of(settings)
    wanted = [phase.name for phase in phases]
    if any(name not in measured for name in (*wanted, "judge")):
        measured |= _measure(setting, settings, wanted)
    together = settings.batch_size * settings.devices * settings.nodes
    steps = math.ceil(max(1, n_train // together) / settings.accumulate)
    planned = tuple(PhasePlan(phase.name, steps * phase.n_epochs, *measured[phase.name]) for phase in phases)
    n_epochs = sum(phase.n_epochs for phase in phases)
    n_told = counts["val"] + (counts["test"] if stage == "full" else 0)
    judge = (n_epochs * n_val + VIEWS[settings.tta] * n_told) * measured["judge"][0]
    seconds = sum(phase.steps * phase.seconds_per_step for phase in planned) + judge
    n_trainings = n_seeds * len(setting.split[["repeat", "fold"]].drop_duplicates())
    # Priced as embedding is: so many trainings, each at its pace.
    cost = estimate(1, 1 / seconds, epochs=n_trainings, price_per_hour=setting.config.price_per_hour)
    left_out = not_measured(settings)
    return TrainingPlan(item.name, stage, n_trainings, planned, judge, cost.hours, cost.price, not_measured=left_out)


def _mean_rows(setting: Setting, settings: FinetuneSettings, part: str) -> int:
    """Return the photos (or cases) of a part, the mean over folds."""
    from dermlab.adapt.finetune.cases import case_column

    split, dataset = setting.split, setting.dataset
    inside = (split["split"] == part).to_numpy()
    n_folds = len(split) // len(dataset)
    if settings.case == "image":
        return round(int(inside.sum()) / n_folds)
    ids = dataset.ids_of(case_column(dataset, settings.case))
    return round(sum(len(np.unique(ids[own])) for own in inside.reshape(n_folds, -1)) / n_folds)


def not_measured(settings: FinetuneSettings) -> tuple[str, ...]:
    """Return what of a recipe the measured steps leave out, a clause each."""
    told = []
    if settings.compile:
        told.append("torch.compile (measured without)")
    if settings.devices * settings.nodes > 1:
        told.append("what devices tell each other (measured on one, the steps of all)")
    return tuple(told)


def _measure(setting: Setting, settings: FinetuneSettings, phases: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Return seconds a step and memory in GB of each phase, and under ``judge`` seconds a photo in eval mode."""
    from dermlab.adapt.finetune.losses import Objective
    from dermlab.adapt.finetune.network import build_network, freeze, train_mode
    from dermlab.core.device import resolve
    from dermlab.models.cost import measure_steps
    from dermlab.training.loop import quiet_randomness
    from dermlab.training.speed import checkpoint_gradients

    runtime = resolve(settings.device, settings.precision)
    objective = Objective.of(setting.dataset.card.target(setting.target), settings)
    n_questionnaire = setting.dataset.questionnaire().shape[1] if settings.head == "fusion" else 0
    found: dict[str, tuple[float, float]] = {}
    with quiet_randomness():
        network = build_network(settings, objective.n_outputs, n_questionnaire).to(runtime.device)
        if settings.gradient_checkpointing:
            for _, tower in network.encoders():
                checkpoint_gradients(tower.network)
        data = _some_photos(setting, settings, network.backbone.preprocess, objective, n_questionnaire)
        for name in phases:
            freeze(network, settings.train_from, whole_backbone=name == "frozen")
            train_mode(network)
            _reset_peak(runtime.device)
            step = _stepper(network, settings, data, runtime, name)
            seconds, kept = measure_steps(step, network.parameters(), runtime.device, steps=N_STEPS)
            found[name] = seconds, _memory(network, settings, kept, runtime.device) / 1e9
        network.eval()
        judged = _batches(data, settings, network, runtime.device, augment=False)

        def judge() -> None:
            import torch

            images, chosen, belongs = next(judged)
            with torch.no_grad(), runtime.autocast():
                network(images, *data.answers(chosen, runtime.device), **belongs)

        seconds, _ = measure_steps(judge, network.parameters(), runtime.device, steps=N_STEPS)
        found["judge"] = seconds / settings.batch_size, 0.0
    return found


def _some_photos(
    setting: Setting, settings: FinetuneSettings, preprocess: Preprocess, objective: Objective, n_questionnaire: int
) -> FoldData:
    """Return the data set's first photos as the recipe sees them, with made-up labels and blank questionnaires."""
    from dermlab.adapt.finetune.cases import find_bags
    from dermlab.adapt.finetune.fit import FoldData
    from dermlab.adapt.finetune.run import crop_source_px
    from dermlab.data.loader import photo_gains
    from dermlab.data.pixel_cache import open_pixels

    dataset = setting.dataset
    n_photos = (N_STEPS + 1) * settings.batch_size
    if settings.case != "image":
        n_photos *= settings.case_photos * max(1, len(settings.modalities))
    n_photos = min(n_photos, len(dataset))
    recipes = [preprocess.recipe()]
    side = crop_source_px(settings, preprocess)
    if side is not None:
        recipes.append(recipes[0].model_copy(update={"size_px": side, "fit": "short", "crop_fraction": 1.0}))
    pixels, *larger = open_pixels(dataset.paths[:n_photos], recipes)
    for one in (pixels, *larger):
        one.fill()
    readable = np.arange(len(dataset)) < n_photos
    readable[list(pixels.failures)] = False
    bags = None
    if settings.case != "image":
        bags = find_bags(
            dataset,
            settings.case,
            modalities=settings.modalities,
            most=settings.case_photos,
            readable=readable,
            in_order=settings.case_pooling == "concatenation",
        )
    rows = np.flatnonzero(readable) if bags is None else np.arange(len(bags))
    if not len(rows):
        raise InputError("none of the first photos can be read: nothing can be measured")
    n = n_photos if bags is None else len(bags)
    codes = np.arange(n) % objective.n_classes
    questionnaire = np.zeros((n, n_questionnaire), np.float32)
    return FoldData(
        pixels,
        np.eye(objective.n_classes)[codes] if objective.multilabel else codes,
        rows,
        rows,
        objective.n_classes,
        questionnaire=questionnaire if n_questionnaire else None,
        present=np.zeros(n, bool),
        blank=np.zeros(n_questionnaire, np.float32),
        views=larger[0] if larger else None,
        gains=None
        if settings.colour_constancy == "none"
        else photo_gains(pixels, np.arange(n_photos), settings.colour_constancy),
        objective=objective,
        bags=bags,
    )


def _stepper(network: FinetuneNetwork, settings: FinetuneSettings, data: FoldData, runtime: Runtime, phase: str) -> Any:
    """Return a function that takes one real step: photos loaded, forward, backward, weights moved."""
    from dermlab.adapt.finetune.losses import mixed
    from dermlab.core.randomness import generator
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
    loaded = _batches(data, settings, network, runtime.device, augment=True)
    random = generator(settings.seed, "planning")

    def part(images: torch.Tensor, chosen: np.ndarray, belongs: dict[str, Any]) -> Any:
        labels = data.aim.labels(data.codes[chosen], images.device)
        images, labels = mixed(images, labels, random, mixup=settings.mixup, cutmix=settings.cutmix)
        answers = data.answers(chosen, images.device)
        return lambda forward: (data.aim(forward(images, *answers, **belongs), labels, None), len(chosen))

    return lambda: stepper.take([part(*next(loaded)) for _ in range(settings.accumulate)])


def _batches(
    data: FoldData, settings: FinetuneSettings, network: FinetuneNetwork, device: str, *, augment: bool
) -> Iterator[tuple[torch.Tensor, np.ndarray, dict[str, Any]]]:
    """Yield batches without end, augmented as the recipe says."""
    from dermlab.data.augment import preset

    preprocess = network.backbone.preprocess
    views = None
    if augment and (settings.augmentation != "none" or settings.augmentation_changes):
        views = preset(settings.augmentation, preprocess.size_px, **settings.augmentation_changes)
    n_batches = 16
    rows = np.resize(data.train, n_batches * settings.batch_size)
    epoch = 0
    while True:
        epoch += 1
        yield from data.batches(
            rows,
            [settings.batch_size] * n_batches,
            dropout=settings.photo_dropout if augment else 0.0,
            augment=views,
            seed=settings.seed if augment else None,
            epoch=epoch,
            mean=preprocess.mean,
            std=preprocess.std,
            device=device,
        )


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
    left_out = [f"{item.candidate}: not in it: {text}" for item in plans for text in item.not_measured]
    return [
        *told,
        *dict.fromkeys(left_out),
        f"steps and s/step of one training, the median of {N_STEPS} measured; hours: all trainings, with judging val "
        "and predicting; early stopping may end them sooner, and only finalists of a screening go on",
    ]
