"""Diseases nobody trained for: is a photo of one noticed, or filed confidently under something else?

A class is held out of training and of validation, the head is fitted on the others, and scores that ask how unusual a
photo is are tried on the test photos of both kinds. The features are computed once for everything.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from dermlab.adapt.config import DEFAULT_SPLIT, Head, HeadConfig
from dermlab.core.config import Config
from dermlab.core.errors import InputError
from dermlab.core.files import read_json, write_json
from dermlab.core.progress import progress
from dermlab.core.randomness import generator
from dermlab.core.runs import RunFolder
from dermlab.evaluate.cases import Cases, group_codes
from dermlab.evaluate.intervals import Estimate, interval, resample, wilson_grouped
from dermlab.evaluate.metrics import Evaluation

if TYPE_CHECKING:
    from dermlab.core.device import Runtime
    from dermlab.data.dataset import Dataset
    from dermlab.features.extract import Features

RESULT = "unseen.json"
HEADS = ("knn", "linear", "mlp")
NEIGHBOUR = 10
FEW = 10
SCORES: dict[str, str] = {
    "max_softmax": "1 − the highest probability (Hendrycks & Gimpel 2017)",
    "entropy": "entropy of the probabilities",
    "energy": "−log of the summed exponentials of the logits (Liu et al. 2020); linear heads",
    "mahalanobis": "distance of the features to the nearest class mean (Lee et al. 2018, last layer)",
    "relative_mahalanobis": "the same, less the distance to the mean of all (Ren et al. 2021)",
    "knn": f"cosine distance of the features to the {NEIGHBOUR}th nearest training photo (Sun et al. 2022)",
}
"""Scores of how unusual a photo is; higher is more unusual."""


class UnseenSettings(Config):
    """What is held out and how it is looked for."""

    encoder: str = Field(description="encoder's name")
    head: Head = Field(HeadConfig(kind="linear"), description="knn, linear or mlp")
    classes: tuple[str, ...] = Field((), description="classes to hold out, one at a time; none means each in turn")
    split: str = Field(DEFAULT_SPLIT, description="name of the split; main is made (60/20/20, grouped) where missing")
    target: str | None = Field(None, description="what is predicted; none means the card's default target")
    accept: float = Field(
        0.95, gt=0.5, lt=1, description="share of val photos of known classes that pass: the threshold"
    )
    seed: int = Field(0, ge=0, description="seed of everything")
    n_boot: int = Field(2000, ge=100, description="bootstrap replicates of the intervals")


@dataclass(frozen=True)
class Gaussian:
    """A normal distribution with Ledoit and Wolf's shrunken covariance, kept as the few directions that vary.

    Attributes:
        directions: float64 (D, R) orthonormal.
        variances: float64 (R,) shrunken, along them.
        elsewhere: shrunken variance of every other direction.
    """

    directions: np.ndarray
    variances: np.ndarray
    elsewhere: float

    @classmethod
    def fit(cls, centred: np.ndarray) -> Gaussian:
        """Fit to centred samples (N, D); fewer samples than dimensions are fine (Ledoit & Wolf 2004)."""
        from sklearn.covariance import ledoit_wolf_shrinkage

        n, dimension = centred.shape
        shrinkage = float(ledoit_wolf_shrinkage(centred, assume_centered=True))
        # Of the two Gram matrices the smaller one has all eigenvalues that are not zero.
        if n < dimension:
            values, vectors = np.linalg.eigh(centred @ centred.T)
        else:
            values, vectors = np.linalg.eigh(centred.T @ centred)
        kept = values > values.max(initial=0.0) * 1e-10
        values, vectors = values[kept], vectors[:, kept]
        directions = centred.T @ vectors / np.sqrt(values) if n < dimension else vectors
        level = shrinkage * float(values.sum()) / n / dimension
        variances = (1 - shrinkage) * values / n + level
        return cls(directions, variances, max(level, float(variances.max(initial=1.0)) * 1e-9))

    def squared_distance(self, centred: np.ndarray) -> np.ndarray:
        """Return squared Mahalanobis distances (N,) of samples (N, D) less the mean."""
        along = centred @ self.directions
        rest = np.maximum((centred**2).sum(axis=1) - (along**2).sum(axis=1), 0.0)
        if self.directions.shape[1] == centred.shape[1]:
            rest = np.zeros(len(centred))  # nothing is left but rounding
        return (along**2 / self.variances).sum(axis=1) + rest / self.elsewhere


def novelty_scores(
    head: Any, train: np.ndarray, codes: np.ndarray, queries: Mapping[str, np.ndarray]
) -> dict[str, dict[str, np.ndarray]]:
    """Return how unusual photos are by each of :data:`SCORES`, higher being more so.

    Args:
        head: fitted on ``train``; ``energy`` needs a linear one.
        train: features (N, D) that the head was fitted on.
        codes: int (N,) their classes.
        queries: part → features (M, D) to be scored.

    Returns:
        score → part → float64 (M,).
    """
    from dermlab.features.neighbours import nearest

    bank = train.astype(np.float64)
    present = np.unique(codes)
    means = np.stack([bank[codes == code].mean(axis=0) for code in present])
    within = Gaussian.fit(bank - means[np.searchsorted(present, codes)])
    centre = bank.mean(axis=0)
    overall = Gaussian.fit(bank - centre)
    result: dict[str, dict[str, np.ndarray]] = {name: {} for name in SCORES}
    for part, features in queries.items():
        probabilities = np.asarray(head.predict_proba(features), np.float64)
        doubles = features.astype(np.float64)
        result["max_softmax"][part] = 1 - probabilities.max(axis=1)
        result["entropy"][part] = -(probabilities * np.log(np.maximum(probabilities, 1e-300))).sum(axis=1)
        if hasattr(head, "coef_"):
            from scipy.special import logsumexp

            logits = ((doubles - head.mean_) / head.scale_) @ head.coef_.T + head.intercept_
            result["energy"][part] = -logsumexp(logits, axis=1)
        distances = np.stack([within.squared_distance(doubles - mean) for mean in means], axis=1).min(axis=1)
        result["mahalanobis"][part] = distances
        result["relative_mahalanobis"][part] = distances - overall.squared_distance(doubles - centre)
        similarity, _ = nearest(features, train, min(NEIGHBOUR, len(train)))
        result["knn"][part] = 1.0 - similarity[:, -1].astype(np.float64)
    return {name: parts for name, parts in result.items() if parts}


def run_unseen(
    dataset: Dataset,
    settings: UnseenSettings,
    out: str | Path,
    *,
    features: Features | None = None,
    runtime: Runtime | None = None,
    batch_size: int | None = None,
    record: Config | None = None,
) -> dict[str, Any]:
    """Hold classes out one at a time and measure whether their photos are flagged; writes ``unseen.json``.

    Args:
        dataset: the data set folder.
        settings: encoder, head, classes, split.
        out: the run folder.
        features: the encoder's features of this data set; None: they are embedded here.
        runtime: device and precision of the embedding.
        batch_size: photos at a time in the embedding.
        record: what ``config.yaml`` keeps; None: the settings.

    Returns:
        The content of ``unseen.json``::

            {"n", "n_groups", "unit": "image", "group_by", "dataset", "target", "split", "folds", "encoder", "head",
             "accept", "scores": {score: what it is}, "lineage": {…},
             "classes": {class: {"n_unseen", "n_groups_unseen", "n_seen",
                "called": {class: share},            # what the head calls its photos
                "scores": {score: {"auroc": {value, low, high},  # unseen above seen; averaged over folds
                    "fpr95": {…},                    # unseen passing where 95% of seen test photos pass
                    "flagged_unseen": {…}, "flagged_seen": {…}}}}},  # at the threshold chosen on val's seen photos
             "mean_auroc": {score: {value, low, high}},   # over the held-out classes
             "warnings"}

    Raises:
        InputError: an unknown class, too few classes left, no test photo of a class, a head of another kind.
    """
    target = dataset.card.target(settings.target)
    classes = tuple(settings.classes) or tuple(target.classes)
    _check(target, classes, settings)
    from dermlab.adapt.probe import contaminations, made_from, read_or_make_split

    split = read_or_make_split(dataset, settings.split, target.column, settings.seed)
    folder = RunFolder.create(out, record or settings, "unseen")
    if folder.done:
        return read_json(folder.path / RESULT)
    if features is None:
        from dermlab.features.extract import embed

        features = embed(dataset, settings.encoder, runtime=runtime, batch_size=batch_size)
    labels = dataset.labels(target.column)
    usable = features.valid & np.array([label is not None for label in labels])
    groups, _ = group_codes(dataset.groups(), len(dataset))
    keys = split[["repeat", "fold"]].drop_duplicates().to_numpy(np.int64).tolist()
    parts = [split.loc[(split["repeat"] == r) & (split["fold"] == f), "split"].to_numpy(str) for r, f in keys]
    tested = np.flatnonzero(usable & np.any([part == "test" for part in parts], axis=0))
    if not len(tested):
        raise InputError(f"split {settings.split!r}: no labelled test photo")
    warnings = contaminations(features.encoder, dataset)
    if features.failures:
        warnings.append(f"{len(features.failures)} photos cannot be read and are left out")
    trials: dict[str, list[_Trial]] = {name: [] for name in classes}
    with progress("classes held out", len(classes) * len(parts), "fits") as advance:
        for name in classes:
            for (repeat, fold), part in zip(keys, parts, strict=True):
                seed = int(generator(settings.seed, "unseen", name, repeat, fold).integers(2**31))
                trial = _fold(name, features.values, labels, groups, part, usable, settings, seed, warnings)
                trials[name] += [trial] if trial is not None else []
                advance(1)
    held = {name: found for name, found in trials.items() if any(trial.unseen.any() for trial in found)}
    if not held:
        raise InputError(f"split {settings.split!r}: no test photo of {', '.join(classes)}")
    _, group_of_tested = np.unique(groups[tested], return_inverse=True)
    local = np.full(int(groups.max()) + 1, -1)
    local[groups[tested]] = group_of_tested
    result: dict[str, Any] = {
        "n": len(tested),
        "n_groups": int(group_of_tested.max()) + 1,
        "unit": "image",
        "group_by": dataset.group_column(),
        "dataset": dataset.card.name,
        "target": target.column,
        "split": settings.split,
        "folds": len(parts),
        "encoder": features.encoder["name"],
        "head": settings.head.model_dump(mode="json", exclude_none=True),
        "accept": settings.accept,
        "scores": {name: SCORES[name] for name in next(iter(held.values()))[0].scores},
        "lineage": made_from(dataset, features.encoder),
        "classes": {},
    }
    areas = _areas(held, local, settings)
    for name, found in held.items():
        result["classes"][name] = _described(found, areas["of"][name], settings)
        n = result["classes"][name]["n_unseen"]
        if n < FEW:
            warnings.append(f"only {n} test photos of {name}: its figures are rough")
    absent = [name for name in classes if name not in held]
    if absent:
        warnings.append(f"no test photo of {', '.join(absent)}: not held out")
    result["mean_auroc"] = areas["mean"]
    result["warnings"] = list(dict.fromkeys(warnings))
    write_json(folder.path / RESULT, result)
    folder.finish(warnings=result["warnings"])
    return result


@dataclass(frozen=True)
class _Trial:
    """One class held out in one fold: the test photos' scores."""

    unseen: np.ndarray  # bool (M,)
    group: np.ndarray  # int64 (M,)
    called: np.ndarray  # str (M,)
    scores: dict[str, np.ndarray]  # float64 (M,)
    thresholds: dict[str, float]


