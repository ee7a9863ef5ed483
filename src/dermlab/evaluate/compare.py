"""Is one model better than another? Paired differences on the same units, with intervals, tests and plain verdicts.

Which test goes with which metric, and why, is told in docs/explanation/statistics.md.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from dermlab.core import words
from dermlab.core.errors import InputError
from dermlab.core.randomness import generator
from dermlab.evaluate.cases import CaseSets, case_sets
from dermlab.evaluate.estimates import paired_difference
from dermlab.evaluate.influence import Influence, delong, influences
from dermlab.evaluate.intervals import (
    BLOCK,
    NO_WIDTH,
    Method,
    centred,
    in_threads,
    interval,
    jackknife,
    resample,
    without_width,
)
from dermlab.evaluate.metrics import ROUNDING, Evaluation, defined, metric, ratio
from dermlab.evaluate.predictions import Predictions

DEFAULT_METRICS = ("top1", "balanced_accuracy", "macro_f1", "auroc")
DEFAULT_OF_LABELS = ("auroc", "auprc", "macro_f1")
PERMUTED = ("confusion", "top_k", "losses", "decision", "label_sets")
UNBOUNDED = ("brier", "log_loss", "mean_absolute_error", "kappa", "quadratic_kappa")  # may differ by 1 and more
POWER = 0.8
FEW_GROUPS = 30
A_BETTER, B_BETTER, NEITHER = "a better", "b better", "cannot tell apart"


@dataclass(frozen=True)
class _Model:
    name: str
    found: CaseSets
    evaluation: Evaluation
    values: dict[str, float]
    draws: dict[str, np.ndarray]
    moved: dict[str, Influence]  # by group, of the metrics that have deviations
    moved_by_unit: dict[str, Influence]  # empty where each unit is a group


def compare_predictions(
    tables: Mapping[str, Predictions],
    *,
    metrics: Sequence[str] | None = None,
    split: str = "test",
    margin: float | None = None,
    n_boot: int = 2000,
    n_permutations: int = 9999,
    seed: int = 0,
    method: Method = "percentile",
    level: float = 0.95,
) -> list[dict[str, Any]]:
    """Compare models pairwise on the same units; p values are Holm-adjusted over the pairs of each metric.

    Args:
        tables: at least two predictions tables by name; the order of their rows is free.
        metrics: names of metrics; None: top-1, balanced accuracy, macro-F1 and AUROC where all tables have them, of
            multi-label targets macro AUROC, mean average precision and macro-F1.
        split: the split compared on.
        margin: a difference that would not matter; gives non-inferiority and equivalence (TOST) beside superiority.
        n_boot: bootstrap replicates for the intervals.
        n_permutations: draws of the permutation tests.
        seed: of bootstrap and permutations.
        method: interval of the bootstrap, ``percentile`` or ``bca``.
        level: coverage of the intervals; ``1 - level`` is the level of the verdicts.

    Returns:
        The list that ``comparison.json`` holds: one entry per pair and metric (docs/reference/predictions.md).

    Raises:
        InputError: the tables differ in units, labels, groups or classes, or lack what a metric needs.
    """
    if len(tables) < 2:
        raise InputError("compare: needs at least two predictions tables")
    names = list(tables)
    sets = aligned(tables, split)
    wanted = list(metrics) if metrics else default_metrics(sets)
    if len(set(wanted)) < len(wanted):
        raise InputError(f"metrics: one is named twice ({', '.join(wanted)})")
    _check_margin(margin, wanted)
    models = _scored(names, sets, wanted, n_boot, seed)
    pairs = list(itertools.combinations(models, 2))
    group_by = group_column(tables)
    tests = _tests(pairs, wanted, n_permutations, seed, group_by)
    discordant = [_discordant(a.found, b.found) for a, b in pairs]
    result = []
    for name in wanted:
        ps = [tests[a.name, b.name, name][0] for a, b in pairs]
        for (a, b), counts, p, adjusted in zip(pairs, discordant, ps, holm(ps), strict=True):
            entry = _entry(a, b, name, group_by, method, level)
            difference = a.values[name] - b.values[name]
            better = A_BETTER if (difference > 0) == metric(name).higher_is_better else B_BETTER
            significant = adjusted < 1 - level and difference != 0  # not so where either is NaN
            entry |= {
                "p": number(p),
                "p_adjusted": number(adjusted),
                "test": tests[a.name, b.name, name][1],
                "discordant": counts,
                "verdict": better if significant else NEITHER,
            }
            if margin is not None:
                direction = 1 if metric(name).higher_is_better else -1
                entry |= _within_margin(direction * (a.draws[name] - b.draws[name]), entry, margin, direction, level)
            entry |= _further(a, b, name, level)
            result.append(entry)
    return result


def ranks(comparison: Sequence[Mapping[str, Any]], names: Sequence[str], metric: str) -> dict[str, int]:
    """Return each candidate's rank: 1 + the number of candidates that are significantly better by ``metric``."""
    beaten = dict.fromkeys(names, 1)
    for entry in comparison:
        if entry["metric"] == metric and entry["a"] in beaten and entry["b"] in beaten:
            beaten[entry["b"]] += entry["verdict"] == A_BETTER
            beaten[entry["a"]] += entry["verdict"] == B_BETTER
    return beaten


