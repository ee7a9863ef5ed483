"""One task of a suite: features once for each encoder, every head and draw on them, every recipe trained.

A task is done in one process and hands back plain data; what is finished in its folder is read and not repeated.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dermlab.adapt.config import HeadConfig, ProbeSettings
from dermlab.bench.config import folder_name, short_encoder
from dermlab.bench.suites.config import Recipe, Suite, Task
from dermlab.bench.suites.data import make_split
from dermlab.core.device import Precision
from dermlab.core.errors import DermlabError, MissingExtraError, MissingWeightsError
from dermlab.core.files import write_json
from dermlab.core.fingerprint import hash_json
from dermlab.core.progress import note
from dermlab.data.dataset import Dataset
from dermlab.data.ingest import OFFICIAL
from dermlab.evaluate.predictions import Predictions, write_predictions
from dermlab.evaluate.summary import summarise

if TYPE_CHECKING:
    from dermlab.adapt.probe import ProbeResult
    from dermlab.core.device import Runtime
    from dermlab.features.extract import Features

Json = dict[str, Any]
PERCENT = 100
MEDMNIST_TASKS = {
    "binary": "binary-class",
    "multiclass": "multi-class",
    "multilabel": "multi-label, binary-class",
    "ordinal": "ordinal-regression",
}


@dataclass(frozen=True)
class Job:
    """What a process needs to do one task.

    Attributes:
        suite: the suite.
        task: one of its tasks.
        folder: the task's data set folder.
        out: the suite's folder; the task writes below ``tasks/<name>``.
        encoders: frozen encoders.
        recipes: networks to train.
        device: auto, cpu, cuda:0 or mps.
        precision: of embedding and training.
        batch_size: photos at a time in the embedding; None chooses by device.
        threads: CPU threads of this process; None: as many as there are.
    """

    suite: Suite
    task: Task
    folder: Path
    out: Path
    encoders: tuple[str, ...]
    recipes: tuple[Recipe, ...]
    device: str = "auto"
    precision: Precision = "auto"
    batch_size: int | None = None
    threads: int | None = None

    @property
    def place(self) -> Path:
        """The task's folder."""
        return self.out / "tasks" / self.task.name


def run_task(job: Job) -> Json:
    """Do one task and return what came of it; the same is written to ``task.json`` in its folder.

    Returns:
        ``{"task", "title", "folder", "target", "metric", "status": "done" | "failed", "reason", "data": {"name", "n",
        "n_groups", "group_by", "licence", …}, "rows": [row], "skipped": [{"task", "model", "reason"}], "few_shot": …,
        "warnings": [], "seconds"}``. A row is ``{"task", "model", "method", "kind", "encoder", "n_parameters", "n",
        "n_groups", "unit", "group_by", "seeds", "metrics": {name: {"value", "low", "high"}}, "val_score", "converged",
        "seconds", "images_per_second", "medmnist", "last_epoch", "run", "warnings", "official"}``; ``n`` and
        ``n_groups`` count the distinct ones over all seeds' test parts, and ``official`` says whether the test part is
        the source's own.
    """
    if job.threads is not None:
        import torch

        torch.set_num_threads(job.threads)
    start = time.monotonic()
    found: Json = {
        "task": job.task.name,
        "title": job.task.title,
        "folder": str(job.folder),
        "target": job.task.target,
        "metric": job.suite.metric_of(job.task),
        "status": "done",
        "reason": "",
        "data": None,
        "rows": [],
        "skipped": [],
        "few_shot": None,
        "resolution": None,
        "warnings": [],
    }
    try:
        _do(job, found)
    except DermlabError as error:
        found |= {"status": "failed", "reason": str(error)}
    for row in found["rows"]:
        row["official"] = found["data"]["official"]
    found["seconds"] = time.monotonic() - start
    write_json(job.place / "task.json", found)
    return found