def _check(target: Any, classes: Sequence[str], settings: UnseenSettings) -> None:
    if target.kind == "multilabel":
        raise InputError(f"target {target.column!r} has several labels an image; a class cannot be held out of it")
    for name in classes:
        if name not in target.classes:
            raise InputError(f"classes: {name!r} is not one of {', '.join(target.classes)}")
    if len(target.classes) < 3:
        raise InputError(f"target {target.column!r}: with one of two classes held out there is nothing to tell apart")
    if settings.head.kind not in HEADS or settings.head.with_questionnaire:
        raise InputError(f"head: {settings.head.kind!r} will not do here; one of {', '.join(HEADS)} on features alone")


def _fold(
    name: str,
    values: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    part: np.ndarray,
    usable: np.ndarray,
    settings: UnseenSettings,
    seed: int,
    warnings: list[str],
) -> _Trial | None:
    """Fit without ``name`` on one fold and score its test photos; None where the fold has nothing to fit or test."""
    from dermlab.adapt.heads import make_head

    seen = labels != name
    train, val = (np.flatnonzero(usable & seen & (part == kind)) for kind in ("train", "val"))
    test = np.flatnonzero(usable & (part == "test"))
    if len(np.unique(labels[train].astype(str))) < 2 or not len(test):
        warnings.append(f"{name} held out: a fold has fewer than two classes to train on and is left out")
        return None
    if not len(val):
        raise InputError(f"split {settings.split!r}: no val photo to choose a threshold on")
    head = make_head(settings.head, seed=seed, n_embedding=values.shape[1])
    head.fit(
        values[train],
        labels[train].astype(str),
        validation=(values[val], labels[val].astype(str)),
        groups=groups[train],
    )
    if not head.head_report_["converged"]:
        warnings.append(f"{name} held out: the head did not converge in a fold")
    codes = np.searchsorted(head.classes_, labels[train].astype(str))
    found = novelty_scores(head, values[train], codes, {"val": values[val], "test": values[test]})
    return _Trial(
        unseen=~seen[test],
        group=groups[test],
        called=head.predict(values[test]).astype(str),
        scores={score: parts["test"] for score, parts in found.items()},
        thresholds={score: float(np.quantile(parts["val"], settings.accept)) for score, parts in found.items()},
    )