def within_margin(entry: Mapping[str, Any]) -> list[str]:
    """Return in words what the margin showed of a pair, nothing where it showed nothing or there is none."""
    margin = entry.get("margin")
    if margin is None:
        return []
    size = words.margin(margin, words.metric_words(entry["metric"])[2])
    said = {
        "equivalent": f"equivalent: they differ by less than {size}",
        "a_not_worse": f"{entry['a']} is not worse by more than {size}",
        "b_not_worse": f"{entry['b']} is not worse by more than {size}",
    }
    return [text for key, text in said.items() if entry.get(key)]


def margin_sentence(comparison: Sequence[Mapping[str, Any]]) -> str:
    """Say which margin was used for what, and that its verdicts stand by themselves."""
    metrics = dict.fromkeys(entry["metric"] for entry in comparison)
    sizes = dict.fromkeys(words.margin(comparison[0]["margin"], words.metric_words(name)[2]) for name in metrics)
    return (
        f"one margin for all metrics: {' or '.join(sizes)}; 'not worse' and 'equivalent' hold for each pair and metric "
        "by itself and are not adjusted for how many there are (Holm is for 'better' only)"
    )


def _check_margin(margin: float | None, metrics: Sequence[str]) -> None:
    """Raise where a margin is none, or no difference of a metric within 0 and 1 could reach it."""
    if margin is None:
        return
    if not margin > 0:
        raise InputError(f"margin: must be above 0, not {margin}")
    bounded = [name for name in metrics if name.partition(":")[0] not in UNBOUNDED]
    if margin >= 1 and bounded:
        points = margin if margin < 100 else 2
        hint = f"{points / 100:g} means {points:g} percentage points"
        raise InputError(
            f"margin: {margin:g} is more than two models can differ by in {words.metric_words(bounded[0])[0]}, "
            f"which lies within 0 and 1; {hint}"
        )


def mcnemar(a_only: int, b_only: int) -> float:
    """Return the exact two-sided p of McNemar's test from the counts of units that only one of two models got right."""
    from scipy.stats import binom

    n = a_only + b_only
    return min(1.0, 2 * float(binom.cdf(min(a_only, b_only), n, 0.5))) if n else 1.0


def clustered_mcnemar(
    gap: np.ndarray, n: np.ndarray | None = None, *, method: Literal["obuchowski", "durkalski"] = "obuchowski"
) -> tuple[float, float]:
    """Return the chi-square and p of McNemar's test for answers that come in clusters.

    Obuchowski 1998, "On the comparison of correlated proportions for clustered data", and Durkalski et al. 2003,
    "Analysis of clustered matched-pair data", who weigh each cluster by 1 / its size. Both need many clusters; the
    permutation by group is their exact counterpart.

    Args:
        gap: float64 (groups,) units of each group that only the first got right less those that only the second did.
        n: (groups,) units of each group; needed by Durkalski's form.
        method: whose form.

    Raises:
        InputError: Durkalski's form without the sizes.
    """
    from scipy.stats import chi2

    if method == "durkalski":
        if n is None:
            raise InputError("clustered_mcnemar: Durkalski's form needs n, the number of units of each group")
        gap = gap / n
    squares = float((gap**2).sum())
    if squares == 0:
        return 0.0, 1.0
    statistic = float(gap.sum() ** 2 / squares)
    if method == "obuchowski":
        statistic *= (len(gap) - 1) / len(gap)
    return statistic, float(chi2.sf(statistic, 1))


