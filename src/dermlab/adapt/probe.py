"""The probe: a frozen encoder's features and the questionnaire, one head fitted per fold, every image predicted.

``train`` fits, ``val`` chooses, ``test`` is predicted and not looked at until the figures are written. What a fold has
finished is kept: an interrupted run goes on with the next fold.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import pandas as pd

from dermlab.adapt.config import DEFAULT_SPLIT, HeadConfig, ProbeSettings
from dermlab.adapt.heads import make_head
from dermlab.adapt.saving import load_head, save_head
from dermlab.core.config import Config
from dermlab.core.errors import InputError
from dermlab.core.files import atomic_path, read_json, write_json
from dermlab.core.fingerprint import hash_json
from dermlab.core.progress import progress, warn
from dermlab.core.randomness import generator
from dermlab.core.runs import RunFolder
from dermlab.data.metadata import QuestionnaireEncoder
from dermlab.data.splits import split_by_fraction
from dermlab.evaluate.cases import case_sets
from dermlab.evaluate.metrics import Evaluation
from dermlab.evaluate.predictions import (
    LEADING,
    PROBABILITY,
    Predictions,
    read_predictions,
    truth_columns,
    write_predictions,
)
from dermlab.evaluate.summary import summarise
from dermlab.licensing import contamination_warning, read_card
from dermlab.models.known import require_known

if TYPE_CHECKING:
    from dermlab.core.device import Runtime
    from dermlab.data.card import Target
    from dermlab.data.dataset import Dataset
    from dermlab.features.extract import Features

WITHOUT_ENCODER = ("questionnaire", "majority")
WITH_QUESTIONNAIRE = ("questionnaire", "fusion")
SUBGROUP_COLUMNS = ("sex", "gender", "age", "skin_type", "site", "modality")
MODEL_FILE = "model.json"
QUESTIONNAIRE_FILE = "questionnaire.json"
SEEN_FILE = "seen.json"
ENCODER_FOLDER = "encoder"
"""In what was pushed: the frozen encoder, where it was made here and nobody could fetch it by its name."""
PUSHED_FILE = "config.json"
"""At the top of what was pushed: what the model is. A run folder of this machine has its ``config.yaml`` instead."""

# Class shares of val and test that differ by more than this (total variation) and significantly are worth a warning.
PRIOR_DISTANCE = 0.1
PRIOR_P = 0.01


@dataclass(frozen=True)
class ProbeResult:
    """What a probe left in its run folder.

    Attributes:
        path: the run folder.
        metrics: the content of ``metrics.json``.
        val_score: the choosing metric on val, averaged over folds and repeats.
        val_metric: its name; of log_loss the lower is the better; "" in runs of an older dermlab.
        converged: whether every head says so.
        warnings: what a reader of the figures has to know.
        seconds: embedding, fitting and predicting, without what was known before.
        images_per_second: of the embedding; 0 where all features were known or there is no encoder.
    """

    path: Path
    metrics: dict[str, Any]
    val_score: float
    converged: bool
    warnings: tuple[str, ...]
    seconds: float
    images_per_second: float
    val_metric: str = ""

    def predictions(self) -> Predictions:
        """Read the run's predictions table."""
        return read_predictions(self.path / "predictions.parquet")


@dataclass(frozen=True)
class _Inputs:
    """What every fold sees: arrays in the manifest's order."""

    embedding: np.ndarray | None  # float32 (N, D)
    usable: np.ndarray  # bool (N,): has a photo where one is needed
    labels: np.ndarray  # object (N,), None where missing; multilabel: float64 (N, C)
    questionnaire: pd.DataFrame | None
    groups: np.ndarray  # str (N,)
    target: Target
    contents: np.ndarray | None = None  # str (N,), content hashes of the photos; None for heads that see none

    @property
    def labelled(self) -> np.ndarray:
        """Whether each image has a label, bool (N,)."""
        if self.labels.ndim == 2:
            return ~np.isnan(self.labels).all(axis=1)
        return np.array([label is not None for label in self.labels], dtype=bool)


