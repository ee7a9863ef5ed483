"""How often a small test set would have ranked the models differently: redrawn from large prediction tables.

A screening on 250 images names a winner, and the full test set names another. Here test sets of a given size are drawn
again and again, group by group, and every draw is scored, ranked and tested as if it were all there is.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dermlab.core.errors import InputError
from dermlab.core.randomness import generator
from dermlab.evaluate.cases import CaseSets
from dermlab.evaluate.compare import aligned, group_column, number
from dermlab.evaluate.influence import influences
from dermlab.evaluate.intervals import BLOCK, in_threads
from dermlab.evaluate.metrics import ROUNDING, Evaluation, higher_is_better
from dermlab.evaluate.predictions import Predictions

SIZES = (50, 100, 250, 500, 1000, 2000, 4000, 8000, 16000, 32000)
SHOWN = 12  # pairs in words, those most often reversed first
RARE = 0.05  # a flip rate below this counts as a ranking one can rely on


@dataclass(frozen=True)
class _Pool:
    """The models on the whole table, and what each group adds to the tests of a drawn one."""

    names: tuple[str, ...]
    evaluations: list[Evaluation]
    values: np.ndarray  # (models,), the higher the better
    pairs: list[tuple[int, int]]
    moved: np.ndarray | None  # (pairs, groups) deviations of the differences, None where the metric has none
    only: np.ndarray | None  # (2, pairs, groups) units that only the first, only the second got right: exact McNemar
    strata: list[np.ndarray]  # groups drawn from, kind by kind
    metric: str
    sign: int

    @property
    def n_groups(self) -> int:
        return self.evaluations[0].n_groups


def redraw(
    tables: Mapping[str, Predictions],
    *,
    metric: str = "top1",
    n: int = 250,
    draws: int = 1000,
    sizes: Sequence[int] | None = None,
    stratified: bool = True,
    split: str = "test",
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Any]:
    """Redraw small test sets and return how often they rank and judge the models otherwise than the whole one does.

    Groups are drawn with replacement, as many as hold ``n`` units on average, so that a draw varies as a fresh test set
    of that size would. Each draw tests every pair: exact McNemar for top-1 where no group has several units, else the
    difference over its standard error from the groups' deviations (:mod:`~dermlab.evaluate.influence`; linearised on
    the whole table), Student's t with the groups drawn.

    Args:
        tables: at least two prediction tables of the same units, the larger the better.
        metric: what the models are ranked by.
        n: size of the small test set, in units.
        draws: how many are drawn.
        sizes: further sizes; None: 50, 100, 250, 500, … up to the whole table.
        stratified: keep the mix of classes: groups are drawn from each class's by its share (a group belongs to the
            class most of its units are of).
        split: the split drawn from.
        seed: of the draws.
        level: ``1 - level`` is the level of the small test.

    Returns:
        ``{"metric", "n", "n_groups", "unit", "group_by", "split", "draws", "stratified", "size", "level", "test",
        "order": [names, best first on all], "values": {name: value},
        "sizes": [{"n", "n_groups", "same_order", "winner_differs", "wrong_winner", "unsure"}],
        "pairs": [{"a", "b", "difference", "p", "sizes": [{"n", "flipped", "tied", "significant",
        "significant_wrong"}], "n_for_5_percent", "extrapolated"}], "n_for_5_percent", "extrapolated", "warnings"}``.
        Shares of draws: ``same_order`` no pair reversed; ``winner_differs`` the best on all is not the best of the
        draw; ``wrong_winner`` another is called significantly better than the best on all; ``unsure`` no two models
        are told apart. Of a pair, ``a`` is the better on all: ``flipped`` b is ahead in the draw; ``significant`` the
        test tells them apart, ``significant_wrong`` in favour of b. ``n_for_5_percent`` is the size from which
        ``flipped`` (ties by half) is below 5 %, overall that from which ``winner_differs`` is (the smallest size tried
        where it is so there already); ``extrapolated``: by the normal law, as it lies beyond the table.

    Raises:
        InputError: fewer than two tables, sizes that make no sense, or tables of different units.
    """
    if len(tables) < 2:
        raise InputError("redraw: needs at least two predictions tables")
    sets = aligned(tables, split)
    n_units, n_groups = len(sets[0].units), len(sets[0].groups)
    if n < 2:
        raise InputError(f"n: a test set has at least two units, not {n}")
    if n > n_units:
        raise InputError(f"n: {n} units cannot be drawn from a table of {n_units}; give a size below that")
    if n_groups < 2:
        raise InputError("redraw: all units belong to one group; there is nothing to draw")
    warnings = []
    if stratified and sets[0].sets[0].multilabel:
        stratified = False
        warnings.append("a multi-label target has no classes to stratify by: drawn without")
    pool = _pool(tuple(tables), sets, metric, stratified)
    wanted = sorted({size for size in (sizes or (*SIZES, n_units)) if 2 <= size <= n_units} | {n})
    found = {size: _at_size(pool, max(2, round(size * n_groups / n_units)), draws, seed, level) for size in wanted}
    best = int(np.argmax(pool.values))
    pairs = [_pair_entry(pool, place, found, n_units) for place in range(len(pool.pairs))]
    overall = [(size, one["winner_differs"]) for size, one in found.items()]
    against = [pair for pair in pairs if pool.names[best] in (pair["a"], pair["b"])]
    needed, extrapolated = _crossing(overall)
    if needed is None and all(pair["n_for_5_percent"] is not None for pair in against):
        needed, extrapolated = max(pair["n_for_5_percent"] for pair in against), True
    unclear = [f"{pair['a']} and {pair['b']}" for pair in pairs if pair["p"] is None or pair["p"] >= 1 - level]
    if unclear:
        shown = "; ".join(unclear[:3]) + f"; and {len(unclear) - 3} more pairs" * (len(unclear) > 3)
        warnings.append(f"the whole table does not tell apart {shown}: their order is itself uncertain")
    if n > n_units / 2:
        warnings.append(f"{n} of {n_units} units is no small part: draws repeat groups")
    order = np.argsort(-pool.values, kind="stable")
    return {
        "metric": metric,
        "n": n_units,
        "n_groups": n_groups,
        "unit": next(iter(tables.values())).meta.get("unit", "image"),
        "group_by": group_column(tables),
        "split": split,
        "draws": draws,
        "stratified": stratified,
        "size": n,
        "level": level,
        "test": _test_words(pool),
        "order": [pool.names[place] for place in order],
        "values": {name: number(pool.sign * value) for name, value in zip(pool.names, pool.values, strict=True)},
        "sizes": [
            {
                "n": size,
                "n_groups": max(2, round(size * n_groups / n_units)),
                **{key: number(one[key]) for key in ("same_order", "winner_differs", "wrong_winner", "unsure")},
            }
            for size, one in found.items()
        ],
        "pairs": pairs,
        "n_for_5_percent": needed,
        "extrapolated": extrapolated,
        "warnings": warnings,
    }


def lines(result: Mapping[str, Any]) -> list[str]:
    """Return what :func:`redraw` found in words."""
    values = ", ".join(f"{name} {result['values'][name]:.4f}" for name in result["order"])
    asked = next(one for one in result["sizes"] if one["n"] == result["size"])
    told = [
        f"{result['metric']} on all {result['n']:,} units of {result['n_groups']:,} groups ({result['group_by']}):",
        f"  {values}",
        f"{result['draws']:,} test sets of {result['size']} units{', classes in proportion' * result['stratified']}:",
        f"  another model than {result['order'][0]} comes out best in {_share(asked['winner_differs'])}",
        f"  the order is another in {_share(1 - asked['same_order'])}",
    ]
    if asked["wrong_winner"] is not None:
        told += [
            f"  a test ({result['test']}) calls another significantly better in {_share(asked['wrong_winner'])}",
            f"  it tells no two models apart in {_share(asked['unsure'])}",
        ]
    least = result["sizes"][0]["n"]
    risky = []
    for pair in result["pairs"]:
        here = next(one for one in pair["sizes"] if one["n"] == result["size"])
        risky.append((here["flipped"] + here["tied"] / 2, pair, here))
    risky.sort(key=lambda one: -one[0])
    for _, pair, here in risky[:SHOWN]:
        told.append(
            f"  {pair['a']} − {pair['b']}: {pair['difference']:+.4f} on all; reversed in {_share(here['flipped'])}, "
            f"tied in {_share(here['tied'])}; below 5 % from {_size(pair, least)}"
        )
    told += [f"  {len(risky) - SHOWN} more pairs are reversed less often"] * (len(risky) > SHOWN)
    told.append(f"the winner differs in less than 5 % from {_size(result, least)}")
    return told + [f"warning: {text}" for text in result["warnings"]]


def _share(value: float) -> str:
    return f"{100 * value:.1f} %"


def _size(found: Mapping[str, Any], least: int) -> str:
    needed = found["n_for_5_percent"]
    if needed is None:
        return "no number of units"
    return f"{'about ' * found['extrapolated']}{needed:,} units{' or fewer' * (needed == least)}"


def _pool(names: tuple[str, ...], sets: Sequence[CaseSets], metric: str, stratified: bool) -> _Pool:
    evaluations = [Evaluation(found.sets, [metric]) for found in sets]
    sign = 1 if higher_is_better(metric) else -1
    values = sign * np.array([evaluation.value()[metric] for evaluation in evaluations])
    if np.isnan(values).any():
        raise InputError(f"{metric} is undefined for {names[int(np.flatnonzero(np.isnan(values))[0])]} on these units")
    # In each pair the better one on all stands first.
    pairs = [(i, j) if values[i] >= values[j] else (j, i) for i, j in itertools.combinations(range(len(names)), 2)]
    deviations = [influences(found, [metric]).get(metric) for found in sets]
    moved = only = None
    if all(one is not None for one in deviations):
        totals = [sign * one.total() for one in deviations if one is not None]
        moved = np.stack([totals[i] - totals[j] for i, j in pairs])
    first = sets[0]
    if metric == "top1" and not first.clustered and all(len(found.sets) == 1 for found in sets):
        right = np.zeros((len(sets), len(first.units)))
        for place, found in enumerate(sets):
            right[place, found.sets[0].group] = found.sets[0].correct()
        gap = np.stack([right[i] - right[j] for i, j in pairs])
        only = np.stack([gap > 0, gap < 0]).astype(np.float64)
    kind = _kinds(first) if stratified else np.zeros(len(first.groups), np.int64)
    strata = [np.flatnonzero(kind == code) for code in np.unique(kind)]
    return _Pool(names, evaluations, values, pairs, moved, only, strata, metric, sign)


def _kinds(found: CaseSets) -> np.ndarray:
    """Return the class that most units of each group are of, the rarer one where classes tie: int64 (groups,)."""
    n_classes = len(found.sets[0].classes)
    counts = np.zeros((len(found.groups), n_classes))
    for cases in found.sets:
        np.add.at(counts, (cases.group, cases.truth), 1.0)
    rarity = 1 - counts.sum(axis=0) / counts.sum()
    return (counts + 0.5 * rarity).argmax(axis=1)


def _shares(strata: Sequence[np.ndarray], drawn: int) -> np.ndarray:
    """Divide ``drawn`` groups over the strata by their size, what is left over to the largest remainders."""
    exact = drawn * np.array([len(members) for members in strata]) / sum(len(members) for members in strata)
    given = np.floor(exact).astype(np.int64)
    given[np.argsort(given - exact, kind="stable")[: drawn - given.sum()]] += 1
    return given


def _at_size(pool: _Pool, drawn: int, draws: int, seed: int, level: float) -> dict[str, Any]:
    """Score, rank and test ``draws`` test sets of ``drawn`` groups; return shares overall and (pairs,) shares."""
    given = _shares(pool.strata, drawn)

    def block(number_of_block: int) -> tuple[np.ndarray, np.ndarray | None]:
        size = min(BLOCK, draws - number_of_block * BLOCK)
        random = generator(seed, "redraw", drawn, number_of_block)
        counts = np.zeros((size, pool.n_groups))
        for members, wanted in zip(pool.strata, given, strict=True):
            if wanted:
                chosen = members[random.integers(0, len(members), size=(size, wanted))]
                np.add.at(counts, (np.arange(size)[:, None], chosen), 1.0)
        counts = np.ascontiguousarray(counts.T)
        values = pool.sign * np.stack([evaluation.at(counts)[pool.metric] for evaluation in pool.evaluations])
        return values, _p_values(pool, values, counts, drawn)

    work = float(sum(evaluation.rows.nnz for evaluation in pool.evaluations)) * draws
    blocks = list(in_threads(block, -(-draws // BLOCK), "redrawing test sets", work))
    values = np.concatenate([one for one, _ in blocks], axis=1)
    known = ~np.isnan(values).any(axis=0)
    gaps = np.stack([values[i] - values[j] for i, j in pool.pairs])[:, known]
    best = int(np.argmax(pool.values))
    others = np.delete(values[:, known], best, axis=0)
    result: dict[str, Any] = {
        "flipped": (gaps < -ROUNDING).mean(axis=1),
        "tied": (np.abs(gaps) <= ROUNDING).mean(axis=1),
        "same_order": float((gaps >= -ROUNDING).all(axis=0).mean()),
        "winner_differs": float((others.max(axis=0) > values[best, known] + ROUNDING).mean()),
        "wrong_winner": np.nan,
        "unsure": np.nan,
        "significant": np.full(len(gaps), np.nan),
        "significant_wrong": np.full(len(gaps), np.nan),
    }
    if blocks[0][1] is not None:
        ps = np.concatenate([one for _, one in blocks if one is not None], axis=1)[:, known]
        called = ps < 1 - level
        wrongly = called & (gaps < 0)
        adjusted = _holm_columns(ps) < 1 - level
        beats_best = np.array([i == best for i, _ in pool.pairs])
        result |= {
            "significant": called.mean(axis=1),
            "significant_wrong": wrongly.mean(axis=1),
            "wrong_winner": float((adjusted & (gaps < 0))[beats_best].any(axis=0).mean()),
            "unsure": float((~adjusted).all(axis=0).mean()),
        }
    return result


def _p_values(pool: _Pool, values: np.ndarray, counts: np.ndarray, drawn: int) -> np.ndarray | None:
    """Return (pairs, B) two-sided p of each pair in each draw, None where the metric has no quick test."""
    from scipy.stats import binom, t

    if pool.only is not None:
        a_only, b_only = pool.only[0] @ counts, pool.only[1] @ counts
        return np.minimum(1.0, 2 * binom.cdf(np.minimum(a_only, b_only), a_only + b_only, 0.5))
    if pool.moved is None:
        return None
    gaps = np.stack([values[i] - values[j] for i, j in pool.pairs])
    scale = pool.n_groups / drawn
    squares = (pool.moved**2) @ counts - (pool.moved @ counts) ** 2 / drawn
    error = scale * np.sqrt(np.maximum(squares, 0.0) * drawn / (drawn - 1))
    ratio = np.divide(np.abs(gaps), error, out=np.zeros_like(gaps), where=error > 0)
    # All groups drawn agree to the last bit: the sign test's p, since no spread is no certainty.
    return np.where((error > 0) | (np.abs(gaps) <= ROUNDING), 2 * t.sf(ratio, drawn - 1), 2 * 0.5**drawn)


def _holm_columns(ps: np.ndarray) -> np.ndarray:
    """Return Holm's adjusted p values (Holm 1979) within each column of (tests, B)."""
    order = np.argsort(ps, axis=0, kind="stable")
    steps = np.take_along_axis(ps, order, axis=0) * np.arange(len(ps), 0, -1)[:, None]
    adjusted = np.empty_like(ps)
    np.put_along_axis(adjusted, order, np.minimum(1.0, np.maximum.accumulate(steps, axis=0)), axis=0)
    return adjusted