def holm(ps: Sequence[float]) -> list[float]:
    """Return Holm's step-down adjusted p values (Holm 1979); NaN stays NaN and is not counted as a test."""
    values = np.asarray(ps, np.float64)
    known = np.flatnonzero(~np.isnan(values))
    order = known[np.argsort(values[known], kind="stable")]
    steps = values[order] * np.arange(len(order), 0, -1)
    adjusted = np.full(len(values), np.nan)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return adjusted.tolist()


def permutation_test(
    pairs: Sequence[tuple[Evaluation, Evaluation]], names: Sequence[str], *, n_permutations: int, seed: int
) -> list[dict[str, float]]:
    """Return for each pair and metric the two-sided p of swapping the two models' predictions, group by group.

    Under the hypothesis that the two are interchangeable, swapping all their predictions of a patient changes nothing
    (approximate randomisation, Noreen 1989; Yeh 2000; for accuracy the clustered counterpart of McNemar's test). The
    observed arrangement counts as one draw, so p is at least 1/(draws + 1) and the test valid at any number of draws.

    Args:
        pairs: evaluations of the same case sets by two models.
        names: metrics whose sums mean the same in both models: confusion counts, top-k credit, losses.
        n_permutations: number of random arrangements.
        seed: of the arrangements.
    """
    n_groups = pairs[0][0].n_groups
    middles = [np.asarray((a.rows + b.rows).sum(axis=1)).reshape(-1, 1) / 2 for a, b in pairs]
    halves = [((a.rows - b.rows) / 2).tocsr() for a, b in pairs]
    for half in halves:
        half.eliminate_zeros()  # groups on which the two agree have no part in it
    triples = list(zip((a for a, _ in pairs), middles, halves, strict=True))
    everyone = np.ones((n_groups, 1))
    observed = [_gap(model, middle, half @ everyone, names) for model, middle, half in triples]

    def block(number: int) -> np.ndarray:
        """Count the arrangements of one block that are at least as extreme as the observed one."""
        size = min(BLOCK, n_permutations - number * BLOCK)
        random = generator(seed, "permutation", number)
        signs = random.integers(0, 2, size=(n_groups, size), dtype=np.int8).astype(np.float64) * 2 - 1
        counts = []
        for (model, middle, half), gap in zip(triples, observed, strict=True):
            # NaN (the metric is undefined in this arrangement) counts as extreme, which errs on the side of doubt.
            counts.append((~(_gap(model, middle, half @ signs, names) < gap - ROUNDING)).sum(axis=1))
        return np.stack(counts)

    work = float(sum(half.nnz for half in halves)) * n_permutations
    as_large = sum(in_threads(block, -(-n_permutations // BLOCK), "permutation tests", work))
    ps = (1 + as_large) / (n_permutations + 1)
    return [
        {name: np.nan if np.isnan(observed[place][k, 0]) else float(ps[place, k]) for k, name in enumerate(names)}
        for place in range(len(pairs))
    ]


def _gap(evaluation: Evaluation, middle: np.ndarray, swing: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Return the absolute difference (metrics, B) between models whose totals are ``middle ± swing``."""
    above, below = evaluation.from_totals(middle + swing), evaluation.from_totals(middle - swing)
    return np.abs(np.stack([above[name] - below[name] for name in names]))


def bootstrap_p(draws: np.ndarray, n_groups: int) -> float:
    """Return the two-sided p at which the percentile interval of bootstrap differences would just reach 0.

    Args:
        draws: (n_boot,) differences.
        n_groups: number of groups drawn from; few widen the interval (:func:`~.intervals.expanded`) and raise p.
    """
    return 2 * min(_one_sided(draws, n_groups), _one_sided(-draws, n_groups), 0.5)


def _one_sided(draws: np.ndarray, n_groups: int) -> float:
    """Return the p of a bootstrap distribution against "not above 0", NaN where there is nothing to go by."""
    from scipy.special import ndtri, stdtr

    known = draws[~np.isnan(draws)]
    if not len(known) or n_groups < 2:
        return np.nan
    tail = (1 + (known <= 0).sum()) / (len(known) + 1)
    return float(stdtr(n_groups - 1, ndtri(tail) * np.sqrt((n_groups - 1) / n_groups)))


def _tests(
    pairs: Sequence[tuple[_Model, _Model]], names: Sequence[str], n_permutations: int, seed: int, group_by: str
) -> dict[tuple[str, str, str], tuple[float, str]]:
    """Return p and the test's name in words for each pair and metric."""
    clustered = pairs[0][0].found.clustered
    within = f", by {group_by}" if clustered else ""
    result: dict[tuple[str, str, str], tuple[float, str]] = {}
    swapped: list[tuple[_Model, _Model]] = []
    permuted = [name for name in names if metric(name).family in PERMUTED]
    areas = [name for name in names if name.startswith("auroc")]
    models = {model.name: model for model in itertools.chain.from_iterable(pairs)}
    for a, b in pairs:
        same = _same_sets(a.found, b.found)
        for name in names:
            if name == "top1" and same and not clustered and len(a.found.sets) == 1:
                result[a.name, b.name, name] = mcnemar(*_discordant(a.found, b.found)), "exact McNemar"
            elif name in areas:
                p = delong(a.values[name] - b.values[name], a.moved[name] - b.moved[name])
                result[a.name, b.name, name] = p, f"DeLong{' clustered' if clustered else ''}{within}"
            elif name not in permuted or not same:
                p = bootstrap_p(a.draws[name] - b.draws[name], len(a.found.groups))
                result[a.name, b.name, name] = p, f"paired bootstrap{within}"
        if same and any((a.name, b.name, name) not in result for name in names):
            swapped.append((a, b))
    todo = [name for name in permuted if any((a.name, b.name, name) not in result for a, b in swapped)]
    if swapped and todo:
        evaluations = {key: Evaluation(model.found.sets, todo) for key, model in models.items()}
        found = permutation_test(
            [(evaluations[a.name], evaluations[b.name]) for a, b in swapped],
            todo,
            n_permutations=n_permutations,
            seed=seed,
        )
        for (a, b), ps in zip(swapped, found, strict=True):
            for name in todo:
                told = f"paired permutation{within} ({n_permutations:,} draws)"
                result.setdefault((a.name, b.name, name), (ps[name], told))
    return result


def _scored(
    names: Sequence[str], sets: Sequence[CaseSets], metrics: Sequence[str], n_boot: int, seed: int
) -> list[_Model]:
    evaluations = [Evaluation(found.sets, metrics) for found in sets]
    draws = resample(evaluations, n_boot=n_boot, seed=seed, names=metrics)
    models = []
    for name, found, evaluation, drawn in zip(names, sets, evaluations, draws, strict=True):
        values = evaluation.value()
        moved = {key: centred(key, values[key], replicates) for key, replicates in drawn.items()}
        # Once a model, not once a pair: AUROC needs every class sorted.
        by_group = influences(found, metrics)
        by_unit = influences(found, metrics, by_unit=True) if found.clustered else {}
        models.append(_Model(name, found, evaluation, values, moved, by_group, by_unit))
    return models


def default_metrics(sets: Sequence[CaseSets]) -> list[str]:
    """Return the metrics that are compared where none is named: those that all tables have."""
    names = DEFAULT_OF_LABELS if sets[0].sets[0].multilabel else DEFAULT_METRICS
    return [name for name in names if all(defined(name, found.sets[0]) for found in sets)]


def _entry(a: _Model, b: _Model, name: str, group_by: str, method: Method, level: float) -> dict[str, Any]:
    """Return the part of an entry that says how large the difference is."""
    without = None
    if method == "bca":
        without = jackknife(a.evaluation, [name])[name] - jackknife(b.evaluation, [name])[name]
    difference = a.values[name] - b.values[name]
    draws = a.draws[name] - b.draws[name]
    found = interval(difference, draws, len(a.found.groups), method=method, level=level, jackknifed=without)
    if found.method == NO_WIDTH:
        if _same_answers(a.found, b.found):
            found = replace(found, low=difference, high=difference)  # one model under two names differs by nothing
        elif _same_sets(a.found, b.found):
            found = paired_difference(name, a.found.sets, b.found.sets, found, level)
    return {
        "a": a.name,
        "b": b.name,
        "metric": name,
        "n": len(a.found.units),
        "n_groups": len(a.found.groups),
        "group_by": group_by,
        "difference": number(difference),
        "low": number(found.low),
        "high": number(found.high),
    }


def _within_margin(
    draws: np.ndarray, entry: Mapping[str, Any], margin: float, direction: int, level: float
) -> dict[str, Any]:
    """Return non-inferiority (the interval stays above -margin) and equivalence.

    Equivalence is two one-sided tests (TOST, Schuirmann 1987) on the bootstrap distribution of the difference, which is
    turned so that higher is better.
    """
    ends = [entry["low"], entry["high"]][::direction]
    worst, best = (np.nan if end is None else direction * end for end in ends)
    p = max(_one_sided(draws + margin, entry["n_groups"]), _one_sided(margin - draws, entry["n_groups"]))
    equivalent = bool(p < 1 - level)
    if without_width(draws):  # the replicates tell nothing; the interval, where there is one, decides
        p, equivalent = np.nan, bool(worst > -margin and best < margin)
    return {
        "margin": margin,
        "a_not_worse": bool(worst > -margin),
        "b_not_worse": bool(best < margin),
        "equivalent": equivalent,
        "p_equivalence": number(p),
    }


def _further(a: _Model, b: _Model, name: str, level: float) -> dict[str, Any]:
    """Return the values compared, and how many groups would show such a difference in four studies of five."""
    from scipy.special import ndtri

    draws = a.draws[name] - b.draws[name]
    difference, spread = a.values[name] - b.values[name], float(np.nanstd(draws)) if len(draws) else np.nan
    n_units, n_groups = len(a.found.units), len(a.found.groups)
    needed = None
    if difference and spread > 0:
        reach = float(ndtri((1 + level) / 2) + ndtri(POWER))
        needed = int(np.ceil(n_groups * (reach * spread / difference) ** 2))
    warnings = []
    if n_groups < FEW_GROUPS:
        warnings.append(f"only {n_groups} groups: the interval is too narrow")
    if np.isnan(difference):
        warnings.append(f"{name} is undefined on these cases")
    clustered = {}
    if name == "top1" and a.found.clustered:
        gap = _mean_correct(a.found) - _mean_correct(b.found)
        statistic, p = clustered_mcnemar(np.bincount(a.found.group_of_unit, gap, n_groups))
        clustered = {"mcnemar_clustered": {"test": "Obuchowski 1998", "statistic": statistic, "p": p}}
    return {
        "value_a": number(a.values[name]),
        "value_b": number(b.values[name]),
        "groups_needed": needed,
        "units_needed": None if needed is None else int(np.ceil(needed * n_units / n_groups)),
        "design_effect": number(_design_effect(a, b, name)),
        **clustered,
        "warnings": warnings,
    }


def _design_effect(a: _Model, b: _Model, name: str) -> float:
    """Return by how much clusters raise the variance of a difference (Kish 1965): 1 without any, NaN where unknown."""
    if not a.found.clustered:
        return 1.0
    if name not in a.moved_by_unit:
        return np.nan
    alone = (a.moved_by_unit[name] - b.moved_by_unit[name]).variance()
    return (a.moved[name] - b.moved[name]).variance() / alone if alone > 0 else np.nan


def _discordant(a: CaseSets, b: CaseSets) -> list[int]:
    """Count the units that a got right more often than b, and the reverse (over repeats; once each without them)."""
    gap = _mean_correct(a) - _mean_correct(b)
    return [int((gap > ROUNDING).sum()), int((gap < -ROUNDING).sum())]


def _mean_correct(found: CaseSets) -> np.ndarray:
    place = np.concatenate(found.unit)
    correct = np.concatenate([cases.correct() for cases in found.sets])
    n_units = len(found.units)
    return ratio(np.bincount(place, correct, n_units), np.bincount(place, minlength=n_units).astype(np.float64))


def _same_sets(a: CaseSets, b: CaseSets) -> bool:
    """Tell whether two models scored the same units in the same repeats and seeds, so that they can be swapped."""
    return len(a.sets) == len(b.sets) and all(
        len(x) == len(y) and bool((x == y).all()) for x, y in zip(a.unit, b.unit, strict=True)
    )


def _same_answers(a: CaseSets, b: CaseSets) -> bool:
    """Tell whether two models gave the same probabilities, to the last bit; equal hard labels prove nothing."""
    return _same_sets(a, b) and all(
        x.probabilities is not None and y.probabilities is not None and bool((x.probabilities == y.probabilities).all())
        for x, y in zip(a.sets, b.sets, strict=True)
    )


def group_column(tables: Mapping[str, Predictions]) -> str:
    """Return the name of the column that the groups come from: of the first table that has any."""
    names = [str(table.meta.get("group_by", "image_id")) for table in tables.values()]
    return next((name for name in names if name != "image_id"), "image_id")


def aligned(tables: Mapping[str, Predictions], split: str) -> list[CaseSets]:
    """Return the case sets of each table in one coding of classes, units and groups, or say how they differ."""
    names = list(tables)
    first = tables[names[0]]
    parts = []
    for name in names:
        table = tables[name].part(split)
        if sorted(table.classes) != sorted(first.classes):
            strange = sorted(set(table.classes) ^ set(first.classes))
            raise InputError(
                f"{names[0]} and {name} have different classes: {', '.join(strange[:12])} only in one of them"
            )
        if (table.kind == "multilabel") != (first.kind == "multilabel"):
            raise InputError(f"{names[0]} and {name}: one is multi-label, the other is not")
        parts.append(Predictions(table.frame, first.classes, {**table.meta, "kind": first.kind}))
    parts = _with_units(parts)
    sets = [case_sets(part, None) for part in parts]
    for name, found in zip(names[1:], sets[1:], strict=True):
        ours, theirs = set(sets[0].units.tolist()), set(found.units.tolist())
        if ours != theirs:
            missing, extra = sorted(ours - theirs), sorted(theirs - ours)
            example = (missing or extra)[0]
            raise InputError(
                f"{names[0]} and {name} do not hold the same units of split {split!r}: {len(ours & theirs)} in both, "
                f"{len(missing)} only in {names[0]}, {len(extra)} only in {name} (such as {example!r}); "
                "a paired comparison needs the same ones"
            )
        _check_labels(names[0], sets[0], name, found)
    # A table without patients takes them from one that knows them; two that know them must agree.
    leader = min(range(len(sets)), key=lambda place: len(sets[place].groups))
    result = []
    for name, found in zip(names, sets, strict=True):
        if found.clustered and not _same_partition(found.group_of_unit, sets[leader].group_of_unit):
            raise InputError(
                f"{names[leader]} and {name} put the same units into different groups; name one grouping for both"
            )
        cases = tuple(
            replace(cases, group=sets[leader].group_of_unit[place], n_groups=len(sets[leader].groups))
            for cases, place in zip(found.sets, found.unit, strict=True)
        )
        result.append(replace(found, sets=cases, groups=sets[leader].groups, group_of_unit=sets[leader].group_of_unit))
    return result


def _with_units(parts: Sequence[Predictions]) -> list[Predictions]:
    """Give tables that know only images the units of a table that pools them."""
    pooled = [part for part in parts if not (part.frame["unit"] == part.frame["image_id"]).all()]
    if not pooled:
        return list(parts)
    homes = pooled[0].frame.drop_duplicates("image_id").set_index("image_id")[["unit", "group"]]
    result = []
    for part in parts:
        alone = bool((part.frame["unit"] == part.frame["image_id"]).all())
        if alone and part.frame["image_id"].isin(homes.index).all():
            known = homes.loc[part.frame["image_id"]].to_numpy()
            part = part.with_frame(
                part.frame.assign(unit=known[:, 0], group=known[:, 1]), pooling=pooled[0].meta.get("pooling")
            )
        result.append(part)
    return result


def _check_labels(first: str, ours: CaseSets, name: str, theirs: CaseSets) -> None:
    labels = []
    for found in (ours, theirs):
        label = np.full((len(found.units), *found.sets[0].truth.shape[1:]), -2.0)
        for cases, place in zip(found.sets, found.unit, strict=True):
            label[place] = np.nan_to_num(cases.truth, nan=-1.0)
        labels.append(label.reshape(len(label), -1))
    different = np.flatnonzero((labels[0] != labels[1]).any(axis=1))
    if len(different):
        raise InputError(
            f"{first} and {name} disagree on the true label of {len(different)} of {len(labels[0])} units "
            f"(such as {str(ours.units[different[0]])!r})"
        )


def _same_partition(a: np.ndarray, b: np.ndarray) -> bool:
    pairs = np.unique(np.stack([a, b]), axis=1).shape[1]
    return pairs == len(np.unique(a)) == len(np.unique(b))


def number(value: float) -> float | None:
    """Return a number for JSON: None where it is undefined."""
    return None if np.isnan(value) else float(value)