def _do(job: Job, found: Json) -> None:
    dataset = Dataset.open(job.folder)
    groups = dataset.groups()
    found["data"] = {
        "name": dataset.card.name,
        "n": len(dataset),
        "n_groups": len(np.unique(groups)),
        "group_by": dataset.group_column(),
        "licence": dataset.card.licence,
        "classes": list(dataset.card.target(job.task.target).classes),
    }
    split, frame, told = make_split(dataset, job.task, job.suite)
    found["warnings"] += told
    found["data"]["split"] = split
    found["data"]["official"] = job.suite.split_of(job.task).rule == OFFICIAL and OFFICIAL in dataset.split_names()
    if job.suite.bakeoff is not None:
        _bake(job, dataset, split, found)
        return
    if job.suite.resolution is not None:
        from dermlab.bench.suites.resolution import study

        found["resolution"] = study(job, dataset, split, found)
        return
    features: dict[str, Features] = {}
    for encoder in job.encoders:
        with skipping(found, encoder):
            features[encoder] = _features(job, dataset, encoder)
            for head in job.suite.protocol.heads:
                found["rows"].append(probe_row(job, dataset, split, frame, encoder, head, features[encoder]))
    if features and job.suite.protocol.few_shot is not None:
        with skipping(found, "few-shot"):
            found["few_shot"] = _few_shot(job, dataset, split, frame, features)
    for recipe in job.recipes:
        with skipping(found, recipe.name):
            found["rows"].append(_train(job, dataset, split, recipe))


@contextlib.contextmanager
def skipping(found: Json, model: str) -> Iterator[None]:
    """Note a model that cannot be had, or that fails, among the skipped, and go on with the next."""
    try:
        yield
    except DermlabError as error:
        why = "not here" if isinstance(error, MissingWeightsError | MissingExtraError) else "failed"
        found["skipped"].append({"task": found["task"], "model": model, "reason": str(error), "why": why})
        note(f"{found['task']}: {model} left out: {error}")


def _runtime(job: Job) -> Runtime:
    from dermlab.core.device import resolve

    return resolve(job.device, job.precision)


def _features(job: Job, dataset: Dataset, encoder: str) -> Features:
    from dermlab.features.extract import embed

    return embed(
        dataset,
        encoder,
        runtime=_runtime(job),
        batch_size=job.batch_size,
        threads=job.threads,
        seed=job.suite.protocol.seeds[0],
    )


def probe_row(
    job: Job,
    dataset: Dataset,
    split: str,
    frame: pd.DataFrame,
    encoder: str,
    head: HeadConfig,
    features: Features,
    *,
    model: str | None = None,
) -> Json:
    """Fit a head on known features and return its row.

    Args:
        job: the task.
        dataset: its photos.
        split: name of the split.
        frame: the split.
        encoder: the encoder's name.
        head: which head.
        features: of all photos.
        model: what tables and folders call the encoder; None: its short name.
    """
    from dermlab.adapt.probe import run_probe

    protocol = job.suite.protocol
    model = model or short_encoder(encoder)
    if head.kind == "linear" and protocol.penalty == "features-and-classes":
        head = head.model_copy(update={"C": (penalty_of_size(dataset, job.task, frame, features),)})
    settings = ProbeSettings(
        encoder=encoder,
        head=head,
        split=split,
        target=job.task.target,
        metric=protocol.choose_by,
        seed=protocol.seeds[0],
        n_boot=protocol.n_boot,
    )
    done = run_probe(dataset, settings, job.place / folder_name(model) / head.kind, features=features)
    return _row(
        job,
        done,
        model=model,
        method=head.kind,
        kind="frozen",
        encoder=encoder,
        n_parameters=features.encoder.get("n_parameters"),
        images_per_second=features.images_per_second or None,
    )


def penalty_of_size(dataset: Dataset, task: Task, frame: pd.DataFrame, features: Features) -> float:
    """Return scikit-learn's C for a penalty λ = features × classes / 100 that stands beside the *mean* loss as 1/λ.

    So the released linear probe of PanDerm has it (mean cross-entropy + ‖w‖ / 2λ); here with the squared norm of an
    ordinary ridge. Scikit-learn weighs the sum of the losses against ‖w‖² / 2, hence the division by their number.
    """
    n_train = int(((frame["repeat"] == 0) & (frame["fold"] == 0) & (frame["split"] == "train")).sum())
    n_classes = len(dataset.card.target(task.target).classes)
    return features.values.shape[1] * n_classes / PERCENT / max(n_train, 1)


