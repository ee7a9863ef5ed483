"""Label efficiency: how good a frozen encoder's heads get with how many labels, and which encoder needs fewer.

Photos are embedded once. Then labels are drawn from the training part, again and again, in growing numbers; nearest
neighbours and logistic regression are fitted on each draw; val chooses k and C; test is predicted and only reported.

The protocol is that of Gröger et al. 2024, "Towards scalable foundation models for digital dermatology" (n labels a
class, 50 repeats, cosine kNN and logistic regression on frozen features), with three changes: patients are drawn and
not photos, features are standardised, and every figure has an interval.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dermlab.adapt.knn import KS, votes
from dermlab.adapt.logistic import softmax
from dermlab.adapt.logistic_draws import DrawPaths
from dermlab.adapt.probe import contaminations, made_from
from dermlab.bench.curve_settings import Curves
from dermlab.core.errors import InputError
from dermlab.core.files import atomic_path, read_json, write_json
from dermlab.core.fingerprint import hash_json
from dermlab.core.progress import progress
from dermlab.core.randomness import generator
from dermlab.evaluate.cases import Cases
from dermlab.evaluate.compare import bootstrap_p, holm, number
from dermlab.evaluate.intervals import expanded, interval, resample
from dermlab.evaluate.metrics import Evaluation, metric
from dermlab.features.neighbours import Neighbourhood, nearest

if TYPE_CHECKING:
    from dermlab.data.dataset import Dataset

REPEATS_KEPT_TOGETHER = 25
MOST_SIMILARITIES = 1 << 28  # of val and test photos with the pool, kept at once (3 GB)
STEP = 0.05  # between the scores at which labels needed are read off
LEVEL = 0.95
# scikit-learn's own measure; fits aim at a tenth of it, which single precision may just miss.
CONVERGED = 1e-4
UNDEFINED_SHARE = 0.05

DRAWS = (
    "patients (the data set's group column) of the training part are put in random order; each class takes its photos "
    "along that order until it has its number, so the photos of one patient come together and only the last patient of "
    "a class may be cut; a class with fewer photos gives all; a larger draw of the same repeat contains the smaller; "
    "test and val share no patient with any draw; val is the same for every draw and is not counted as labels"
)
FEW_DRAWS = 20  # of 19 draws not one lies outside the middle 95% of all draws in .95 ** 19 = 38% of cases
INTERVALS = (
    "95% two-way bootstrap of the mean over draws: test groups and draws are both resampled (Owen 2007, the pigeonhole "
    "bootstrap); one_draw is the range of 95% of single draws on resampled test groups: what one round of labelling "
    "may give. The training pool itself is not resampled, so that draws near the whole of it look alike"
)


@dataclass(frozen=True)
class Size:
    """How many labels are drawn: so many per class, or a share of each class.

    Attributes:
        name: ``"10 per class"``, ``"5%"`` or ``"all"``.
        key: the same for file names.
        per_class: labels per class, None for a share.
        share: of each class's training labels, None for a number.
    """

    name: str
    key: str
    per_class: int | None = None
    share: float | None = None

    def of(self, design: str) -> bool:
        """Tell whether the size belongs to a design, ``per_class`` or ``percent``; ``all`` belongs to both."""
        return self is ALL or (self.per_class is not None) == (design == "per_class")

    def counts(self, available: np.ndarray) -> np.ndarray:
        """Return how many labels each class gives, int64 (C,), where ``available`` (C,) has so many."""
        if self.per_class is not None:
            return np.minimum(available, self.per_class)
        assert self.share is not None
        return np.where(available > 0, np.clip(np.round(available * self.share), 1, None), 0).astype(np.int64)


ALL = Size("all", "all", share=1.0)


@dataclass(frozen=True)
class Fold:
    """One fold: which rows of the data set are the pool, choose and report, and their class codes.

    Attributes:
        pool, val, test: row numbers, int64.
        codes: class codes of all rows of the data set, -1 where unlabelled.
        draws: for each repeat, for each class, the rows of the pool (places in ``pool``) in the order they are drawn.
    """

    pool: np.ndarray
    val: np.ndarray
    test: np.ndarray
    codes: np.ndarray
    draws: list[list[np.ndarray]]

    def available(self) -> np.ndarray:
        """Return how many labels of each class the pool holds."""
        return np.array([len(order) for order in self.draws[0]], np.int64)

    def drawn(self, size: Size, repeat: int) -> np.ndarray:
        """Return the places in ``pool`` that a repeat draws, sorted."""
        counts = size.counts(self.available())
        return np.sort(np.concatenate([order[:n] for order, n in zip(self.draws[repeat], counts, strict=True)]))


def draw_order(codes: np.ndarray, groups: np.ndarray, n_classes: int, random: np.random.Generator) -> list[np.ndarray]:
    """Put each class's samples in the order in which they are drawn: whole groups, in random order.

    Args:
        codes: class of each sample of the pool, int (N,).
        groups: patient (else lesion) of each, (N,).
        n_classes: C.
        random: where the order comes from.

    Returns:
        For each class the places of its samples. The samples of a group stand together; the order of groups is the
        same for all classes; within a group the order is random.
    """
    _, group = np.unique(groups, return_inverse=True)
    place_of_group = random.permutation(group.max(initial=-1) + 1)
    order = np.lexsort((random.permutation(len(codes)), place_of_group[group]))
    return [order[codes[order] == code] for code in range(n_classes)]


def make_sizes(settings: Curves, available: np.ndarray) -> list[Size]:
    """Return the sizes that can be drawn, by design and then smallest first, ``all`` last.

    A number per class that no class can exceed, and a share that leaves nothing out, are ``all``; shares that come to
    the same counts as a smaller one are left out.
    """
    result: list[Size] = []
    for sizes in (
        [Size(f"{n} per class", f"n{n}", per_class=n) for n in settings.per_class],
        [Size(f"{share:g}%", f"p{share:g}", share=share / 100) for share in settings.percent],
    ):
        known: dict[tuple[int, ...], Size] = {}
        for size in sizes:
            counts = size.counts(available)
            if (counts < available).any():
                known.setdefault(tuple(counts.tolist()), size)
        result += known.values()
    return [*result, ALL]


def label_efficiency(
    dataset: Dataset,
    features: dict[str, Any],
    settings: Curves,
    out: str | Path,
    split: pd.DataFrame,
) -> dict[str, Any]:
    """Fit every head on every draw of every encoder's features, and return the curves; what is done is kept in ``out``.

    Args:
        dataset: the data set folder.
        features: encoder name → :class:`dermlab.features.extract.Features` of the data set.
        settings: sizes, repeats, heads, metrics, seed.
        out: folder; ``draws/`` in it holds the predictions of what is done.
        split: as :meth:`dermlab.data.dataset.Dataset.read_split` returns it.

    Returns:
        JSON-able, and the content of ``label_efficiency.json``::

            {"n", "n_groups", "unit", "group_by", "target", "classes", "split", "folds", "repeats", "metric", "seed",
             "n_pool", "n_val", "draws", "interval", "warnings": [], "lineage": {…},
             "curves": [{"encoder", "head", "points": [
                 {"size", "labels", "per_class": {class: n}, "draws", "converged",
                  "<metric>": {"value", "low", "high"}, "one_draw": {"low", "high", "sd"},
                  "chosen": {"<k or C>": n}}]}],
             "needed": [{"encoder", "head", "design": "per_class" | "percent", "score",
                         "labels": {"value", "low", "high"},
                         "reached": "reached" | "by the smallest draw" | "not reached"}],
             "ratios": [{"a", "b", "head", "design", "score", "headline", "ratio": {"value", "low", "high"},
                         "p", "p_adjusted",
                         "verdict": "a needs fewer" | "b needs fewer" | "cannot tell apart" | "not tested" |
                                    "not reached"}],
             "rows": [...]}  # the rows of label_efficiency.csv

        ``labels`` is the number of labelled photos in a draw (the mean over folds). ``one_draw`` is of the first
        metric. ``low`` or ``high`` of labels needed is null where the interval is open on that side: the replicates
        there never reach the score, or reach it with the smallest draw. ``ratio`` is labels that a needs / labels
        that b needs; only ``headline`` entries (the highest score that all encoders reach with that head and
        design, in 97.5% of the replicates too) are tested, and Holm is applied over them. The two designs make curves
        of their own: so many labels spread evenly over the classes teach other things than the same number in the
        clinic's own mix.

    Raises:
        InputError: the split lacks a part, a class has no training label, or ``out`` was begun with other inputs.
    """
    target = dataset.card.target(settings.target)
    if target.kind == "multilabel":
        raise InputError(f"target {target.column!r} has several labels an image; name another --target")
    out = Path(out)
    usable = np.logical_and.reduce([one.valid for one in features.values()])
    codes = pd.Index(target.classes).get_indexer(pd.Index(dataset.labels(target.column))).astype(np.int64)
    folds = _folds(dataset, split, np.where(usable, codes, -1), settings, len(target.classes))
    sizes = make_sizes(settings, np.min([fold.available() for fold in folds], axis=0))
    # Images of one lesion or patient are pooled by their probabilities.
    probabilities = dataset.card.unit != "image" or any(metric(name).probabilities for name in settings.metrics)
    made_with = {
        "data": dataset.fingerprint,
        "split": hash_json(split.astype(str).to_dict(orient="list")),
        "encoders": {name: one.encoder["fingerprint"] for name, one in features.items()},
        "settings": settings.model_dump(mode="json", exclude={"scores", "n_boot", "metrics"})
        | {"chooses": settings.metrics[0]},
        "probabilities": probabilities,
        "usable": int(usable.sum()),
    }
    file = out / "inputs.json"
    if file.exists() and hash_json(read_json(file)) != hash_json(made_with):
        raise InputError(f"{out}: was begun with other data, weights or settings; choose another --out")
    write_json(file, made_with)
    work = _Work(out / "draws", settings, target.classes, folds, sizes, probabilities)
    work.run(features)
    found = _report(dataset, target, settings, folds, sizes, work, list(features))
    encoders = [one.encoder for one in features.values()]
    found["warnings"] += [text for encoder in encoders for text in contaminations(encoder, dataset)]
    return {**found, "lineage": made_from(dataset, *encoders)}


def _folds(dataset: Dataset, split: pd.DataFrame, codes: np.ndarray, settings: Curves, n_classes: int) -> list[Fold]:
    groups = dataset.groups()
    result = []
    keys = split[["repeat", "fold"]].drop_duplicates().to_numpy(np.int64).tolist()
    for repeat, fold in keys:
        rows = split[(split["repeat"] == repeat) & (split["fold"] == fold)]
        part = rows["split"].to_numpy(str)
        pool, val, test = (np.flatnonzero((part == name) & (codes >= 0)) for name in ("train", "val", "test"))
        where = f"split {settings.split!r}, repeat {repeat}, fold {fold}"
        for name, found in (("train", pool), ("val", val), ("test", test)):
            if not len(found):
                raise InputError(f"{where}: no labelled photo in {name}")
        if len(np.unique(codes[pool])) < 2:
            raise InputError(f"{where}: training holds one class only; nothing can be learnt")
        shared = np.intersect1d(groups[pool], groups[np.concatenate([val, test])])
        if len(shared):
            raise InputError(f"{where}: {shared[0]!r} is in train and in val or test; 'dermlab data split' keeps apart")
        draws = [
            draw_order(codes[pool], groups[pool], n_classes, generator(settings.seed, "labels", repeat, fold, number))
            for number in range(settings.repeats)
        ]
        result.append(Fold(pool, val, test, codes, draws))
    return result


class _Work:
    """Predictions of every draw, fold by fold, kept in files of a few repeats."""

    def __init__(
        self,
        folder: Path,
        settings: Curves,
        classes: Sequence[str],
        folds: list[Fold],
        sizes: list[Size],
        probabilities: bool,
    ) -> None:
        self.folder, self.settings, self.classes, self.folds, self.sizes = folder, settings, classes, folds, sizes
        self.probabilities = probabilities

    def blocks(self, size: Size) -> list[range]:
        """Return the repeats that are kept in one file; all labels can be drawn in one way only."""
        n = 1 if size.name == "all" else self.settings.repeats
        return [range(start, min(start + REPEATS_KEPT_TOGETHER, n)) for start in range(0, n, REPEATS_KEPT_TOGETHER)]

    def file(self, encoder: str, head: str, size: Size, block: range) -> Path:
        """Return where a block's predictions lie."""
        return self.folder / hash_json(encoder)[:12] / f"{head}-{size.key}-{block.start}.npz"

    def run(self, features: dict[str, Any]) -> None:
        """Predict what is not there yet."""
        jobs = list(itertools.product(features, self.settings.heads))
        total = len(jobs) * sum(len(block) for size in self.sizes for block in self.blocks(size)) * len(self.folds)
        with progress("draw, fit and predict", total, "draws") as advance:
            for encoder, head in jobs:
                todo = []
                for size in self.sizes:
                    for block in self.blocks(size):
                        if self.file(encoder, head, size, block).exists():
                            advance(len(block) * len(self.folds))
                        else:
                            todo.append((size, block))
                if not todo:
                    continue
                fitters = [
                    _FITTERS[head](features[encoder].values, fold, self.settings, self.classes) for fold in self.folds
                ]
                for size, block in todo:
                    stored: dict[str, Any] = {}
                    for number, (fold, fitter) in enumerate(zip(self.folds, fitters, strict=True)):
                        found = fitter.predict([fold.drawn(size, repeat) for repeat in block])
                        answer = found.probabilities.astype(np.float32) if self.probabilities else found.predicted
                        stored |= {f"answer{number}": answer, f"chosen{number}": found.chosen}
                        stored[f"converged{number}"] = found.converged
                        advance(len(block))
                    path = self.file(encoder, head, size, block)
                    with atomic_path(path) as temporary, open(temporary, "wb") as file:
                        np.savez_compressed(file, **stored)

    def read(self, encoder: str, head: str, size: Size) -> tuple[list[list[np.ndarray]], np.ndarray, np.ndarray]:
        """Return the answers of each repeat by fold, what was chosen (repeats, folds) and whether it converged."""
        answers: list[list[np.ndarray]] = []
        chosen, converged = [], []
        for block in self.blocks(size):
            with np.load(self.file(encoder, head, size, block)) as stored:
                numbers = range(len(self.folds))
                parts = [stored[f"answer{number}"] for number in numbers]
                answers += [[part[place] for part in parts] for place in range(len(block))]
                chosen.append(np.stack([stored[f"chosen{number}"] for number in numbers], axis=1))
                converged.append(np.stack([stored[f"converged{number}"] for number in numbers], axis=1))
        return answers, np.concatenate(chosen), np.concatenate(converged)


