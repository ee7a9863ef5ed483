"""Models over several data sets: Wilcoxon for two, Friedman and Nemenyi for more (Demšar 2006).

Demšar 2006, "Statistical comparisons of classifiers over multiple data sets", JMLR 7:1. The data sets are the cases
here: each gives one value a model, and what is claimed is about data sets like these. Pairs are also tested by
Wilcoxon with Holm, whose verdict on a pair does not depend on which other models were in the race (Benavoli, Corani &
Mangili 2016, JMLR 17:5).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dermlab.core.errors import InputError
from dermlab.evaluate.compare import A_BETTER, B_BETTER, NEITHER, holm, number
from dermlab.evaluate.metrics import ROUNDING

if TYPE_CHECKING:
    import pandas as pd

EXACT = 13  # most data sets for which scipy goes through all signs where differences are tied or 0


def across(table: pd.DataFrame, *, higher_is_better: bool = True, level: float = 0.95) -> dict[str, Any]:
    """Compare models by one value on each of several data sets.

    Args:
        table: data sets × models, float; no value may be missing.
        higher_is_better: the direction of the values.
        level: ``1 - level`` is the level of the verdicts.

    Returns:
        ``{"n", "n_groups", "unit": "data set", "n_datasets", "n_models", "datasets", "level", "higher_is_better",
        "models": [{"name", "mean_rank", "mean_value"}] best first, "test", "statistic", "p", "critical_difference",
        "alike": [[names that Nemenyi does not tell apart]], "pairs": [{"a", "b", "difference", "low", "high",
        "statistic", "p", "p_adjusted", "wins": [a, b, ties], "verdict", "p_nemenyi", "verdict_nemenyi"}],
        "warnings"}``.
        Rank 1 is best, ties share.
        ``difference`` is the Hodges-Lehmann estimate of ``a - b`` with the interval that goes with Wilcoxon's test;
        ``verdict`` is Wilcoxon's after Holm, ``verdict_nemenyi`` that of the mean ranks, which depends on the other
        models too: the two may differ, and a warning says of which pairs. ``critical_difference``, ``alike`` and what
        is Nemenyi's are null or empty for two models.

    Raises:
        InputError: fewer than two models or data sets, or a value is missing.
    """
    from scipy.stats import friedmanchisquare, rankdata, studentized_range

    names, datasets = [str(name) for name in table.columns], [str(name) for name in table.index]
    if len(names) < 2 or len(datasets) < 2:
        raise InputError(f"across: needs two models and two data sets at least, not {len(names)} and {len(datasets)}")
    values = table.to_numpy(np.float64)
    missing = np.argwhere(~np.isfinite(values))
    if len(missing):
        row, column = missing[0]
        raise InputError(
            f"across: no value of {names[column]} on {datasets[row]} ({len(missing)} are missing); every model needs "
            "one on every data set"
        )
    n, k = values.shape
    ranks = np.apply_along_axis(rankdata, 1, -values if higher_is_better else values)
    mean_ranks = ranks.mean(axis=0)
    critical = None
    nemenyi = np.full((k, k), np.nan)
    if k > 2:
        critical = float(studentized_range.ppf(level, k, np.inf) / np.sqrt(2) * np.sqrt(k * (k + 1) / (6 * n)))
        apart = np.abs(mean_ranks[:, None] - mean_ranks) / np.sqrt(k * (k + 1) / (6 * n))
        nemenyi = np.clip(studentized_range.sf(apart * np.sqrt(2), k, np.inf), 0.0, 1.0)
    pairs = [_pair(names, values, i, j, nemenyi[i, j], level) for i, j in itertools.combinations(range(k), 2)]
    for pair, adjusted in zip(pairs, holm([pair["p"] for pair in pairs]), strict=True):
        pair["p_adjusted"] = number(adjusted)
        if adjusted < 1 - level and pair["difference"]:
            pair["verdict"] = A_BETTER if (pair["difference"] > 0) == higher_is_better else B_BETTER
    if k > 2:
        for pair, (i, j) in zip(pairs, itertools.combinations(range(k), 2), strict=True):
            ahead = A_BETTER if mean_ranks[i] < mean_ranks[j] else B_BETTER
            pair["verdict_nemenyi"] = ahead if nemenyi[i, j] < 1 - level else NEITHER
    if k == 2:
        test, statistic, p = "Wilcoxon signed-rank", pairs[0]["statistic"], pairs[0]["p"]
    else:
        same = bool((ranks == ranks[:, :1]).all())  # every model on every data set: nothing to rank
        test, (statistic, p) = "Friedman", (0.0, 1.0) if same else friedmanchisquare(*ranks.T)
    warnings = []
    smallest = 2 / 2**n
    if smallest >= 1 - level:
        warnings.append(f"{n} data sets: Wilcoxon's p cannot fall below {smallest:.3g}, whatever the values")
    elif smallest * len(pairs) >= 1 - level:
        warnings.append(
            f"{n} data sets and {len(pairs)} pairs: the least of Wilcoxon's p after Holm cannot fall below "
            f"{min(1.0, smallest * len(pairs)):.3g}, whatever the values; compare fewer models, or on more data sets"
        )
    unlike = [pair for pair in pairs if pair["verdict_nemenyi"] not in (None, pair["verdict"])]
    if unlike:
        shown = ", ".join([f"{pair['a']} and {pair['b']}" for pair in unlike[:5]] + ["…"] * (len(unlike) > 5))
        warnings.append(
            f"Nemenyi and Wilcoxon with Holm judge {len(unlike)} of {len(pairs)} pairs differently "
            f"({shown}): claim what both say"
        )
    order = np.argsort(mean_ranks, kind="stable")
    return {
        "n": n,
        "n_groups": n,
        "unit": "data set",
        "n_datasets": n,
        "n_models": k,
        "datasets": datasets,
        "level": level,
        "higher_is_better": higher_is_better,
        "models": [
            {"name": names[place], "mean_rank": float(mean_ranks[place]), "mean_value": float(values[:, place].mean())}
            for place in order
        ],
        "test": test,
        "statistic": float(statistic),
        "p": float(p),
        "critical_difference": critical,
        "alike": [] if critical is None else _alike([names[place] for place in order], mean_ranks[order], critical),
        "pairs": pairs,
        "warnings": warnings,
    }


def lines(result: dict[str, Any]) -> list[str]:
    """Return what :func:`across` found in words."""
    told = [
        f"{result['n_models']} models on {result['n_datasets']} data sets; {result['test']}: "
        f"statistic {result['statistic']:.4g}, p {result['p']:.3g}",
        "mean rank: " + ", ".join(f"{model['name']} {model['mean_rank']:.2f}" for model in result["models"]),
    ]
    if result["critical_difference"] is not None:
        told.append(f"critical difference of mean ranks (Nemenyi): {result['critical_difference']:.2f}")
    verdicts = {A_BETTER: "{a} better", B_BETTER: "{b} better", NEITHER: NEITHER}
    for pair in result["pairs"]:
        between = "" if pair["low"] is None else f" ({pair['low']:+.4f} to {pair['high']:+.4f})"
        wins, losses, ties = pair["wins"]
        ranked = ""
        if pair["verdict_nemenyi"] is not None:
            said = verdicts[pair["verdict_nemenyi"]].format(a=pair["a"], b=pair["b"])
            ranked = f"; Nemenyi p {pair['p_nemenyi']:.3g}: {said}"
        told.append(
            f"  {pair['a']} − {pair['b']}: {pair['difference']:+.4f}{between}, {wins} won, {losses} lost, {ties} tied; "
            f"Wilcoxon p {pair['p']:.3g} (Holm {pair['p_adjusted']:.3g}): "
            + verdicts[pair["verdict"]].format(a=pair["a"], b=pair["b"])
            + ranked
        )
    return told + [f"warning: {text}" for text in result["warnings"]]


def _pair(names: Sequence[str], values: np.ndarray, i: int, j: int, nemenyi: float, level: float) -> dict[str, Any]:
    """Return Wilcoxon's signed-rank test of two models, zero differences split between the sides as Demšar does."""
    from scipy.stats import wilcoxon

    gap = values[:, i] - values[:, j]
    gap[np.abs(gap) <= ROUNDING] = 0.0
    statistic, p = (0.0, 1.0) if not gap.any() else wilcoxon(gap, zero_method="zsplit", method=_method(gap))
    middle, low, high = hodges_lehmann(gap, level)
    return {
        "a": names[i],
        "b": names[j],
        "difference": middle,
        "low": number(low),
        "high": number(high),
        "statistic": float(statistic),
        "p": float(p),
        "p_adjusted": None,
        "wins": [int((gap > 0).sum()), int((gap < 0).sum()), int((gap == 0).sum())],
        "verdict": NEITHER,
        "p_nemenyi": number(float(nemenyi)),
        "verdict_nemenyi": None,
    }


