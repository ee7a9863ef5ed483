"""A fine-tuning run from data set to run folder, fold by fold, and the saved run ready to predict."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
import pandas as pd

from dermlab.adapt.finetune.config import FinetuneSettings
from dermlab.adapt.probe import (
    MODEL_FILE,
    QUESTIONNAIRE_FILE,
    FittedProbe,
    FittedRun,
    ProbeResult,
    assignment,
    check_decision,
    contaminations,
    decided_by,
    inputs_of,
    left_out_words,
    made_from,
    photo_contents,
    prior_warning,
    questionnaire_encoder,
    read_or_make_split,
    read_probe,
    refuse_other_inputs,
    subgroup_columns,
)
from dermlab.core.config import Config, validate
from dermlab.core.device import resolve
from dermlab.core.errors import InputError
from dermlab.core.files import atomic_path, cannot_write, read_json, write_json
from dermlab.core.fingerprint import hash_json
from dermlab.core.progress import note, set_quiet
from dermlab.core.randomness import generator
from dermlab.core.runs import RunFolder
from dermlab.data.augment import preset
from dermlab.data.card import Target
from dermlab.data.metadata import QuestionnaireEncoder
from dermlab.data.pixel_cache import open_pixels
from dermlab.evaluate.cases import case_sets
from dermlab.evaluate.metrics import Evaluation
from dermlab.evaluate.predictions import PROBABILITY, truth_columns, write_predictions
from dermlab.evaluate.summary import summarise

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from dermlab.adapt.finetune.cases import Bags
    from dermlab.adapt.finetune.fit import FoldData
    from dermlab.adapt.finetune.losses import Objective
    from dermlab.core.device import Runtime
    from dermlab.data.dataset import Dataset
    from dermlab.data.pixel_cache import Pixels
    from dermlab.models.encoders import EncoderIdentity
    from dermlab.models.preprocess import Preprocess

KIND, SCREENING = "finetune", "finetune screening"
SMALL_PX = 64


@dataclass(frozen=True)
class _Photos:
    """The photos as networks see them, as random crops are cut from them, and what colour constancy makes of them."""

    pixels: Pixels
    views: Pixels | None
    gains: np.ndarray | None
    bags: Bags | None


def run_finetune(
    dataset: Dataset,
    settings: FinetuneSettings,
    out: str | Path,
    *,
    record: Config | None = None,
    test: bool = True,
) -> ProbeResult:
    """Fine-tune on every fold of a split and write the run folder; what is done is read and not repeated.

    A run that was stopped anywhere goes on when it is called again with the same arguments.

    Args:
        dataset: the data set folder.
        settings: the recipe.
        out: the run folder, laid out as a probe's; each fold's folder under ``checkpoints/`` holds the network.
        record: what ``config.yaml`` keeps; None: the settings.
        test: whether the test part is predicted; a screening reads nothing of it and has no metrics.

    Raises:
        InputError: split, target, encoder or questionnaire will not do, or ``out`` holds another run.
    """
    from dermlab.adapt.finetune.losses import Objective
    from dermlab.models.encoders import identify_encoder
    from dermlab.training.loop import make_fabric, vanished_processes_told

    target = dataset.card.target(settings.target)
    check_decision(settings.decision, target)
    objective = Objective.of(target, settings)
    if settings.head == "fusion" and not dataset.questionnaire().columns.size:
        raise InputError(f"{dataset.folder}/card.yaml: lists no questionnaire columns (metadata:); use head: mlp")
    identity = identify_encoder(settings.encoder, seed=settings.seed, size_px=settings.size_px, fit=settings.fit)
    runtime = resolve(settings.device, settings.precision)
    split = read_or_make_split(dataset, settings.split, target.column, settings.seed)
    fabric = make_fabric(
        runtime, devices=settings.devices, nodes=settings.nodes, unused_parameters=settings.towers == "separate"
    )
    if fabric.world_size > 1:
        runtime = replace(runtime, device=str(fabric.device))
        set_quiet(not fabric.is_global_zero)
    with vanished_processes_told(fabric):
        return _run(dataset, settings, out, record, test, target, objective, identity, runtime, split, fabric)


def _run(
    dataset: Dataset,
    settings: FinetuneSettings,
    out: str | Path,
    record: Config | None,
    test: bool,
    target: Target,
    objective: Objective,
    identity: EncoderIdentity,
    runtime: Runtime,
    split: pd.DataFrame,
    fabric: Fabric,
) -> ProbeResult:
    """Do what :func:`run_finetune` promises, in one of the processes of ``fabric``."""
    start = time.monotonic()
    with fabric.rank_zero_first():  # what the first process makes, the others find
        folder = RunFolder.create(out, record or settings, KIND if test else SCREENING)
        made_with = {**inputs_of(dataset, split, settings.encoder), "encoder": identity.fingerprint}
        refuse_other_inputs(folder.path, made_with)
        if folder.done:
            photos = None
        else:
            note(f"{runtime.device}, {runtime.precision}: {runtime.reason}")
            photos = _open_photos(dataset, settings, identity.preprocess)
    if photos is None:
        return read_probe(folder.path)
    model = _description(dataset, settings, target, identity, runtime)
    keys = split[["repeat", "fold"]].drop_duplicates().to_numpy(np.int64).tolist()
    places = [folder.path / "checkpoints" / f"repeat{repeat}-fold{fold}" for repeat, fold in keys]
    todo = [(key, place) for key, place in zip(keys, places, strict=True) if not (place / MODEL_FILE).exists()]
    fabric.barrier()
    for (repeat, fold), place in todo:
        part = assignment(split, repeat, fold)
        if not test:
            part = np.where(part == "test", "left out", part)
        _run_fold(
            dataset, settings, target, objective, photos, part, repeat, fold, place, model, folder, runtime, fabric
        )
    fabric.barrier()
    if not fabric.is_global_zero:
        fabric.barrier()
        return read_probe(folder.path)
    reports = [read_json(place / MODEL_FILE)["report"] for place in places]
    warnings = [*_warnings(dataset, photos.pixels, settings, reports), *contaminations(model["encoder"], dataset)]
    seconds = time.monotonic() - start
    meta = {
        "run_id": hash_json({"settings": settings.model_dump(mode="json"), **made_with})[:12],
        "model": model["name"],
        "target": target.column,
        "kind": target.kind,
        "classes": list(target.classes),
        "unit": dataset.card.unit,
        "group_by": dataset.group_column(),
        "pooling": dataset.card.pooling,
        "calibration": None,
        **decided_by(settings.decision, target),
        "fingerprint": hash_json([report["fingerprint"] for report in reports]),
        "lineage": model["lineage"],
        "warnings": warnings,
    }
    frame = pd.concat([pd.read_parquet(place / "predictions.parquet") for place in places], ignore_index=True)
    predictions = write_predictions(folder.path / "predictions.parquet", frame, meta)
    metrics = summarise(predictions, n_boot=settings.n_boot, seed=settings.seed) if test else {"warnings": []}
    metrics["warnings"] = list(dict.fromkeys([*warnings, *metrics["warnings"]]))
    write_json(folder.path / "metrics.json", metrics)
    found = case_sets(predictions, "val")
    folder.finish(
        val_score=Evaluation(found.sets, [settings.metric]).value()[settings.metric],
        val_metric=settings.metric,
        converged=all(report["converged"] for report in reports),
        warnings=metrics["warnings"],
        seconds=seconds,
        images_per_second=0.0,
        alarms=[alarm for report in reports for alarm in report["alarms"]],
    )
    fabric.barrier()
    return read_probe(folder.path)


def _open_photos(dataset: Dataset, settings: FinetuneSettings, preprocess: Preprocess) -> _Photos:
    recipes = [preprocess.recipe()]
    side = crop_source_px(settings, preprocess)
    if side is not None:
        recipes.append(recipes[0].model_copy(update={"size_px": side, "fit": "short", "crop_fraction": 1.0}))
    pixels, *larger = open_pixels(dataset.paths, recipes)
    for one in (pixels, *larger):
        one.fill()
    return _Photos(
        pixels, larger[0] if larger else None, _gains(pixels, settings), _find_bags(dataset, settings, pixels)
    )


def _find_bags(dataset: Dataset, settings: FinetuneSettings, pixels: Pixels) -> Bags | None:
    from dermlab.adapt.finetune.cases import find_bags

    if settings.case == "image":
        return None
    pixels.fill()
    readable = np.ones(len(pixels), bool)
    readable[list(pixels.failures)] = False
    return find_bags(
        dataset,
        settings.case,
        modalities=settings.modalities,
        most=settings.case_photos,
        readable=readable,
        in_order=settings.case_pooling == "concatenation",
    )


def _warnings(
    dataset: Dataset, pixels: Pixels, settings: FinetuneSettings, reports: Sequence[dict[str, Any]]
) -> list[str]:
    warnings: list[str] = []
    if pixels.failures:
        reason = next(iter(pixels.failures.values()))
        warnings.append(f"{len(pixels.failures)} photos cannot be read and are left out (the first: {reason})")
    for report in reports:
        warnings += [text for text in report["warnings"] if text not in warnings]
    warnings += left_out_words([report["left_out"] for report in reports])
    return [*warnings, *(f"waived: {name}" for name in settings.waive)]


def _run_fold(
    dataset: Dataset,
    settings: FinetuneSettings,
    target: Target,
    objective: Objective,
    photos: _Photos,
    part: np.ndarray,
    repeat: int,
    fold: int,
    place: Path,
    model: dict[str, Any],
    folder: RunFolder,
    runtime: Runtime,
    fabric: Fabric,
) -> None:
    """Train one fold and leave weights, curves, predictions and, last of all, ``model.json`` in ``place``."""
    from dermlab.adapt.finetune.cases import first_photos
    from dermlab.adapt.finetune.curves import draw_curves
    from dermlab.adapt.finetune.fit import FoldData, fit_fold, predict_rows
    from dermlab.models.weights import state_fingerprint

    labels = dataset.labels(target.column)
    labelled, codes, strata = coded(labels, target.classes)
    readable = np.ones(len(part), bool)
    readable[list(photos.pixels.failures)] = False
    bags, usable, own_part = photos.bags, readable & labelled, part
    if bags is not None:  # from here on a number is a case's, not a photo's
        first = first_photos(bags, labelled, codes, dataset, target.column)
        usable = first >= 0
        codes, strata = (np.where(usable.reshape(-1, *(1,) * (a.ndim - 1)), a[first], -1) for a in (codes, strata))
        everyone = np.ones(len(part), bool)
        own_part = part[first_photos(bags, everyone, part, dataset, f"the part of split {settings.split!r}")]
    rows = {}
    for name, most in (("train", settings.max_train_samples), ("val", settings.max_val_samples)):
        there = np.flatnonzero((own_part == name) & usable)
        chooses = balanced if name == "val" and settings.val_sampling == "balanced" else stratified
        rows[name] = chooses(there, strata, most, generator(settings.seed, "sample", name, repeat, fold))
    for name, found in rows.items():
        fewest = 2 * fabric.world_size if name == "train" else 1
        if len(found) < fewest:
            raise InputError(
                f"split {settings.split!r}, fold {fold}: {name} holds {len(found)} labelled, readable "
                f"{'photos' if bags is None else 'cases'}; at least {fewest} are needed"
            )
    met = np.concatenate([rows["train"], rows["val"]])
    fitted_on = rows["train"]
    if bags is not None:
        met, fitted_on = (np.flatnonzero(np.isin(bags.case_of, cases)) for cases in (met, rows["train"]))
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(place, error) from None
    questionnaire = None
    if settings.head == "fusion":
        questionnaire = _learn_questionnaire(dataset, target, labels, fitted_on)
        if fabric.is_global_zero:
            write_json(place / QUESTIONNAIRE_FILE, questionnaire.to_dict())
    encoded = _encoded(dataset, questionnaire, bags)
    data = FoldData(
        photos.pixels,
        codes,
        rows["train"],
        rows["val"],
        len(target.classes),
        *encoded,
        views=photos.views,
        gains=photos.gains,
        objective=objective,
        bags=bags,
    )

    def log(event: str, **fields: Any) -> None:
        if fabric.is_global_zero:
            folder.log(event, repeat=repeat, fold=fold, **fields)

    seed = int(generator(settings.seed, "finetune", repeat, fold).integers(2**31))
    network, course, alarms = fit_fold(data, settings, place, runtime=runtime, seed=seed, log=log, fabric=fabric)
    told = np.flatnonzero(np.isin(part, ("val", "test")) & (readable if bags is None else bags.case_of >= 0))
    asked = told if bags is None else np.unique(bags.case_of[told])
    probabilities = predict_rows(
        network, data, asked, runtime=runtime, batch_size=settings.batch_size, tta=settings.tta, fabric=fabric
    )
    if bags is not None:  # every photo of a case carries the case's prediction
        probabilities = probabilities[np.searchsorted(asked, bags.case_of[told])]
    if not fabric.is_global_zero:
        return
    draw_curves(course.history, course.best_epoch, place / "curves")
    frame = pd.DataFrame(
        {
            "image_id": dataset.image_ids[told],
            "unit": dataset.units()[told],
            "group": dataset.groups()[told],
            "target": target.column,
            "split": part[told],
            "fold": fold,
            "repeat": repeat,
            "seed": settings.seed,
        }
    ).join(truth_columns(labels[told], target.classes))
    for code, name in enumerate(target.classes):
        frame[PROBABILITY + name] = probabilities[:, code]
    for column in subgroup_columns(dataset):
        frame[column] = dataset.manifest[column].to_numpy()[told]
    with atomic_path(place / "predictions.parquet") as temporary:
        frame.to_parquet(temporary, index=False)
    # Contents as they were read: by now the photos may be gone.
    contents = np.array(photos.pixels.content_hashes, dtype=str)
    seen = {"images": dataset.image_ids, "groups": dataset.groups(), "contents": contents}
    known = {name: np.unique(values[met]).tolist() for name, values in seen.items()}
    write_json(place / "seen.json", {"data": dataset.fingerprint, **known})
    where = f"repeat {repeat}, fold {fold}: " if (repeat or fold) else ""
    report = {
        "converged": not any(alarm.disqualifies for alarm in alarms),
        "warnings": [
            *(f"{where}{alarm.name}: {alarm.says}" for alarm in alarms),
            *prior_warning(labels, part, labelled, target.classes, repeat, fold),
            *case_warning(dataset, settings),
        ],
        "left_out": {} if questionnaire is None else questionnaire.dropped_,
        "alarms": [{"repeat": repeat, "fold": fold, **alarm.to_dict()} for alarm in alarms],
        "best_epoch": course.best_epoch,
        "history": course.history,
        "phases": course.phases,
        "n_train": len(rows["train"]),
        "n_val": len(rows["val"]),
        "fingerprint": state_fingerprint(network.state_dict()),
    }
    write_json(place / MODEL_FILE, {**model, "repeat": repeat, "fold": fold, "report": report})


def case_warning(dataset: Dataset, settings: FinetuneSettings) -> list[str]:
    """Say where the card scores images one by one, though the network saw whole cases."""
    if settings.case == "image" or dataset.card.unit != "image":
        return []
    return [f"case: {settings.case}, but the card scores images: each photo counts with its case's prediction"]


def coded(labels: np.ndarray, classes: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return which photos have a label, bool (N,); what a network is trained on; and strata to draw samples by.

    Trained on are class codes int64 (N,), or the labels themselves, float64 (N, C). Strata are the codes, or the sets
    of labels that occur, int64 (N,), -1 without any.
    """
    if labels.ndim == 1:
        codes = pd.Index(classes).get_indexer(pd.Index(labels)).astype(np.int64)
        return codes >= 0, codes, codes
    labelled = ~np.isnan(labels).all(axis=1)
    strata = np.unique(np.nan_to_num(labels), axis=0, return_inverse=True)[1].reshape(-1)
    return labelled, labels, np.where(labelled, strata, -1)