def _pair_entry(pool: _Pool, place: int, found: Mapping[int, Mapping[str, Any]], n_units: int) -> dict[str, Any]:
    from scipy.special import ndtri
    from scipy.stats import t

    i, j = pool.pairs[place]
    gap, p = float(pool.values[i] - pool.values[j]), np.nan
    needed, extrapolated = _crossing(
        [(size, float(one["flipped"][place] + one["tied"][place] / 2)) for size, one in found.items()]
    )
    if pool.moved is not None:
        error = float(np.sqrt((pool.moved[place] ** 2).sum() * pool.n_groups / (pool.n_groups - 1)))
        p = (
            float(2 * t.sf(gap / error, pool.n_groups - 1))
            if error > 0
            else 1.0
            if gap <= ROUNDING
            else 2 * 0.5**pool.n_groups
        )
        if needed is None and gap > ROUNDING:
            needed, extrapolated = int(np.ceil(n_units * (-ndtri(RARE) * error / gap) ** 2)), True
    keys = ("flipped", "tied", "significant", "significant_wrong")
    return {
        "a": pool.names[i],
        "b": pool.names[j],
        "difference": pool.sign * gap,
        "p": number(p),
        "sizes": [{"n": size, **{key: number(float(one[key][place])) for key in keys}} for size, one in found.items()],
        "n_for_5_percent": needed,
        "extrapolated": extrapolated,
    }


def _crossing(rates: Sequence[tuple[int, float]]) -> tuple[int | None, bool]:
    """Return the size from which the rate stays below 5 %, None where it does not.

    A flip rate is the tail of a normal law whose quantile grows with the root of the size; between two sizes the
    quantile is taken as linear in it.
    """
    from scipy.special import ndtri

    last = next((place for place in range(len(rates) - 1, -1, -1) if rates[place][1] >= RARE), -1)
    if last == len(rates) - 1:
        return None, False
    if last < 0:
        return rates[0][0], False
    (small, above), (large, below) = rates[last], rates[last + 1]
    high, low = ndtri(np.clip([above, below], 1e-4, 0.5))
    share = (high - ndtri(RARE)) / (high - low)
    root = np.sqrt(small) + share * (np.sqrt(large) - np.sqrt(small))
    return int(np.ceil(root**2)), False


def _test_words(pool: _Pool) -> str | None:
    if pool.only is not None:
        return "exact McNemar"
    return None if pool.moved is None else "difference over its standard error by group"