def _method(gap: np.ndarray) -> str:
    """Choose scipy's way to p: exact, with ties and zeros too where there are few data sets.

    The normal law says .025 of five equal wins, where all 32 ways to give signs say .0625.
    """
    sizes = np.abs(gap)
    if len(sizes) <= EXACT:
        return "auto"  # all ways to give signs, which ties and zeros do not disturb
    return "exact" if sizes.all() and len(np.unique(sizes)) == len(sizes) and len(sizes) <= 50 else "asymptotic"


def hodges_lehmann(gap: np.ndarray, level: float = 0.95) -> tuple[float, float, float]:
    """Return the median of the pairwise means of differences and the interval that inverts Wilcoxon's test.

    Hodges & Lehmann 1963; Hollander, Wolfe & Chicken 2013, "Nonparametric statistical methods", sec. 3.3.

    Args:
        gap: float64 (n,) differences.
        level: coverage aimed at; (NaN, NaN) where so few differences cannot reach it.
    """
    n = len(gap)
    first, second = np.triu_indices(n)
    means = np.sort((gap[first] + gap[second]) / 2)
    ways = np.zeros(n * (n + 1) // 2 + 1)  # of reaching each rank sum
    ways[0] = 1.0
    for rank in range(1, n + 1):
        ways[rank:] = ways[rank:] + ways[:-rank]
    below = np.cumsum(ways / ways.sum())
    cut = int(np.searchsorted(below, (1 - level) / 2, side="right"))  # rank sums 0 … cut-1 lie in the tail
    middle = float(np.median(means))
    if cut == 0:
        return middle, np.nan, np.nan
    return middle, float(means[cut - 1]), float(means[len(means) - cut])


def _alike(names: Sequence[str], ranks: np.ndarray, critical: float) -> list[list[str]]:
    """Return the longest runs of models, best first, whose mean ranks lie within the critical difference."""
    groups: list[list[str]] = []
    reached = 0
    for start in range(len(names)):
        end = int(np.searchsorted(ranks, ranks[start] + critical, side="left"))
        if end - start > 1 and end > reached:
            groups.append(list(names[start:end]))
            reached = end
    return groups