def run_probe(
    dataset: Dataset,
    settings: ProbeSettings,
    out: str | Path,
    *,
    features: Features | None = None,
    runtime: Runtime | None = None,
    batch_size: int | None = None,
    record: Config | None = None,
) -> ProbeResult:
    """Fit a head on every fold of a split and write the run folder; a finished run is read and not repeated.

    Args:
        dataset: the data set folder.
        settings: encoder, head, split, target, seed, caps.
        out: the run folder.
        features: the encoder's features of this data set; None: they are embedded here.
        runtime: device and precision of the embedding.
        batch_size: photos at a time in the embedding.
        record: what ``config.yaml`` keeps; None: the settings.

    Raises:
        InputError: the split, the target, the encoder or the questionnaire will not do, or ``out`` holds another run.
    """
    target = dataset.card.target(settings.target)
    settings = _for_target(settings, target)
    head = settings.head
    check_encoder(settings, embedded=features is not None)
    check_decision(settings.decision, target)
    split = read_or_make_split(dataset, settings.split, target.column, settings.seed)
    folder = RunFolder.create(out, record or settings, "probe")
    made_with = inputs_of(dataset, split, settings.encoder)
    if folder.done:
        refuse_other_inputs(folder.path, made_with)
        return read_probe(folder.path)
    start = time.monotonic()
    if features is None and settings.encoder is not None:
        from dermlab.features.extract import embed

        features = embed(dataset, settings.encoder, runtime=runtime, batch_size=batch_size, seed=settings.seed)
    inputs = _inputs(dataset, settings, target, features)
    made_with["encoder"] = features.encoder["fingerprint"] if features is not None else None
    refuse_other_inputs(folder.path, made_with)
    warnings = _input_warnings(inputs, features, settings)
    if features is not None:
        warnings += contaminations(features.encoder, dataset)
    parts: list[pd.DataFrame] = []
    reports: list[dict[str, Any]] = []
    keys = split[["repeat", "fold"]].drop_duplicates().to_numpy(np.int64).tolist()
    folds = [(repeat, fold, assignment(split, repeat, fold)) for repeat, fold in keys]
    model = _model_description(dataset, settings, target, features)
    with progress(f"fit {head.kind}", len(folds), "folds") as advance:
        for repeat, fold, part in folds:
            place = folder.path / "checkpoints" / f"repeat{repeat}-fold{fold}"
            if not (place / MODEL_FILE).exists():
                _fit_fold(inputs, settings, part, repeat, fold, dataset, place, model)
                folder.log("fold", repeat=repeat, fold=fold, report=read_json(place / MODEL_FILE)["report"])
            parts.append(pd.read_parquet(place / "predictions.parquet"))
            reports.append(read_json(place / MODEL_FILE)["report"])
            advance(1)
    for report in reports:
        warnings += [text for text in report["warnings"] if text not in warnings]
    warnings += left_out_words([report["left_out"] for report in reports])
    seconds = time.monotonic() - start
    frame = pd.concat(parts, ignore_index=True)
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
    predictions = write_predictions(folder.path / "predictions.parquet", frame, meta)
    metrics = summarise(predictions, n_boot=settings.n_boot, seed=settings.seed)
    metrics["warnings"] = list(dict.fromkeys([*warnings, *metrics["warnings"]]))
    write_json(folder.path / "metrics.json", metrics)
    found = case_sets(predictions, "val")
    folder.finish(
        val_score=Evaluation(found.sets, [settings.metric]).value()[settings.metric],
        val_metric=settings.metric,
        converged=all(report["converged"] for report in reports),
        warnings=metrics["warnings"],
        seconds=seconds,
        images_per_second=features.images_per_second if features is not None else 0.0,
    )
    return read_probe(folder.path)


def check_encoder(settings: ProbeSettings, *, embedded: bool = False) -> None:
    """Refuse an encoder that there is not, or that the head has no use for, before anything is made or written.

    Args:
        settings: encoder and head.
        embedded: the features are there, whatever made them is called.
    """
    if settings.head.kind in WITHOUT_ENCODER and settings.encoder is not None:
        raise InputError(f"the head {settings.head.kind!r} looks at no photo; leave --encoder out")
    if settings.head.kind not in WITHOUT_ENCODER and settings.encoder is None:
        raise InputError(f"the head {settings.head.kind!r} needs --encoder; 'dermlab encoders' lists the names")
    if not embedded:
        require_known({"encoder": settings.encoder})