@dataclass(frozen=True)
class Answers:
    """What several draws say of one fold's test part.

    Attributes:
        predicted: int16 (draws, N) class codes.
        probabilities: float (draws, N, C).
        chosen: float64 (draws,) the k or C that val chose.
        converged: bool (draws,).
    """

    predicted: np.ndarray
    probabilities: np.ndarray
    chosen: np.ndarray
    converged: np.ndarray


class NearestNeighbours:
    """Cosine kNN on many draws: all similarities once, then the nearest among those drawn."""

    def __init__(self, values: np.ndarray, fold: Fold, settings: Curves, classes: Sequence[str]) -> None:
        """Multiply the val and test photos of a fold with its pool."""
        self.fold, self.settings, self.classes = fold, settings, classes
        self.queries, self.bank = values[np.concatenate([fold.val, fold.test])], values[fold.pool]
        self.neighbourhood: Neighbourhood | None = None
        if len(self.queries) * len(self.bank) <= MOST_SIMILARITIES:
            self.neighbourhood = Neighbourhood(self.queries, self.bank)

    def predict(self, draws: Sequence[np.ndarray]) -> Answers:
        """Return the answers of each draw for the test part, ``k`` chosen on val; ties go to the larger ``k``."""
        fold, n_val = self.fold, len(self.fold.val)
        pool_codes = fold.codes[fold.pool].astype(np.int16)
        kept, chosen = [], []
        temperature = 0.07 if self.settings.weights == "softmax" else None
        for rows in draws:
            ks = sorted({min(k, len(rows)) for k in self.settings.k or KS})
            similarity, index = self._nearest(rows, ks[-1])
            near = np.take(pool_codes, index)
            every = votes(similarity[:n_val], near[:n_val], ks, len(self.classes), temperature)
            scores = scores_of(fold.codes[fold.val], every, self.settings.metrics[0], self.classes)
            best = max(range(len(ks)), key=lambda place: (scores[place], ks[place]))
            k = ks[best]
            kept.append(votes(similarity[n_val:], near[n_val:], [k], len(self.classes), temperature)[0])
            chosen.append(k)
        probabilities = np.stack(kept)
        return Answers(
            probabilities.argmax(axis=2).astype(np.int16),
            probabilities,
            np.array(chosen, np.float64),
            np.ones(len(kept), bool),
        )

    def _nearest(self, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        if self.neighbourhood is not None and self.settings.weights == "uniform":
            index = self.neighbourhood.indices(rows, k)
            return np.broadcast_to(np.float32(1), index.shape), index  # one vote each: no similarity is asked for
        if self.neighbourhood is not None:
            return self.neighbourhood.nearest(rows, k)
        similarity, index = nearest(self.queries, self.bank[rows], k)
        return similarity, rows[index]


class Linear:
    """L2 logistic regression on many draws, each standardised by itself."""

    def __init__(self, values: np.ndarray, fold: Fold, settings: Curves, classes: Sequence[str]) -> None:
        """Take the pool of a fold."""
        self.values, self.fold, self.settings, self.classes = values, fold, settings, classes
        self.paths = DrawPaths(values[fold.pool], fold.codes[fold.pool], len(classes))

    def predict(self, draws: Sequence[np.ndarray]) -> Answers:
        """Return the answers of each draw for the test part, ``C`` chosen on val; ties go to the stronger penalty."""
        fold, n_classes = self.fold, len(self.classes)
        X_val, X_test = self.values[fold.val], self.values[fold.test]
        fits = self.paths.solve(draws, self.settings.C)
        scores = np.empty((len(fits), len(draws)))
        for place, fit in enumerate(fits):
            logits = fit.logits(X_val)
            answers = softmax(logits.astype(np.float64)) if metric(self.settings.metrics[0]).probabilities else logits
            scores[place] = scores_of(fold.codes[fold.val], answers, self.settings.metrics[0], self.classes)
        best = scores.argmax(axis=0)
        probabilities = np.zeros((len(draws), len(fold.test), n_classes), np.float32)
        for place, fit in enumerate(fits):
            mine = np.flatnonzero(best == place)
            if len(mine):
                probabilities[mine] = softmax(fit.part(mine).logits(X_test))
        converged = np.array([fits[place].gradient_norm[draw] <= CONVERGED for draw, place in enumerate(best)])
        return Answers(
            probabilities.argmax(axis=2).astype(np.int16),
            probabilities,
            np.array([fits[place].C for place in best]),
            converged,
        )


_FITTERS: dict[str, Any] = {"knn": NearestNeighbours, "linear": Linear}


def scores_of(truth: np.ndarray, answers: np.ndarray, name: str, classes: Sequence[str]) -> np.ndarray:
    """Return a metric of several answers to the same questions, float64 (B,); -inf where it is undefined.

    Args:
        truth: class codes (N,).
        answers: probabilities, or logits where the metric only asks for the first class, (B, N, C).
        name: the metric.
        classes: C names.
    """
    group = np.zeros(len(truth), np.int64)
    places = tuple(str(label) for label in classes)
    needs = metric(name).probabilities
    values = [
        Evaluation(
            [Cases(truth, one.argmax(axis=1), np.asarray(one, np.float64) if needs else None, group, 1, places)], [name]
        ).value()[name]
        for one in answers
    ]
    return np.nan_to_num(np.array(values), nan=-np.inf)


@dataclass(frozen=True)
class Curve:
    """One encoder and head over the sizes: what was reached, and in every replicate.

    Attributes:
        labels: float64 (S,) labelled photos of each size.
        value: float64 (S,) mean over draws of the first metric.
        replicates: float64 (S, B).
    """

    labels: np.ndarray
    value: np.ndarray
    replicates: np.ndarray

    def needed(self, score: float) -> tuple[float, np.ndarray]:
        """Return the labels needed for a score, and the same in every replicate (B,); inf where it is never reached.

        The curve is made monotone (isotonic regression: more labels cannot hurt in the long run), and read between
        two sizes on a straight line over the logarithm of the number of labels. A score that the smallest draw already
        has is given the smallest draw's number.
        """
        found = crossing(self.labels, np.concatenate([self.value[:, None], self.replicates], axis=1), score)
        return float(found[0]), found[1:]


def crossing(labels: np.ndarray, values: np.ndarray, score: float) -> np.ndarray:
    """Return where curves, made monotone, first reach ``score``, float64 (B,); inf where one does not.

    Args:
        labels: ascending numbers of labels, float (S,).
        values: the metric at each, a column a curve, float (S, B).
        score: what is to be reached.
    """
    rising = monotone(values)
    reached = rising >= score - 1e-12
    at = reached.argmax(axis=0)
    column = np.arange(values.shape[1])
    before = np.maximum(at - 1, 0)
    below, above = rising[before, column], rising[at, column]
    share = np.where(above > below, (score - below) / np.where(above > below, above - below, 1.0), 1.0)
    between = labels[before] * (labels[at] / labels[before]) ** share
    return np.where(reached.any(axis=0), np.where(at == 0, labels[0], between), np.inf)


def monotone(values: np.ndarray) -> np.ndarray:
    """Return the isotonic regression of each column of ``values`` (S, B), all points of equal weight.

    By the max-min formula (Robertson, Wright & Dykstra 1988, "Order restricted statistical inference", theorem 1.4.4),
    which takes few sizes and many replicates in few steps.
    """
    n = len(values)
    sums = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, axis=0)])
    result = np.full(values.shape, -np.inf)
    for first in range(n):
        least = np.full(values.shape[1], np.inf)
        for last in range(n - 1, first - 1, -1):
            least = np.minimum(least, (sums[last + 1] - sums[first]) / (last + 1 - first))
            result[last] = np.maximum(result[last], least)
    return result