def _areas(held: Mapping[str, list[_Trial]], local: np.ndarray, settings: UnseenSettings) -> dict[str, Any]:
    """Return the AUROC of every class and score with its interval, and their means over the classes."""
    from scipy.stats import rankdata

    n_groups = int(local.max()) + 1
    keys: list[tuple[str, str]] = []
    evaluations = []
    for name, trials in held.items():
        for score in trials[0].scores:
            sets = []
            for trial in trials:
                if not trial.unseen.any() or trial.unseen.all():
                    continue
                rank = rankdata(trial.scores[score]) / len(trial.unseen)
                truth = trial.unseen.astype(np.int64)
                two = np.column_stack([1 - rank, rank])
                sets.append(Cases(truth, truth, two, local[trial.group], n_groups, ("seen", "unseen")))
            keys.append((name, score))
            evaluations.append(Evaluation(sets, ["auroc"]))
    draws = [one["auroc"] for one in resample(evaluations, n_boot=settings.n_boot, seed=settings.seed, names=["auroc"])]
    values = [one.value()["auroc"] for one in evaluations]
    of: dict[str, dict[str, Estimate]] = {name: {} for name in held}
    for (name, score), value, drawn in zip(keys, values, draws, strict=True):
        of[name][score] = interval(value, drawn, _n_holders(held[name]))
    mean: dict[str, dict[str, float | None]] = {}
    for score in dict.fromkeys(score for _, score in keys):
        places = [place for place, key in enumerate(keys) if key[1] == score]
        drawn = np.mean([draws[place] for place in places], axis=0)
        value = float(np.mean([values[place] for place in places]))
        mean[score] = interval(value, drawn, _n_holders(list(itertools.chain(*held.values())))).to_dict()
    return {"of": of, "mean": mean}