def read_probe(path: str | Path) -> ProbeResult:
    """Read a finished probe's run folder.

    Raises:
        InputError: the folder holds no finished probe.
    """
    path = Path(path)
    if not (path / "done.json").exists() or not (path / "metrics.json").exists():
        raise InputError(f"{path}: holds no finished run; 'dermlab probe … --out {path}' makes one")
    done = read_json(path / "done.json")
    return ProbeResult(
        path=path,
        metrics=read_json(path / "metrics.json"),
        val_score=done["val_score"] if done["val_score"] is not None else float("nan"),
        val_metric=done.get("val_metric", ""),
        converged=done["converged"],
        warnings=tuple(done["warnings"]),
        seconds=done["seconds"],
        images_per_second=done["images_per_second"],
    )


def read_or_make_split(dataset: Dataset, name: str, target: str, seed: int) -> pd.DataFrame:
    """Return a split; the default one is made where it is missing, and told."""
    if name == DEFAULT_SPLIT and name not in dataset.split_names():
        frame = split_by_fraction(dataset, (0.6, 0.2, 0.2), target=target, seed=seed)
        dataset.write_split(name, frame)
        warn(
            f"{dataset.folder} had no split {name!r}; made one: 60/20/20 by {dataset.group_column()}, seed {seed} "
            "('dermlab data split' makes others)"
        )
    return dataset.read_split(name)


def assignment(split: pd.DataFrame, repeat: int, fold: int) -> np.ndarray:
    """Return the part of every image in one (repeat, fold), str (N,), in the manifest's order."""
    return split.loc[(split["repeat"] == repeat) & (split["fold"] == fold), "split"].to_numpy(str)


def _inputs(dataset: Dataset, settings: ProbeSettings, target: Target, features: Features | None) -> _Inputs:
    questionnaire = None
    if settings.head.kind in WITH_QUESTIONNAIRE or settings.head.with_questionnaire:
        proxies = set(dataset.card.label_proxies)
        for column in settings.include_columns:
            if column not in {item.column for item in dataset.card.metadata}:
                raise InputError(f"include_columns: {column!r} is no questionnaire column of {dataset.folder}")
            if column in proxies and f"proxy:{column}" not in settings.waive:
                raise InputError(
                    f"include_columns: {column!r} gives the label away (label_proxies in {dataset.folder}/card.yaml); "
                    f"to measure the leak all the same: --waive proxy:{column}"
                )
        questionnaire = dataset.questionnaire(exclude_proxies=False)
        kept = [name for name in questionnaire.columns if name not in proxies or name in settings.include_columns]
        kept = [name for name in kept if name != target.column]
        questionnaire = questionnaire[kept]
        if not kept:
            raise InputError(
                f"{dataset.folder}/card.yaml: lists no questionnaire columns (metadata:), which the head "
                f"{settings.head.kind!r} needs"
            )
    usable = np.ones(len(dataset), bool) if features is None else features.valid
    inputs = _Inputs(
        embedding=None if features is None else features.values,
        usable=usable,
        labels=dataset.labels(target.column),
        questionnaire=questionnaire,
        groups=dataset.groups(),
        target=target,
        contents=None if features is None else photo_contents(dataset),
    )
    return inputs