def stratified(rows: np.ndarray, codes: np.ndarray, most: int | None, random: np.random.Generator) -> np.ndarray:
    """Return at most ``most`` rows in their old order, the classes in their shares, each kept while there is room.

    Args:
        rows: int64, to choose from.
        codes: (N,) class codes of all photos.
        most: how many; None: all.
        random: draws.
    """
    if most is None or most >= len(rows):
        return rows
    shuffled = random.permutation(rows)
    own = codes[shuffled]
    # Each photo's place within its class, as a share: cutting the sorted shares takes every class alike.
    order = np.argsort(own, kind="stable")
    counts = np.bincount(own)
    place = np.empty(len(own))
    place[order] = np.arange(len(own)) - np.repeat(np.cumsum(counts) - counts, counts)
    share = np.where(place == 0, 0.0, (place + 0.5) / counts[own])
    return np.sort(shuffled[np.argsort(share, kind="stable")[:most]])


def balanced(rows: np.ndarray, codes: np.ndarray, most: int | None, random: np.random.Generator) -> np.ndarray:
    """Return as many rows of each class, in their old order: as the rarest has, and at most ``most`` in all.

    Args:
        rows: int64, to choose from; classes that none of them has are not missed.
        codes: (N,) class codes of all photos.
        most: how many in all; None: as many as the rarest class allows.
        random: draws.
    """
    shuffled = random.permutation(rows)
    found, counts = np.unique(codes[shuffled], return_counts=True)
    if not len(found):
        return rows
    each = int(counts.min()) if most is None else max(1, min(int(counts.min()), most // len(found)))
    return np.sort(np.concatenate([shuffled[codes[shuffled] == code][:each] for code in found]))


def _gains(pixels: Pixels, settings: FinetuneSettings, rows: np.ndarray | None = None) -> np.ndarray | None:
    from dermlab.data.loader import photo_gains

    if settings.colour_constancy == "none":
        return None
    return photo_gains(pixels, np.arange(len(pixels)) if rows is None else rows, settings.colour_constancy)


def _photos_with(bags: Bags, rows: np.ndarray) -> np.ndarray:
    """Return the photos of all cases that some photos belong to."""
    return np.flatnonzero(np.isin(bags.case_of, bags.case_of[rows]) & (bags.case_of >= 0))


def crop_source_px(settings: FinetuneSettings, preprocess: Preprocess) -> int | None:
    """Return the shorter side of the photos that random crops are cut from; None: the network's own photos.

    A crop of a photo that has the network's size already is enlarged again. By default the shorter side is 8/7 of it,
    256 for 224, as the field has it; where the fit adds borders, crops come from the bordered photo.
    """
    if settings.crop_from_px is not None:
        return None if settings.crop_from_px == preprocess.size_px else settings.crop_from_px
    augmentation = preset(settings.augmentation, preprocess.size_px, **settings.augmentation_changes)
    crops = augmentation.crop_scale[0] < 1
    if not crops or preprocess.size_px <= SMALL_PX or preprocess.fit not in ("crop", "squash"):
        return None
    return round(preprocess.size_px * 8 / 7)


def _learn_questionnaire(
    dataset: Dataset, target: Target, labels: np.ndarray, train: np.ndarray
) -> QuestionnaireEncoder:
    """Return the questionnaire's encoder, learned on the training rows alone; label proxies are no part of it."""
    frame = dataset.questionnaire()
    columns = [item for item in dataset.card.metadata if item.column in frame and item.column != target.column]
    encoder = QuestionnaireEncoder().fit(frame.iloc[train], labels[train], columns, groups=dataset.groups()[train])
    if not encoder.feature_names_:
        reasons = "; ".join(f"{column}: {reason}" for column, reason in encoder.dropped_.items())
        raise InputError(f"{dataset.folder}: no questionnaire column is left: {reasons}")
    return encoder


def _encoded(
    dataset: Dataset, encoder: QuestionnaireEncoder | None, bags: Bags | None
) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    """Return questionnaires, whether anything of each was filled in, and a blank one; a case has its first filled one.

    Each of photos or cases: float32 (N, Q), bool (N,), float32 (Q,).
    """
    if encoder is None:
        return None, None, None
    frame = dataset.questionnaire(exclude_proxies=False)
    present = frame[encoder.kept_].notna().any(axis=1).to_numpy()
    encoded, blank = encoder.transform(frame), np.asarray(encoder.blank(), np.float32).reshape(-1)
    if bags is None:
        return encoded, present, blank
    filled = np.flatnonzero(present & (bags.case_of >= 0))
    cases, first = np.unique(bags.case_of[filled], return_index=True)
    rows = bags.rows[bags.starts[:-1]]
    rows[cases] = filled[first]
    return encoded[rows], present[rows], blank


def _description(
    dataset: Dataset, settings: FinetuneSettings, target: Target, identity: EncoderIdentity, runtime: Runtime
) -> dict[str, Any]:
    described = identity.to_dict()
    return {
        "format": 1,
        "kind": KIND,
        "name": f"{settings.encoder} finetuned + {settings.head}",
        "settings": FinetuneSettings.model_validate(
            settings.model_dump(include=set(FinetuneSettings.model_fields))
        ).model_dump(mode="json"),
        "encoder": described,
        "encoder_name": None,  # the network in the folder looks at the photos itself: there is nothing to embed
        "seed": settings.seed,
        "runtime": runtime.to_dict(),
        "target": target.model_dump(mode="json"),
        "unit": dataset.card.unit,
        "pooling": dataset.card.pooling,
        "lineage": {
            "dataset": dataset.card.name,
            "data_fingerprint": dataset.fingerprint,
            "split": settings.split,
            "encoder": identity.name,
            "encoder_fingerprint": identity.fingerprint,
            **made_from(dataset, described),
            "waived": list(settings.waive),
        },
    }


class FittedFinetune(FittedRun):
    """A saved fine-tuning run, ready to predict; it is asked as :class:`dermlab.adapt.probe.FittedProbe` is."""

    NOT_HERE: ClassVar[str] = "holds no fine-tuned network; 'dermlab finetune' makes one"

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open a run folder.

        Raises:
            InputError: it holds no finished fine-tuning run.
        """
        found = super().open(path)
        if found.model.get("kind") != KIND:
            raise InputError(f"{path}: {cls.NOT_HERE}")
        return found

    def predict(
        self,
        dataset: Dataset,
        features: None = None,
        *,
        runtime: Runtime | None = None,
        batch_size: int | None = None,
        epoch: Literal["best", "last"] = "best",
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return what :meth:`FittedRun.average` does; a photo that cannot be read has a row of NaN.

        Args:
            dataset: whose photos, and questionnaire where the network wants one.
            features: always None; the network looks at the photos.
            runtime: device and precision (default: what there is here, in the recipe's precision).
            batch_size: photos at a time (default: the recipe's).
            epoch: whose weights: the best on val, or the last one trained.
        """
        from dermlab.adapt.finetune.fit import predict_rows

        runtime = runtime or resolve("auto", self.model["settings"]["precision"])

        def found_by(place: Path) -> np.ndarray:
            network, settings = load_network(place, epoch=epoch)
            data = self.fold_data(
                dataset, place, settings, open_pixels(dataset.paths, network.backbone.preprocess.recipe())
            )
            found = predict_rows(
                network.to(runtime.device),
                data,
                np.arange(len(data.codes)),
                runtime=runtime,
                batch_size=batch_size or settings.batch_size,
                tta=settings.tta,
            )
            if data.bags is None:
                return found
            case_of = data.bags.case_of
            return np.where(case_of[:, None] >= 0, found[case_of], np.nan)

        return self.average(dataset, photo_contents(dataset), found_by)

    def fold_data(
        self,
        dataset: Dataset,
        place: Path,
        settings: FinetuneSettings,
        pixels: Pixels,
        rows: np.ndarray | None = None,
    ) -> FoldData:
        """Return what the network of a fold is shown, to ask it about.

        Args:
            dataset: whose questionnaire, and which photos belong together.
            place: the fold's folder.
            settings: the recipe.
            pixels: the photos under the network's recipe, as they are or something made of them.
            rows: the photos that will be asked about, for colour constancy; None: all.
        """
        from dermlab.adapt.finetune.fit import FoldData

        encoder = questionnaire_encoder(place)
        nobody = np.zeros(0, np.int64)
        bags = _find_bags(dataset, settings, pixels)
        codes = np.full(len(dataset if bags is None else bags), -1, np.int64)
        encoded = _encoded(dataset, encoder, bags)
        return FoldData(
            pixels,
            codes,
            nobody,
            nobody,
            len(self.classes),
            *encoded,
            gains=_gains(pixels, settings, rows if bags is None or rows is None else _photos_with(bags, rows)),
            objective=objective_of(self.model),
            bags=bags,
        )


def open_fitted(path: str | Path) -> FittedProbe | FittedFinetune:
    """Open a run folder, of a probe or of a fine-tuned network.

    Raises:
        InputError: it holds no finished run.
    """
    first = next(iter(sorted(Path(path).glob(f"checkpoints/*/{MODEL_FILE}"))), None)
    tuned = first is not None and read_json(first).get("kind") == KIND
    return FittedFinetune.open(path) if tuned else FittedProbe.open(path)


def objective_of(model: dict[str, Any]) -> Objective:
    """Return what the network of a saved fold was trained for."""
    from dermlab.adapt.finetune.losses import Objective

    settings = FinetuneSettings.model_validate(model["settings"])
    return Objective.of(Target.model_validate(model["target"]), settings)


def load_network(place: str | Path, *, epoch: Literal["best", "last"] = "best") -> tuple[Any, FinetuneSettings]:
    """Return a fold's network with its trained weights, in eval mode, and its recipe.

    The first weights are not needed: the architecture is built with random ones, and all are replaced.

    Args:
        place: the fold's folder.
        epoch: the best on val, which a run predicts with, or the last one trained (averaged weights where it has them).

    Raises:
        InputError: the folder holds no fold, or its weights are not this network's.
    """
    from dermlab.adapt.finetune.fit import BEST_FILE, LAST_FILE
    from dermlab.adapt.finetune.network import build_network
    from dermlab.models.preprocess import Preprocess
    from dermlab.models.weights import load_strictly
    from dermlab.training.checkpoint import load_checkpoint

    place = Path(place)
    model = read_json(place / MODEL_FILE)
    settings = validate(FinetuneSettings, model["settings"], source=str(place / MODEL_FILE))
    encoder = model["encoder"]
    preprocess = Preprocess.from_dict(encoder["preprocess"])
    bare = settings
    if encoder["library"] in ("timm", "torchvision") and not settings.encoder.endswith("+random"):
        name = f"{encoder['library']}:{encoder['architecture']}+random"
        bare = settings.model_copy(update={"encoder": name, "size_px": preprocess.size_px})
    encoded = questionnaire_encoder(place)
    n_questionnaire = 0 if encoded is None else len(encoded.feature_names_)
    network = build_network(bare, objective_of(model).n_outputs, n_questionnaire)
    file = place / (BEST_FILE if epoch == "best" else LAST_FILE)
    weights, _ = load_checkpoint(file)
    if epoch == "last":  # beside the state of the optimiser
        judged = "average/" if any(name.startswith("average/") for name in weights) else "network/"
        weights = {name.removeprefix(judged): value for name, value in weights.items() if name.startswith(judged)}
    load_strictly(network, weights, str(file))
    network.backbone.preprocess = preprocess
    network.backbone.identity = replace(network.backbone.identity, preprocess=preprocess)
    return network.eval(), settings