def _report(
    dataset: Dataset,
    target: Any,
    settings: Curves,
    folds: list[Fold],
    sizes: list[Size],
    work: _Work,
    encoders: list[str],
) -> dict[str, Any]:
    """Turn predictions into curves with intervals, labels needed and their ratios."""
    scoring = _Scoring(dataset, target, folds)
    available = np.array([fold.available() for fold in folds])
    warnings = _short_classes(target.classes, available, settings)
    if settings.repeats < FEW_DRAWS:
        warnings.append(
            f"only {settings.repeats} draws of each size: too few to tell the range of 95% of single draws, and the "
            f"intervals over draws are too narrow; at least {FEW_DRAWS} are needed (--repeats)"
        )
    weights = _draw_weights(settings)
    labels = np.array([np.mean([size.counts(one).sum() for one in available]) for size in sizes])
    first = settings.metrics[0]
    curves, rows = [], []
    read: dict[tuple[str, str, str], Curve] = {}
    jobs = list(itertools.product(encoders, settings.heads))
    with progress("bootstrap", len(jobs) * len(sizes), "sizes") as advance:
        for encoder, head in jobs:
            points, values, replicates = [], [], []
            for place, size in enumerate(sizes):
                answers, chosen, converged = work.read(encoder, head, size)
                evaluations = [scoring.evaluation(one, settings.metrics) for one in answers]
                each = [evaluation.value() for evaluation in evaluations]
                drawn = resample(evaluations, n_boot=settings.n_boot, seed=settings.seed, names=settings.metrics)
                point = {
                    "size": size.name,
                    "labels": float(labels[place]),
                    "per_class": dict(
                        zip(
                            target.classes,
                            np.mean([size.counts(one) for one in available], axis=0).tolist(),
                            strict=True,
                        )
                    ),
                    "draws": len(answers),
                    "converged": float(converged.mean()),
                }
                for name in settings.metrics:
                    single = np.stack([one[name] for one in drawn])
                    mean = _mean_over_draws(single, weights)
                    value = float(np.nanmean([one[name] for one in each]))
                    point[name] = interval(value, mean, scoring.n_groups, level=LEVEL).to_dict()
                    if name == first:
                        low, high = np.nanquantile(single, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
                        spread = float(np.std([one[name] for one in each], ddof=1)) if len(each) > 1 else 0.0
                        point["one_draw"] = {"low": float(low), "high": float(high), "sd": spread}
                        values.append(value)
                        replicates.append(mean)
                kinds, times = np.unique(chosen, return_counts=True)
                point["chosen"] = {f"{kind:g}": int(n) for kind, n in zip(kinds, times, strict=True)}
                points.append(point)
                rows += [
                    {
                        "encoder": encoder,
                        "head": head,
                        "size": size.name,
                        "labels": float(labels[place]),
                        "repeat": repeat,
                        **{name: one[name] for name in settings.metrics},
                        "chosen": float(np.mean(chosen[repeat])),
                        "converged": bool(converged[repeat].all()),
                    }
                    for repeat, one in enumerate(each)
                ]
                warnings += _fit_warnings(encoder, head, size, chosen, converged, settings)
                advance(1)
            curves.append({"encoder": encoder, "head": head, "points": points})
            for design in ("per_class", "percent"):
                mine = [place for place, size in enumerate(sizes) if size.of(design)]
                if len(mine) > 1:
                    order = sorted(mine, key=lambda place: labels[place])
                    read[encoder, head, design] = Curve(
                        labels[order], np.array(values)[order], np.stack(replicates)[order]
                    )
    needed, ratios = _needed(read, settings, encoders, scoring.n_groups)
    return {
        "n": scoring.n,
        "n_groups": scoring.n_groups,
        "unit": dataset.card.unit,
        "group_by": dataset.group_column(),
        "target": target.column,
        "classes": list(target.classes),
        "split": settings.split,
        "folds": len(folds),
        "repeats": settings.repeats,
        "metric": first,
        "seed": settings.seed,
        "n_pool": float(np.mean([len(fold.pool) for fold in folds])),
        "n_val": float(np.mean([len(fold.val) for fold in folds])),
        "draws": DRAWS,
        "interval": INTERVALS,
        "warnings": warnings,
        "curves": curves,
        "needed": needed,
        "ratios": ratios,
        "rows": rows,
    }


class _Scoring:
    """From a draw's answers on every fold's test part to an evaluation over the units scored."""

    def __init__(self, dataset: Dataset, target: Any, folds: list[Fold]) -> None:
        self.classes, self.ordinal = tuple(target.classes), target.kind == "ordinal"
        self.rule = dataset.card.pooling
        rows = np.concatenate([fold.test for fold in folds])
        _, group = np.unique(dataset.groups()[rows], return_inverse=True)
        self.n_groups = int(group.max()) + 1
        units = np.unique(dataset.units()[rows], return_inverse=True)[1]
        self.n = int(units.max()) + 1
        self.sets: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = []
        start = 0
        parts: list[list[int]] = []
        seen: set[int] = set()
        # Folds that share no unit are pooled; where they meet again (another repeat) a new set begins.
        for place, fold in enumerate(folds):
            mine = set(units[start : start + len(fold.test)].tolist())
            if not parts or seen & mine:
                parts.append([])
                seen = set()
            parts[-1].append(place)
            seen |= mine
            start += len(fold.test)
        starts = np.cumsum([0] + [len(fold.test) for fold in folds])
        self.parts = parts
        for members in parts:
            places = np.concatenate([np.arange(starts[number], starts[number + 1]) for number in members])
            own, unit = np.unique(units[places], return_inverse=True)
            truth = np.zeros(len(own), np.int64)
            truth[unit] = folds[0].codes[rows[places]]
            if (truth[unit] != folds[0].codes[rows[places]]).any():
                raise InputError(
                    f"{dataset.folder}: a {dataset.card.unit} has images of several classes; score by image (unit: "
                    "image in card.yaml)"
                )
            of_unit = np.zeros(len(own), np.int64)
            of_unit[unit] = group[places]
            self.sets.append((unit, truth, of_unit, np.bincount(unit)))

    def evaluation(self, answers: list[np.ndarray], names: Sequence[str]) -> Evaluation:
        """Return the evaluation of one draw: ``answers`` holds, for each fold, class codes (N,) or (N, C)."""
        sets = []
        for members, (unit, truth, group, sizes) in zip(self.parts, self.sets, strict=True):
            found = np.concatenate([answers[number] for number in members])
            if found.ndim == 1:
                predicted, probabilities = np.empty(len(truth), np.int64), None
                predicted[unit] = found
            else:
                total = np.zeros((len(truth), found.shape[1]))
                if self.rule == "max":
                    np.maximum.at(total, unit, found)
                    probabilities = total / total.sum(axis=1, keepdims=True)
                else:
                    np.add.at(total, unit, found)
                    probabilities = total / sizes[:, None]
                predicted = probabilities.argmax(axis=1)
            sets.append(Cases(truth, predicted, probabilities, group, self.n_groups, self.classes, self.ordinal))
        return Evaluation(sets, names)


def _draw_weights(settings: Curves) -> np.ndarray:
    """Return how often each repeat is drawn in each replicate, float64 (repeats, B)."""
    random = generator(settings.seed, "bootstrap of draws")
    return random.multinomial(
        settings.repeats, np.full(settings.repeats, 1 / settings.repeats), size=settings.n_boot
    ).T.astype(np.float64)


def _mean_over_draws(single: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the weighted mean (B,) of replicates (draws, B) where they are defined; one draw alone stands for all."""
    if len(single) == 1:
        return single[0]
    known = ~np.isnan(single)
    total = (weights * known).sum(axis=0)
    return np.where(total > 0, (weights * np.where(known, single, 0)).sum(axis=0) / np.maximum(total, 1), np.nan)


def _short_classes(classes: Sequence[str], available: np.ndarray, settings: Curves) -> list[str]:
    fewest = available.min(axis=0)
    missing = [name for name, n in zip(classes, fewest, strict=True) if n == 0]
    said = [f"no training label of {', '.join(missing)} in some fold: never predicted there"] if missing else []
    largest = max((n for n in settings.per_class if (fewest > n).any()), default=0)
    short = [f"{name} {n}" for name, n in zip(classes, fewest, strict=True) if n < largest]
    if short:
        said.append(f"classes with fewer training photos than were asked for give all they have: {', '.join(short)}")
    return said


def _fit_warnings(
    encoder: str, head: str, size: Size, chosen: np.ndarray, converged: np.ndarray, settings: Curves
) -> list[str]:
    said = []
    if not converged.all():
        said.append(
            f"{encoder}, {head}, {size.name}: {(~converged).sum():,} of {converged.size:,} fits did not converge"
        )
    if head == "linear" and len(settings.C) > 1:
        for edge, side in ((settings.C[0], "smallest"), (settings.C[-1], "largest")):
            if (chosen == edge).mean() > 0.5 and size.name == "all":
                said.append(f"{encoder}, {head}, {size.name}: val chose the {side} C tried, {edge:g}; widen --C")
    return said


def _needed(
    read: dict[tuple[str, str, str], Curve], settings: Curves, encoders: list[str], n_groups: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Read off labels needed and their ratios."""
    needed: list[dict[str, Any]] = []
    ratios: list[dict[str, Any]] = []
    for head, design in itertools.product(settings.heads, ("per_class", "percent")):
        curves = {encoder: read[encoder, head, design] for encoder in encoders if (encoder, head, design) in read}
        if not curves:
            continue
        scores = settings.scores or _round_scores(curves.values())
        read_off = {score: {name: curve.needed(score) for name, curve in curves.items()} for score in scores}
        sure = [score for score, found in read_off.items() if all(_surely_reached(one) for one in found.values())]
        for score, found in read_off.items():
            for encoder, (value, replicates) in found.items():
                smallest = float(curves[encoder].labels[0])
                needed.append(
                    {
                        "encoder": encoder,
                        "head": head,
                        "design": design,
                        "score": float(score),
                        "labels": _open_interval(value, replicates, smallest, np.inf, n_groups),
                        "reached": "not reached"
                        if value == np.inf
                        else "by the smallest draw"
                        if value <= smallest
                        else "reached",
                    }
                )
            for a, b in itertools.combinations(found, 2):
                ratios.append(
                    {
                        "a": a,
                        "b": b,
                        "head": head,
                        "design": design,
                        "score": float(score),
                        "headline": bool(sure) and score == max(sure),
                        **_ratio(found[a], found[b], n_groups),
                    }
                )
    tested = [entry for entry in ratios if entry["headline"] and entry["p"] is not None]
    for entry, adjusted in zip(tested, holm([entry["p"] for entry in tested]), strict=True):
        entry["p_adjusted"], entry["verdict"] = adjusted, "cannot tell apart"
        if adjusted < 1 - LEVEL:
            entry["verdict"] = "a needs fewer" if entry["ratio"]["value"] < 1 else "b needs fewer"
    return needed, ratios


def _surely_reached(needed: tuple[float, np.ndarray]) -> bool:
    """Tell whether a score is reached on the data as they are, and in nearly all replicates."""
    return bool(np.isfinite(needed[0]) and np.isfinite(needed[1]).mean() >= (1 + LEVEL) / 2)


def _round_scores(curves: Any) -> list[float]:
    values = np.concatenate([curve.value for curve in curves])
    steps = range(int(np.ceil(values.min() / STEP)), int(np.floor(values.max() / STEP)) + 1)
    return [round(step * STEP, 4) for step in steps]


def _open_interval(
    value: float, replicates: np.ndarray, floor: float, ceiling: float, n_groups: int
) -> dict[str, float | None]:
    """Return value, low and high; an end at ``floor`` or ``ceiling`` is open: null."""
    if not np.isfinite(value) or value <= 0:
        return {"value": None, "low": None, "high": None}
    tail = expanded((1 - LEVEL) / 2, n_groups) if n_groups > 1 else 0.0
    low = float(np.quantile(replicates, tail, method="lower"))
    high = float(np.quantile(replicates, 1 - tail, method="higher"))
    return {"value": value, "low": low if low > floor else None, "high": high if high < ceiling else None}


def _ratio(a: tuple[float, np.ndarray], b: tuple[float, np.ndarray], n_groups: int) -> dict[str, Any]:
    """Return labels a needs / labels b needs, paired over draws and test groups."""
    nothing = {"ratio": {"value": None, "low": None, "high": None}, "p": None, "p_adjusted": None}
    if not (np.isfinite(a[0]) and np.isfinite(b[0])):
        return {**nothing, "verdict": "not reached"}
    with np.errstate(invalid="ignore"):
        replicates = a[1] / b[1]  # inf where only b reaches the score, 0 where only a does
    known = replicates[~np.isnan(replicates)]
    value = a[0] / b[0]
    if len(known) < (1 - UNDEFINED_SHARE) * len(replicates):
        ratio = {"value": value, "low": None, "high": None}
        return {**nothing, "ratio": ratio, "verdict": "not tested"}
    with np.errstate(divide="ignore"):
        logarithms = np.log(known)  # above or below 0 as the ratio is above or below 1
    return {
        "ratio": _open_interval(value, known, 0.0, np.inf, n_groups),
        "p": number(bootstrap_p(logarithms, n_groups)),
        "p_adjusted": None,
        "verdict": "not tested",
    }