def _fit_fold(
    inputs: _Inputs,
    settings: ProbeSettings,
    part: np.ndarray,
    repeat: int,
    fold: int,
    dataset: Dataset,
    place: Path,
    model: dict[str, Any],
) -> None:
    """Fit one fold's head and leave its model and predictions in ``place``."""
    fit_rows = {
        name: _capped(
            np.flatnonzero((part == name) & inputs.usable & inputs.labelled),
            inputs.labels,
            cap,
            generator(settings.seed, "cap", name, repeat, fold),
        )
        for name, cap in (("train", settings.max_train_per_class), ("val", settings.max_val_per_class))
    }
    train, val = fit_rows["train"], fit_rows["val"]
    if not len(train):
        raise InputError(f"split {settings.split!r}, fold {fold}: no labelled training photo")
    encoder = None
    if inputs.questionnaire is not None:
        columns = [item for item in dataset.card.metadata if item.column in inputs.questionnaire.columns]
        encoder = QuestionnaireEncoder().fit(
            inputs.questionnaire.iloc[train], inputs.labels[train], columns, groups=inputs.groups[train]
        )
        if settings.head.kind == "questionnaire" and not encoder.feature_names_:
            raise InputError(
                f"{dataset.folder}: no questionnaire column is left: "
                + "; ".join(f"{column}: {reason}" for column, reason in encoder.dropped_.items())
            )
    X = assemble(inputs.embedding, inputs.questionnaire, encoder, len(part))
    head = make_head(
        _with_choice(settings),
        seed=_fold_seed(settings.seed, repeat, fold),
        n_embedding=None if inputs.embedding is None else inputs.embedding.shape[1],
        blocks=None if encoder is None else encoder.blocks_,
        # Where classes exclude each other those of the fold's photos are enough; a column of labels has no other name.
        classes=inputs.target.classes if inputs.labels.ndim == 2 else None,
    )
    labels = inputs.labels
    known = labels.astype(str) if labels.ndim == 1 else labels
    head.fit(
        X[train],
        known[train],
        validation=(X[val], known[val]) if len(val) else None,
        groups=inputs.groups[train],
    )
    rows = np.flatnonzero(np.isin(part, ("val", "test")) & inputs.usable)
    probabilities = over_classes(head.predict_proba(X[rows]), head.classes_, inputs.target.classes)
    frame = pd.DataFrame(
        {
            "image_id": dataset.image_ids[rows],
            "unit": dataset.units()[rows],
            "group": inputs.groups[rows],
            "target": inputs.target.column,
            "split": part[rows],
            "fold": fold,
            "repeat": repeat,
            "seed": settings.seed,
        }
    ).join(truth_columns(labels[rows], inputs.target.classes))
    for code, name in enumerate(inputs.target.classes):
        frame[PROBABILITY + name] = probabilities[:, code]
    for column in subgroup_columns(dataset):
        frame[column] = dataset.manifest[column].to_numpy()[rows]
    place.mkdir(parents=True, exist_ok=True)
    with atomic_path(place / "predictions.parquet") as temporary:
        frame.to_parquet(temporary, index=False)
    save_head(head, place)
    report = dict(head.head_report_)
    warnings = [
        *report.get("warnings", []),
        *prior_warning(labels, part, inputs.labelled, inputs.target.classes, repeat, fold),
    ]
    if encoder is not None:
        write_json(place / QUESTIONNAIRE_FILE, encoder.to_dict())
    report |= {
        "converged": bool(report.get("converged", True)),
        "warnings": warnings,
        "left_out": {} if encoder is None else encoder.dropped_,
        "n_train": len(train),
        "n_val": len(val),
        "fingerprint": hash_json([report, dataset.fingerprint, settings.model_dump(mode="json"), repeat, fold]),
    }
    met = np.concatenate([train, val])
    seen = {"images": dataset.image_ids, "groups": inputs.groups, "contents": inputs.contents}
    met_ids = {name: np.unique(values[met]).tolist() for name, values in seen.items() if values is not None}
    write_json(place / SEEN_FILE, {"data": dataset.fingerprint, **met_ids})
    write_json(place / MODEL_FILE, {**model, "repeat": repeat, "fold": fold, "report": report})


def _for_target(settings: ProbeSettings, target: Target) -> ProbeSettings:
    """Return the settings as a target can use them; what it cannot use is refused in one line."""
    if target.kind != "multilabel":
        if settings.metric == "quadratic_kappa" and target.kind != "ordinal":
            raise InputError(
                f"metric: quadratic_kappa needs a target of kind ordinal; {target.column!r} is {target.kind}"
            )
        return settings
    for name, value in (
        ("max_train_per_class", settings.max_train_per_class),
        ("max_val_per_class", settings.max_val_per_class),
    ):
        if value is not None:
            raise InputError(f"{name}: counts photos of one class; {target.column!r} has several labels a photo")
    if settings.head.choose_by == "top1" or settings.metric == "quadratic_kappa":
        raise InputError(
            f"metric: top1 and quadratic_kappa are for one label a photo; {target.column!r} has several: auroc, auprc, "
            "macro_f1, balanced_accuracy"
        )
    return settings.model_copy(update={"metric": "auroc"}) if settings.metric == "top1" else settings