def _n_holders(trials: Sequence[_Trial]) -> int:
    """Return the number of groups that hold an unseen photo: the smaller side, on which the interval rests."""
    return len(np.unique(np.concatenate([trial.group[trial.unseen] for trial in trials])))


def _described(trials: Sequence[_Trial], areas: Mapping[str, Estimate], settings: UnseenSettings) -> dict[str, Any]:
    """Return one held-out class's part of the result."""
    unseen = np.concatenate([trial.unseen for trial in trials])
    group = np.concatenate([trial.group for trial in trials])
    called, counts = np.unique(np.concatenate([trial.called for trial in trials])[unseen], return_counts=True)
    order = np.argsort(-counts, kind="stable")
    result: dict[str, Any] = {
        "n_unseen": int(unseen.sum()),
        "n_groups_unseen": _n_holders(trials),
        "n_seen": int((~unseen).sum()),
        "called": {str(called[place]): float(counts[place] / unseen.sum()) for place in order},
        "scores": {},
    }
    for score, area in areas.items():
        flagged = np.concatenate([trial.scores[score] > trial.thresholds[score] for trial in trials]).astype(float)
        passed = np.concatenate([_passes(trial, score) for trial in trials]).astype(float)
        result["scores"][score] = {
            "auroc": area.to_dict(),
            "fpr95": wilson_grouped(passed[unseen], group[unseen]).to_dict(),
            "flagged_unseen": wilson_grouped(flagged[unseen], group[unseen]).to_dict(),
            "flagged_seen": wilson_grouped(flagged[~unseen], group[~unseen]).to_dict(),
        }
    return result


def _passes(trial: _Trial, score: str) -> np.ndarray:
    """Return which photos pass where 95 % of the fold's seen test photos do, bool (M,)."""
    seen = trial.scores[score][~trial.unseen]
    return trial.scores[score] <= (np.quantile(seen, 0.95) if len(seen) else np.inf)