def _few_shot(job: Job, dataset: Dataset, split: str, frame: pd.DataFrame, features: Mapping[str, Features]) -> Json:
    """Draw labels on the first seed's split and return the curves and ratios."""
    from dermlab.bench.label_efficiency import label_efficiency

    suite, few = job.suite, job.suite.protocol.few_shot
    assert few is not None
    settings = few.curves(
        split=split,
        target=job.task.target,
        metric=suite.protocol.choose_by,
        seed=suite.protocol.seeds[0],
        n_boot=suite.protocol.n_boot,
    )
    first = frame[frame["repeat"] == 0].reset_index(drop=True)
    folder = job.place / f"few-shot-{hash_json(sorted(features))[:8]}"
    found = label_efficiency(dataset, dict(features), settings, folder, first)
    found.pop("rows")
    write_json(folder / "label_efficiency.json", found)
    return {key: found[key] for key in ("n", "n_groups", "unit", "group_by", "metric", "repeats", "curves", "ratios")}


def _train(job: Job, dataset: Dataset, split: str, recipe: Recipe) -> Json:
    """Train a recipe with each of its seeds and return its row, over all of them."""
    from dermlab.adapt.finetune.run import run_finetune

    protocol = job.suite.protocol
    runs = []
    for seed in recipe.seeds or (recipe.settings().seed,):
        settings = recipe.settings(
            split=split,
            target=job.task.target,
            seed=seed,
            n_boot=protocol.n_boot,
            device=job.device,
            **({} if job.precision == "auto" else {"precision": job.precision}),
        )
        runs.append(run_finetune(dataset, settings, job.place / "recipes" / f"{recipe.name}-seed{seed}"))
    row = _row(
        job,
        runs[0],
        model=recipe.name,
        method="trained",
        kind="trained",
        encoder=recipe.settings().encoder,
        n_parameters=None,
        images_per_second=None,
    )
    if len(runs) > 1:
        together = job.place / "recipes" / recipe.name
        table = pooled([run.predictions() for run in runs])
        write_predictions(together / "predictions.parquet", table.frame, dict(table.meta))
        metrics = summarise(table, n_boot=protocol.n_boot, seed=protocol.seeds[0])
        write_json(together / "metrics.json", metrics)
        row |= {
            "metrics": _metrics_of(job, metrics),
            "medmnist": evaluator_scores(table) if job.task.source == "medmnist" else None,
            "val_score": float(np.mean([run.val_score for run in runs])),
            "converged": all(run.converged for run in runs),
            "seconds": float(sum(run.seconds for run in runs)),
            "run": together.relative_to(job.out).as_posix(),
        }
    row["seeds"] = len(runs)
    row["last_epoch"] = _last_epoch(job, dataset, runs)
    return row


def pooled(tables: Sequence[Predictions]) -> Predictions:
    """Put the predictions of several training seeds into one table, whose metrics are averaged over them."""
    frame = pd.concat([table.frame for table in tables], ignore_index=True)
    return tables[0].with_frame(frame)


def _last_epoch(job: Job, dataset: Dataset, runs: Sequence[ProbeResult]) -> Json | None:
    """Return the test metrics of the last epoch's weights, which the notebook reports in place of the best by val.

    None where the split has several folds or repeats: a run predicts with those of its networks that have not met a
    photo, which would be the average of several and no last epoch of any.
    """
    from dermlab.adapt.finetune.run import FittedFinetune
    from dermlab.core.device import resolve

    tables = []
    for run in runs:
        table = run.predictions().part("test")
        if len(table.frame[["repeat", "fold"]].drop_duplicates()) > 1:
            return None
        model = FittedFinetune.open(run.path)
        runtime = resolve(job.device, model.model["settings"]["precision"])
        probabilities, _ = model.predict(dataset, runtime=runtime, epoch="last")
        rows = pd.Index(dataset.image_ids).get_indexer(table.frame["image_id"])
        frame = table.frame.copy()
        for code, name in enumerate(table.classes):
            frame[f"p:{name}"] = probabilities[rows, code]
        tables.append(table.with_frame(frame))
    protocol = job.suite.protocol
    return _metrics_of(job, summarise(pooled(tables), n_boot=protocol.n_boot, seed=protocol.seeds[0]))


def _row(
    job: Job,
    done: ProbeResult,
    *,
    model: str,
    method: str,
    kind: str,
    encoder: str | None,
    n_parameters: int | None,
    images_per_second: float | None,
) -> Json:
    metrics = done.metrics
    return {
        "task": job.task.name,
        "model": model,
        "method": method,
        "kind": kind,
        "encoder": encoder,
        "n_parameters": n_parameters,
        **{key: metrics[key] for key in ("n", "n_groups", "unit", "group_by")},
        "seeds": metrics["repeats"],
        "metrics": _metrics_of(job, metrics),
        "val_score": done.val_score,
        "converged": done.converged,
        "seconds": done.seconds,
        "images_per_second": images_per_second,
        "medmnist": evaluator_scores(done.predictions()) if job.task.source == "medmnist" else None,
        "last_epoch": None,
        "run": done.path.relative_to(job.out).as_posix(),
        "warnings": list(done.warnings),
    }