def check_decision(decision: str, target: Target) -> None:
    """Refuse to decide by costs where the card has none.

    Raises:
        InputError: the target has no cost matrix, or several labels an image.
    """
    if decision == "cost" and (target.cost_matrix is None or target.kind == "multilabel"):
        why = "has several labels a photo" if target.kind == "multilabel" else "has no cost_matrix in card.yaml"
        raise InputError(f"decision: cost weighs errors between classes; the target {target.column!r} {why}")


def decided_by(decision: str, target: Target) -> dict[str, Any]:
    """Return what a predictions table's sidecar says of how decisions follow from probabilities."""
    if decision != "cost":
        return {}
    return {"decision": "cost", "cost_matrix": target.model_dump(mode="json")["cost_matrix"]}


def left_out_words(left_out: Sequence[dict[str, str]]) -> list[str]:
    """Say once which questionnaire columns were left out in how many folds, and why (the first fold's reason)."""
    folds: dict[str, int] = {}
    reasons: dict[str, str] = {}
    for one in left_out:
        for column, reason in one.items():
            folds[column] = folds.get(column, 0) + 1
            reasons.setdefault(column, reason)
    alike: dict[tuple[str, int], list[str]] = {}
    for column, reason in reasons.items():
        alike.setdefault((reason, folds[column]), []).append(column)
    said = []
    for (reason, n), columns in alike.items():
        where = "" if n == len(left_out) else f" in {n} of {len(left_out)} folds"
        said.append(f"questionnaire: {', '.join(columns)} left out{where}: {reason}")
    return said


def assemble(
    embedding: np.ndarray | None,
    questionnaire: pd.DataFrame | None,
    encoder: QuestionnaireEncoder | None,
    n: int,
) -> np.ndarray:
    """Put embedding and encoded questionnaire side by side, float32 (N, D + Q); zeros (N, 1) where there is neither."""
    blocks = [] if embedding is None else [embedding]
    if questionnaire is not None and encoder is not None:
        blocks.append(encoder.transform(questionnaire))
    if not blocks:
        return np.zeros((n, 1), np.float32)
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks, axis=1)


