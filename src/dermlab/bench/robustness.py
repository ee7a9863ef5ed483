"""Robustness: a saved model on its own test photos, corrupted in known ways, and how much it loses.

Each photo is judged by the model of its own fold, as in the run's predictions table; the corruption is done to the
photo's pixels, before the encoder's own preprocessing. Clean and corrupted photos take the same path, so that the loss
is paired: same photos, same models, same patients drawn.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dermlab.adapt.finetune.run import FittedFinetune, open_fitted
from dermlab.adapt.probe import (
    FittedProbe,
    FittedRun,
    assemble,
    contaminations,
    over_classes,
    questionnaire_encoder,
)
from dermlab.adapt.saving import load_head
from dermlab.bench.curve_settings import Corrupting
from dermlab.core.device import Runtime, resolve
from dermlab.core.errors import InputError
from dermlab.core.files import atomic_path, read_json, write_json
from dermlab.core.fingerprint import hash_json
from dermlab.core.progress import progress
from dermlab.core.randomness import generator
from dermlab.data import corruptions
from dermlab.data.corruptions import CORRUPTIONS, corrupt
from dermlab.data.decode import DecodeError, available_cores, decode_file
from dermlab.data.pixel_cache import PixelRecipe, open_pixels, resize
from dermlab.evaluate.cases import CaseSets, case_sets
from dermlab.evaluate.compare import bootstrap_p, holm
from dermlab.evaluate.intervals import interval, resample
from dermlab.evaluate.metrics import Evaluation, class_labels
from dermlab.evaluate.predictions import PROBABILITY, Predictions, read_predictions
from dermlab.evaluate.summary import FEW_CASES, FEW_GROUPS

if TYPE_CHECKING:
    from dermlab.data.dataset import Dataset

LEVEL = 0.95
AHEAD = 4  # photos made ahead, for each thread
INTERVALS = (
    "95% bootstrap over test groups; clean and corrupted are drawn together, so that drops are paired. Photos whose "
    "group was drawn in several repeats count once a repeat"
)


@dataclass(frozen=True)
class Variant:
    """A corruption at a severity; severity 0 is the clean photo."""

    name: str
    severity: int

    @property
    def file(self) -> str:
        """Name of the file that keeps its features."""
        return f"{self.name}-{self.severity}.npy"


def robustness(
    run: str | Path,
    dataset: Dataset,
    settings: Corrupting,
    out: str | Path,
    *,
    runtime: Runtime | None = None,
    batch_size: int | None = None,
    threads: int | None = None,
) -> dict[str, Any]:
    """Judge corrupted test photos by a saved model; what is done is kept in ``out`` and not done again.

    Args:
        run: run folder of a finished probe that looks at photos, or of a fine-tuned network (one of a bake-off's
            ``runs/`` too).
        dataset: the data set that it was fitted on.
        settings: corruptions, severities, metrics, seed.
        out: folder; ``features/`` in it keeps the vectors (of a fine-tuned network the answers) of what is done.
        runtime: device and precision of the encoder; of a fine-tuned network its recipe's precision where None.
        batch_size: photos at a time in the encoder.
        threads: decoding and corrupting for a probe; a fine-tuned network takes all cores.

    Returns:
        JSON-able, and the content of ``robustness.json``, the worst corruption first::

            {"n", "n_groups", "n_images", "unit", "group_by", "model", "target", "classes", "metric", "seed", "limit",
             "interval", "warnings": [], "lineage": {…}, "worst": name, "per_class": {class: {"n"}},
             "clean": {"<metric>": {"value", "low", "high"}},
             "corruptions": [
                 {"name", "title", "parameter", "mean": {"drop": {…}, "relative": {…}}, "p", "p_adjusted",
                  "verdict": "worse" | "better" | "cannot tell apart",
                  "severities": [{"severity", "level", "<metric>": {…}, "drop": {…}, "relative": {…}}]}]}

        ``drop`` is clean minus corrupted and ``relative`` corrupted / clean, both of the first metric, with paired
        intervals; ``mean`` is over the severities run. ``p`` (paired bootstrap over groups) tests the mean drop;
        Holm is applied over the corruptions.

    Raises:
        InputError: the run looks at no photo, was fitted on other data or weights, or ``out`` was begun otherwise.
    """
    probe = open_fitted(run)
    encoder_name = probe.model["encoder_name"]
    if isinstance(probe, FittedProbe) and encoder_name is None:
        raise InputError(f"{run}: {probe.model['name']} is no single encoder with a head; name the run of one")
    if probe.model["lineage"]["data_fingerprint"] != dataset.fingerprint:
        raise InputError(
            f"{run}: was fitted on {probe.model['lineage']['dataset']} as it was then, and {dataset.folder} holds "
            "something else; name the data set of the run"
        )
    table = _limited(read_predictions(probe.path / "predictions.parquet").test(), settings)
    image_ids = np.unique(table.frame["image_id"].to_numpy(str))
    rows = pd.Index(dataset.image_ids).get_indexer(pd.Index(image_ids))
    out = Path(out)
    made_with = {
        "data": dataset.fingerprint,
        "model": [read_json(place / "model.json")["report"]["fingerprint"] for place in probe.folds],
        "encoder": probe.model["encoder"]["fingerprint"],
        "images": hash_json(image_ids.tolist()),
        "seed": settings.seed,
        "corruptions": corruptions_fingerprint(),
    }
    file = out / "inputs.json"
    if file.exists() and hash_json(read_json(file)) != hash_json(made_with):
        raise InputError(
            f"{out}: was begun with another model, other photos, corruptions, limit or seed; choose another --out"
        )
    write_json(file, made_with)
    clean = Variant("clean", 0)
    variants = [clean, *(Variant(name, severity) for name in settings.corruptions for severity in settings.severities)]
    spoil = _Spoil(dataset, settings.seed)
    if isinstance(probe, FittedProbe):
        _embed_variants(spoil, rows, variants, out / "features", encoder_name, runtime, batch_size, threads)
        judged = _Judge(probe, dataset, table, image_ids, rows).predict
    else:
        _ask_variants(probe, dataset, spoil, table, rows, image_ids, variants, out / "features", runtime, batch_size)
        judged = partial(_answered, table, probe.classes)
    evaluations = []
    found = None
    with progress("predict", len(variants), "variants") as advance:
        for variant in variants:
            found = case_sets(judged(np.load(out / "features" / variant.file)), "test")
            evaluations.append(Evaluation(found.sets, settings.metrics))
            advance(1)
    assert found is not None
    drawn = resample(evaluations, n_boot=settings.n_boot, seed=settings.seed, names=settings.metrics)
    values = [evaluation.value() for evaluation in evaluations]
    n_groups = len(found.groups)
    scored = {
        variant: {
            name: interval(value[name], draws[name], n_groups, level=LEVEL).to_dict() for name in settings.metrics
        }
        for variant, value, draws in zip(variants, values, drawn, strict=True)
    }
    first = settings.metrics[0]
    point = {variant: value[first] for variant, value in zip(variants, values, strict=True)}
    replicates = {variant: draws[first] for variant, draws in zip(variants, drawn, strict=True)}
    entries: list[dict[str, Any]] = []
    for name in settings.corruptions:
        mine = [Variant(name, severity) for severity in settings.severities]
        mean = float(np.mean([point[variant] for variant in mine]))
        mean_draws = np.mean([replicates[variant] for variant in mine], axis=0)
        known = CORRUPTIONS[name]
        entries.append(
            {
                "name": name,
                "title": known.title,
                "parameter": known.parameter,
                "mean": _against(point[clean], mean, replicates[clean], mean_draws, n_groups),
                "p": bootstrap_p(replicates[clean] - mean_draws, n_groups),
                "severities": [
                    {
                        "severity": variant.severity,
                        "level": known.levels[variant.severity - 1],
                        **scored[variant],
                        **_against(point[clean], point[variant], replicates[clean], replicates[variant], n_groups),
                    }
                    for variant in mine
                ],
            }
        )
    for entry, adjusted in zip(entries, holm([entry["p"] for entry in entries]), strict=True):
        entry["p_adjusted"] = adjusted
        worse = (entry["mean"]["drop"]["value"] or 0) > 0
        entry["verdict"] = ("worse" if worse else "better") if adjusted < 1 - LEVEL else "cannot tell apart"
    entries.sort(key=lambda entry: -(entry["mean"]["drop"]["value"] or 0))
    warnings = [*found.warnings, *contaminations(probe.model["encoder"], dataset)]
    if settings.limit is not None:
        warnings.append(f"limited to {len(image_ids):,} of the run's test photos")
    per_class = _cases_by_class(found)
    if n_groups < FEW_GROUPS:
        warnings.append(
            f"only {n_groups} groups ({dataset.group_column()}): intervals from so few are too narrow, and a verdict "
            "may be chance"
        )
    few = [f"{name} ({n})" for name, n in per_class.items() if n < FEW_CASES]
    if few:
        warnings.append(f"fewer than {FEW_CASES} cases of {', '.join(few)}: what harms these does not show here")
    return {
        "n": len(found.units),
        "n_groups": n_groups,
        "n_images": len(image_ids),
        "unit": dataset.card.unit,
        "group_by": dataset.group_column(),
        "model": probe.model["name"],
        "target": probe.model["target"]["column"],
        "classes": list(probe.classes),
        "per_class": {name: {"n": n} for name, n in per_class.items()},
        "metric": first,
        "seed": settings.seed,
        "limit": settings.limit,
        "interval": INTERVALS,
        "warnings": warnings,
        "worst": entries[0]["name"],
        "lineage": probe.model["lineage"],
        "clean": scored[clean],
        "corruptions": entries,
    }


def corruptions_fingerprint() -> str:
    """Return a fingerprint of what all corruptions make of one small picture, at every severity.

    Whatever is changed in them, their levels or the library beneath, shows there; no version has to be remembered.
    """
    picture = generator(0, "corruptions").integers(0, 256, (48, 48, 3), dtype=np.uint8)
    return hash_json(
        {
            name: [corruptions.corrupt(picture, name, severity).tobytes().hex() for severity in range(1, 6)]
            for name in sorted(CORRUPTIONS)
        }
    )


def _cases_by_class(found: CaseSets) -> dict[str, int]:
    """Return how many units of each class were judged."""
    result = {}
    for code, name in enumerate(found.sets[0].classes):
        own = [unit[class_labels(cases, code) == 1] for unit, cases in zip(found.unit, found.sets, strict=True)]
        result[name] = len(np.unique(np.concatenate(own)))
    return result


def _against(
    clean: float, corrupted: float, clean_draws: np.ndarray, draws: np.ndarray, n_groups: int
) -> dict[str, dict[str, float | None]]:
    """Return drop and relative score with paired intervals."""
    relative = np.where(clean_draws > 0, draws / np.where(clean_draws > 0, clean_draws, 1), np.nan)
    share = corrupted / clean if clean > 0 else np.nan
    return {
        "drop": interval(clean - corrupted, clean_draws - draws, n_groups, level=LEVEL).to_dict(),
        "relative": interval(share, relative, n_groups, level=LEVEL).to_dict(),
    }


def _limited(table: Predictions, settings: Corrupting) -> Predictions:
    """Keep whole groups, drawn at random, until ``limit`` photos are there."""
    frame = table.frame
    if settings.limit is None or frame["image_id"].nunique() <= settings.limit:
        return table
    images = frame.groupby("group", sort=True)["image_id"].nunique()
    order = generator(settings.seed, "limit").permutation(len(images))
    kept = images.index[order[np.cumsum(images.to_numpy()[order]) <= settings.limit]]
    if len(kept) < 2:
        raise InputError(f"limit: {settings.limit} photos are fewer than two {table.meta.get('group_by')}s have")
    return table.with_frame(frame[frame["group"].isin(kept)].reset_index(drop=True))


@dataclass(frozen=True)
class _Spoil:
    """Opens photos of a data set and does to them what a variant says.

    Attributes:
        dataset: whose photos.
        seed: of what is random in corruptions.
    """

    dataset: Dataset
    seed: int

    def __call__(self, variant: Variant, row: int) -> np.ndarray:
        """Return a photo, (H, W, 3) uint8.

        Args:
            variant: the corruption.
            row: the photo, by its number in the data set.
        """
        path = self.dataset.paths[row]
        try:
            image = decode_file(path)
        except DecodeError as error:
            raise InputError(f"{path}: {error.reason}, though the run could read it") from None
        if not variant.severity:
            return image
        name = str(self.dataset.image_ids[row])
        return corrupt(image, variant.name, variant.severity, seed=self.seed, image_id=name)


class _SpoiltPixels:
    """The photos of a data set under one variant, made when they are looked at; read as a pixel cache is.

    Attributes:
        recipe: of the network that looks at them.
        failures: photos that hold no image, as the pixel cache knows them.
    """

    def __init__(self, spoil: _Spoil, variant: Variant, recipe: PixelRecipe, failures: dict[int, str]) -> None:
        self.recipe, self.failures = recipe, failures
        self._spoil, self._variant = spoil, variant

    def __len__(self) -> int:
        return len(self._spoil.dataset)

    def fill(self) -> None:
        """Make nothing ahead."""

    def images(self, indices: np.ndarray) -> list[np.ndarray]:
        """Return photos as a list of (S, S, 3) uint8, black where there is none."""
        from PIL import Image

        size = self.recipe.size_px
        return [
            np.zeros((size, size, 3), np.uint8)
            if row in self.failures
            else resize(Image.fromarray(self._spoil(self._variant, row)), self.recipe)
            for row in np.asarray(indices).tolist()
        ]


def _ask_variants(
    tuned: FittedFinetune,
    dataset: Dataset,
    spoil: _Spoil,
    table: Predictions,
    rows: np.ndarray,
    image_ids: np.ndarray,
    variants: Sequence[Variant],
    folder: Path,
    runtime: Runtime | None,
    batch_size: int | None,
) -> None:
    """Write the probabilities (rows of the table, C) that fine-tuned networks give to every variant not there yet.

    Each network sees the photos of its own fold, spoilt before its own preprocessing; colour constancy estimates the
    light of the spoilt photo, and test-time views are those of the recipe. The questionnaire is as it is. All photos
    of a case are spoilt alike.
    """
    from dermlab.adapt.finetune.fit import predict_rows
    from dermlab.adapt.finetune.run import load_network

    todo = [variant for variant in variants if not (folder / variant.file).exists()]
    if not todo:
        return
    runtime = runtime or resolve("auto", tuned.model["settings"]["precision"])
    photo_of = rows[pd.Index(image_ids).get_indexer(pd.Index(table.frame["image_id"].astype(str)))]
    answers = {variant: np.zeros((len(table), len(tuned.classes))) for variant in todo}
    with progress(f"ask {tuned.model['name']}, corrupted", len(todo) * len(table)) as advance:
        for members, place in _folds(tuned, table):
            network, settings = load_network(place)
            network = network.to(runtime.device)
            recipe = network.backbone.preprocess.recipe()
            failures = {}
            if settings.case != "image":  # a case shows photos that have no row in the table
                cached = open_pixels(dataset.paths, recipe)
                cached.fill()
                failures = dict(cached.failures)
            for variant in todo:
                pixels: Any = _SpoiltPixels(spoil, variant, recipe, failures)
                data = tuned.fold_data(dataset, place, settings, pixels, photo_of[members])
                own = photo_of[members] if data.bags is None else data.bags.case_of[photo_of[members]]
                asked, back = np.unique(own, return_inverse=True)
                found = predict_rows(
                    network,
                    data,
                    asked,
                    runtime=runtime,
                    batch_size=batch_size or settings.batch_size,
                    tta=settings.tta,
                )
                answers[variant][members] = found[back]
                advance(len(members))
    for variant, found in answers.items():
        with atomic_path(folder / variant.file) as temporary, open(temporary, "wb") as file:
            np.save(file, found)


def _folds(run: FittedRun, table: Predictions) -> Iterator[tuple[np.ndarray, Path]]:
    """Yield the rows of a run's table that each fold answered, int64, and the fold's folder."""
    keys = table.frame[["repeat", "fold"]].to_numpy(np.int64)
    for repeat, fold in np.unique(keys, axis=0).tolist():
        members = np.flatnonzero((keys == (repeat, fold)).all(axis=1))
        yield members, run.path / "checkpoints" / f"repeat{repeat}-fold{fold}"


def _answered(table: Predictions, classes: Sequence[str], probabilities: np.ndarray) -> Predictions:
    """Return the table with other probabilities (rows, C)."""
    frame = table.frame.copy()
    frame[[PROBABILITY + name for name in classes]] = probabilities
    return table.with_frame(frame)


def _embed_variants(
    spoil: _Spoil,
    rows: np.ndarray,
    variants: Sequence[Variant],
    folder: Path,
    encoder_name: str,
    runtime: Runtime | None,
    batch_size: int | None,
    threads: int | None,
) -> None:
    """Write the vectors of every variant that is not there yet; one network, one stream of photos for all of them."""
    from dermlab.features.extract import embed_stream

    todo = [variant for variant in variants if not (folder / variant.file).exists()]
    if not todo:
        return

    def images() -> Iterator[np.ndarray]:
        n_threads = threads or available_cores()
        jobs = [(variant, row) for variant in todo for row in rows.tolist()]
        with ThreadPoolExecutor(n_threads) as pool:
            waiting = [pool.submit(spoil, *job) for job in jobs[: AHEAD * n_threads]]
            following = iter(jobs[AHEAD * n_threads :])
            try:
                while waiting:
                    yield waiting.pop(0).result()
                    job = next(following, None)
                    if job is not None:
                        waiting.append(pool.submit(spoil, *job))
            finally:
                for future in waiting:
                    future.cancel()

    held = np.zeros((0, 0), np.float32)
    done = 0
    with progress(f"embed {encoder_name}, corrupted", len(todo) * len(rows)) as advance:
        for vectors in embed_stream(images(), encoder_name, runtime=runtime, batch_size=batch_size):
            held = np.concatenate([held, vectors]) if held.size else vectors
            advance(len(vectors))
            while len(held) >= len(rows) and done < len(todo):
                with atomic_path(folder / todo[done].file) as temporary, open(temporary, "wb") as file:
                    np.save(file, held[: len(rows)])
                held = held[len(rows) :]
                done += 1


class _Judge:
    """The run's models, each for the photos of its own fold."""

    def __init__(
        self, probe: FittedProbe, dataset: Dataset, table: Predictions, image_ids: np.ndarray, rows: np.ndarray
    ) -> None:
        self.table, self.classes = table, probe.classes
        questionnaire = dataset.questionnaire(exclude_proxies=False)
        self.questionnaire = questionnaire.iloc[rows].reset_index(drop=True)
        place = pd.Index(image_ids).get_indexer(pd.Index(table.frame["image_id"].astype(str)))
        self.folds = [
            (members, place[members], load_head(folder), questionnaire_encoder(folder))
            for members, folder in _folds(probe, table)
        ]

    def predict(self, features: np.ndarray) -> Predictions:
        """Return the run's test table with the answers to photos of these features (images, D)."""
        probabilities = np.zeros((len(self.table), len(self.classes)))
        for members, place, head, encoder in self.folds:
            X = assemble(features, self.questionnaire, encoder, len(features))[place]
            probabilities[members] = over_classes(head.predict_proba(X), head.classes_, self.classes)
        return _answered(self.table, self.classes, probabilities)