def _metrics_of(job: Job, metrics: Mapping[str, Any]) -> Json:
    """Return value, low and high of the protocol's metrics, the task's own first; what is undefined is left out."""
    protocol = job.suite.protocol
    names = dict.fromkeys([job.suite.metric_of(job.task), *protocol.metrics, "label_accuracy"])
    return {
        name: {key: metrics[name].get(key) for key in ("value", "low", "high")}
        for name in names
        if isinstance(metrics.get(name), dict) and metrics[name].get("value") is not None
    }


def evaluator_scores(predictions: Predictions) -> Json | None:
    """Return AUC and ACC of the test part by MedMNIST's own code, averaged over repeats and training seeds.

    None where the package is not installed, or where its code refuses the cases (a class without a single one).
    """
    try:
        from medmnist.evaluator import getACC, getAUC
    except ImportError:
        return None
    part = predictions.part("test")
    task = MEDMNIST_TASKS[predictions.kind]
    areas, shares = [], []
    for rows in part.frame.groupby(["repeat", "seed"]).groups.values():
        table = part.with_frame(part.frame.loc[rows].reset_index(drop=True))
        truth, scores = table.truth(), table.probabilities()
        try:
            areas.append(float(getAUC(truth, scores, task)))
            shares.append(float(getACC(truth, scores, task)))
        except ValueError:
            return None
    return {"auc": float(np.mean(areas)), "acc": float(np.mean(shares))}


def _bake(job: Job, dataset: Dataset, split: str, found: Json) -> None:
    """Run the suite's bake-off on the task and take its outcomes as rows."""
    from dermlab.bench.bakeoff import run_bakeoff
    from dermlab.bench.config import BakeoffConfig
    from dermlab.core.config import validate

    suite = job.suite
    assert suite.bakeoff is not None
    fields = {
        **with_recipe_paths(suite.bakeoff),
        "data": str(job.folder),
        "target": job.task.target,
        "split": split,
        "metric": suite.metric_of(job.task),
        "seed": suite.protocol.seeds[0],
        "n_boot": suite.protocol.n_boot,
        "device": job.device,
        "precision": job.precision,
    }
    config = validate(BakeoffConfig, fields, source=f"{suite.name}: bakeoff")
    out = job.place / "bakeoff"
    result = run_bakeoff(config, out)
    found["bakeoff"] = (out / "report.html").relative_to(job.out).as_posix()  # the report draws it
    found["photos"] = config.photos
    for outcome in result.outcomes:
        if outcome.status == "failed":
            found["skipped"].append(
                {"task": job.task.name, "model": outcome.name, "reason": outcome.error, "why": "failed"}
            )
            continue
        metrics = outcome.metrics
        found["rows"].append(
            {
                "task": job.task.name,
                "model": outcome.name,
                "method": "trained" if outcome.finetuned else outcome.head,
                "kind": "trained" if outcome.finetuned else "frozen",
                "encoder": outcome.encoder,
                "n_parameters": None,
                **{key: metrics.get(key) for key in ("n", "n_groups", "unit", "group_by")},
                "seeds": max(len(outcome.trainings), 1),
                "metrics": _metrics_of(job, metrics),
                "val_score": outcome.val_score,
                "converged": not outcome.flags,
                "seconds": outcome.cost.get("seconds"),
                "images_per_second": outcome.cost.get("images_per_second"),
                "medmnist": None,
                "last_epoch": None,
                "run": f"tasks/{job.task.name}/bakeoff/{outcome.run}",
                "warnings": [*outcome.flags, *outcome.warnings],
                "floor": outcome.kind == "floor",
            }
        )


def with_recipe_paths(bakeoff: Mapping[str, Any]) -> Json:
    """Return a bake-off's fields with the names of recipes as paths of their files."""
    from dermlab.bench.suites.config import find_config

    candidates = [
        {**item, "finetune": str(find_config("finetune", item["finetune"]))}
        if isinstance(item.get("finetune"), str)
        else item
        for item in bakeoff.get("candidates", ())
    ]
    return {**bakeoff, "candidates": candidates}