def over_classes(probabilities: np.ndarray, known: Sequence[Any] | np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """Return probabilities (N, C) over all classes of the target; a class that training lacked gets 0."""
    result = np.zeros((len(probabilities), len(classes)))
    place = pd.Index(classes).get_indexer(pd.Index([str(name) for name in known]))
    result[:, place] = probabilities
    return result


def subgroup_columns(dataset: Dataset) -> list[str]:
    """Return the manifest's columns by which results are broken down: sex, age, skin type, site, the questionnaire.

    Columns that give the label away are none, and a column named as one of the table's own would displace it.
    """
    asked = [item.column for item in dataset.card.metadata if item.column not in dataset.card.label_proxies]
    wanted = dict.fromkeys([*SUBGROUP_COLUMNS, *asked])
    return [column for column in wanted if column in dataset.manifest and column not in LEADING]


def _capped(rows: np.ndarray, labels: np.ndarray, cap: int | None, random: np.random.Generator) -> np.ndarray:
    """Return at most ``cap`` rows of each class, drawn at random, in their old order."""
    if cap is None:
        return rows
    shuffled = random.permutation(rows)
    place = pd.Series(labels[shuffled].astype(str)).groupby(labels[shuffled].astype(str)).cumcount().to_numpy()
    return np.sort(shuffled[place < cap])


def _with_choice(settings: ProbeSettings) -> HeadConfig:
    """Return the head's config; ``k`` is chosen by the run's own metric unless the config says otherwise.

    Logarithmic loss, which the other heads choose by, always wants many neighbours: among rare classes that is the
    majority's answer for everybody, whatever metric was asked for.
    """
    head = settings.head
    if head.kind != "knn" or head.choose_by is not None or settings.metric == "quadratic_kappa":
        return head  # heads know no order of the classes
    return head.model_copy(update={"choose_by": settings.metric})


def _fold_seed(seed: int, repeat: int, fold: int) -> int:
    return int(generator(seed, "head", repeat, fold).integers(2**31))


def prior_warning(
    labels: np.ndarray, part: np.ndarray, labelled: np.ndarray, classes: Sequence[str], repeat: int, fold: int
) -> list[str]:
    """Warn where val and test mix the classes differently: what is chosen on one may not suit the other."""
    from scipy.stats import chi2_contingency

    where = f"repeat {repeat}, fold {fold}: " if (repeat or fold) else ""
    if labels.ndim == 2:
        return _label_share_warning(labels, part, classes, where)
    counts = np.array(
        [
            pd.Series(labels[(part == name) & labelled]).value_counts().reindex(list(classes)).fillna(0)
            for name in ("val", "test")
        ]
    )
    counts = counts[:, counts.sum(axis=0) > 0]
    if counts.shape[1] < 2 or (counts.sum(axis=1) == 0).any():
        return []
    shares = counts / counts.sum(axis=1, keepdims=True)
    distance = float(np.abs(shares[0] - shares[1]).sum() / 2)
    p = float(chi2_contingency(counts)[1])
    if distance <= PRIOR_DISTANCE or p >= PRIOR_P:
        return []
    return [
        f"{where}val and test hold the classes in different shares (total variation {distance:.2f}, p = {p:.2g}): "
        "what is chosen on val may not suit test"
    ]


def _label_share_warning(labels: np.ndarray, part: np.ndarray, classes: Sequence[str], where: str) -> list[str]:
    """Warn of labels that val and test hold in different shares, each tested at the level divided by their number."""
    from scipy.stats import fisher_exact

    found = []
    for code, name in enumerate(classes):
        sides = [labels[part == side, code] for side in ("val", "test")]
        sides = [side[~np.isnan(side)] for side in sides]
        if not all(len(side) for side in sides):
            continue
        p = fisher_exact([[side.sum(), len(side) - side.sum()] for side in sides]).pvalue
        if abs(sides[0].mean() - sides[1].mean()) > PRIOR_DISTANCE and p < PRIOR_P / len(classes):
            found.append(name)
    if not found:
        return []
    return [f"{where}val and test hold {', '.join(found)} in different shares: what is chosen on val may not suit test"]


def _input_warnings(inputs: _Inputs, features: Features | None, settings: ProbeSettings) -> list[str]:
    warnings = []
    if features is not None and features.failures:
        first = next(iter(features.failures.values()))
        warnings.append(f"{len(features.failures)} photos cannot be read and are left out (the first: {first})")
    unlabelled = int((~inputs.labelled).sum())
    if unlabelled:
        warnings.append(f"{unlabelled} photos have no label for {inputs.target.column!r}: predicted, not scored")
    warnings += [f"waived: {name}" for name in settings.waive]
    return warnings


def contaminations(encoder: dict[str, Any] | None, dataset: Dataset) -> list[str]:
    """Return the warning that an encoder knows this very data set; none where no licence card says so."""
    if encoder is None:
        return []
    weights = [encoder.get("licence_card"), *encoder.get("lineage", ())]
    found = contamination_warning(encoder["name"], weights, dataset.card.licence_card)
    return [] if found is None else [found]


def _model_description(
    dataset: Dataset, settings: ProbeSettings, target: Target, features: Features | None
) -> dict[str, Any]:
    encoder = None if features is None else features.encoder
    name = settings.head.kind if encoder is None else f"{settings.encoder} + {settings.head.kind}"
    return {
        "format": 1,
        "name": name,
        "head": settings.head.model_dump(mode="json"),
        "encoder": encoder,
        "encoder_name": settings.encoder,
        "seed": settings.seed,  # random weights were drawn from it
        "runtime": None if features is None else features.runtime,
        "target": target.model_dump(mode="json"),
        "unit": dataset.card.unit,
        "pooling": dataset.card.pooling,
        "lineage": {
            "dataset": dataset.card.name,
            "data_fingerprint": dataset.fingerprint,
            "split": settings.split,
            "encoder": None if encoder is None else encoder["name"],
            "encoder_fingerprint": None if encoder is None else encoder["fingerprint"],
            **made_from(dataset, encoder),
            "waived": list(settings.waive),
        },
    }


def made_from(dataset: Dataset, *encoders: dict[str, Any] | None) -> dict[str, Any]:
    """Return what ``dermlab triage`` reads of an artefact: the cards of its weights, what its data set's card says.

    Weights of which nobody knows the terms stand there by their name. The card of weights that were made here lies in
    their folder; its content comes along, for an artefact has to tell its terms wherever it is taken.
    """
    terms = {"name", "licence", "licence_card", "citation", "source"}
    names = dict.fromkeys(card for encoder in encoders for card in encoder_cards(encoder))
    own = {name: read_card(name) for name in names if Path(name).is_file()}
    return {
        "cards": [own[name].id if name in own else name for name in names],
        "own_cards": [card.model_dump(mode="json", exclude_defaults=True) for card in own.values()],
        "data_card": dataset.card.model_dump(mode="json", include=terms),
    }


def encoder_cards(encoder: dict[str, Any] | None) -> list[str]:
    """Return the licence cards of an encoder's weights; nobody's weights (a histogram, random ones) need none."""
    if encoder is None or encoder["name"] == "histogram" or encoder["name"].endswith("+random"):
        return []
    return [encoder.get("licence_card") or encoder["name"]]


def inputs_of(dataset: Dataset, split: pd.DataFrame, encoder: str | None) -> dict[str, Any]:
    """Return the fingerprints of what a probe stands on: manifest and card, split, photos where it sees them."""
    return {
        "data": dataset.fingerprint,
        "split": split_fingerprint(split),
        "photos": None if encoder is None else hash_json(photo_contents(dataset).tolist()),
    }


def split_fingerprint(split: pd.DataFrame) -> str:
    """Return the fingerprint of who is in which part."""
    return hash_json(split.astype(str).to_dict(orient="list"))


def refuse_other_inputs(path: Path, made_with: dict[str, Any]) -> None:
    """Refuse a run, finished or not, whose data, split or weights (as far as they are given) have changed since."""
    file = path / "inputs.json"
    if file.exists():
        begun = read_json(file)
        changed = [key for key, value in made_with.items() if begun.get(key) != value]
        if changed:
            raise InputError(
                f"{path}: was begun with other {' and '.join(changed)}; choose another --out or delete that folder"
            )
    else:
        write_json(file, made_with)


@dataclass(frozen=True)
class FittedRun:
    """A saved run, a model in each of its folds.

    Attributes:
        path: its run folder.
        model: what ``model.json`` of its first fold says.
        folds: the checkpoint folders.
    """

    path: Path
    model: dict[str, Any]
    folds: tuple[Path, ...]

    NOT_HERE: ClassVar[str] = "holds no checkpoints; 'dermlab probe' makes them"

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open a run folder, or what ``dermlab push`` sent of one, downloaded again.

        Raises:
            InputError: it holds no finished run.
        """
        if not (Path(path) / PUSHED_FILE).is_file():
            read_probe(path)
        folds = tuple(sorted(Path(path).glob(f"checkpoints/*/{MODEL_FILE}")))
        if not folds:
            raise InputError(f"{path}: {cls.NOT_HERE}")
        model = read_json(folds[0])
        along = Path(path) / ENCODER_FOLDER
        if model.get("encoder_name") == ENCODER_FOLDER and along.is_dir():
            model["encoder_name"] = str(along)
        return cls(Path(path), model, tuple(file.parent for file in folds))

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes in order."""
        return tuple(self.model["target"]["classes"])

    @property
    def tells_what_it_saw(self) -> bool:
        """Whether every fold says which photos and patients it has met; what was pushed does not."""
        return all((place / SEEN_FILE).is_file() for place in self.folds)

    def average(
        self, dataset: Dataset, contents: np.ndarray | None, found_by: Callable[[Path], np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return probabilities (N, C) and whether each image could only be judged by folds that had seen it, bool (N,).

        The folds' probabilities are averaged. A fold that trained or chose on an image, or on another of the same
        patient, is not asked about it as long as another is left. A fold that does not tell what it saw is asked about
        every image.

        Args:
            dataset: whose images.
            contents: content hash of each photo, str (N,), by which they are known wherever they lie; None: images
                are known in the very data set that the run was fitted on only.
            found_by: returns the probabilities (N, C) of the fold in a folder.
        """
        total = np.zeros((len(dataset), len(self.classes)))
        everyone = np.zeros_like(total)
        asked = np.zeros(len(dataset))
        for place in self.folds:
            found = found_by(place)
            file = place / SEEN_FILE
            fresh = ~was_seen(read_json(file), dataset, contents) if file.is_file() else np.ones(len(dataset), bool)
            total[fresh] += found[fresh]
            asked += fresh
            everyone += found / len(self.folds)
        none_left = asked == 0
        return np.where(none_left[:, None], everyone, total / np.maximum(asked, 1)[:, None]), none_left


class FittedProbe(FittedRun):
    """A saved probe, ready to predict."""

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open a run folder.

        Raises:
            InputError: it holds no finished run, or that of a fine-tuned network.
        """
        found = super().open(path)
        if "kind" in found.model:
            raise InputError(
                f"{path}: holds a fine-tuned network, and this needs a probe (a frozen encoder with a head); "
                "'dermlab predict' and 'dermlab evaluate' take fine-tuned networks"
            )
        return found

    def predict(self, dataset: Dataset, features: Features | None) -> tuple[np.ndarray, np.ndarray]:
        """Return what :meth:`FittedRun.average` does; photos are known by their content, unless the head sees none."""
        contents = None if features is None else photo_contents(dataset)
        questionnaire = dataset.questionnaire(exclude_proxies=False)

        def found_by(place: Path) -> np.ndarray:
            encoder = questionnaire_encoder(place)
            X = assemble(None if features is None else features.values, questionnaire, encoder, len(dataset))
            head = load_head(place)
            return over_classes(head.predict_proba(X), head.classes_, self.classes)

        return self.average(dataset, contents, found_by)


def decisions(run: str | Path) -> dict[str, Any]:
    """Return what a run says of how decisions follow from its probabilities: costs, thresholds of labels.

    Its own predictions table tells; of what was pushed, :data:`PUSHED_FILE`.
    """
    from dermlab.evaluate.multilabel import mean_thresholds

    pushed = Path(run) / PUSHED_FILE
    if pushed.is_file():
        return dict(read_json(pushed).get("decisions") or {})
    table = read_predictions(run)
    kept: dict[str, Any] = {name: table.meta[name] for name in ("decision", "cost_matrix") if name in table.meta}
    thresholds = mean_thresholds(table)
    if thresholds is not None:  # of no fold: the folds' probabilities are averaged, and so are their thresholds
        kept["thresholds"] = {"chosen_on": "val", "for": "f1", "folds": [{"labels": thresholds}]}
    return kept


def questionnaire_encoder(place: Path) -> QuestionnaireEncoder | None:
    """Return how a fold's questionnaire is encoded; None where its model reads none."""
    file = place / QUESTIONNAIRE_FILE
    return QuestionnaireEncoder.from_dict(read_json(file)) if file.exists() else None


def photo_contents(dataset: Dataset) -> np.ndarray:
    """Return the content hash of each photo, str (N,), "" where it cannot be read."""
    from dermlab.data.decode import content_hashes

    return np.array([found if isinstance(found, str) else "" for found in content_hashes(dataset.paths)], dtype=str)


def was_seen(seen: dict[str, Any], dataset: Dataset, contents: np.ndarray | None) -> np.ndarray:
    """Return which images a fold has met (its ``seen.json``), itself or another of the same patient, bool (N,)."""
    groups = dataset.groups()
    met = np.zeros(len(dataset), bool)
    if contents is not None:
        met = np.isin(groups, groups[np.isin(contents, seen.get("contents", [])) & (contents != "")])
    if seen["data"] == dataset.fingerprint:
        met |= np.isin(dataset.image_ids, seen["images"]) | np.isin(groups, seen["groups"])
    return met
