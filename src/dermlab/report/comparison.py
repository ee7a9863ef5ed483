"""The page of a paired comparison: ``comparison.json`` (and ``seeds.json``) in, ``comparison.html`` out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dermlab.core import words
from dermlab.core.errors import InputError
from dermlab.core.files import read_json, write_text
from dermlab.evaluate.compare import margin_sentence, ranks, within_margin
from dermlab.report import html, plots, provenance

UNBOUNDED = (-math.inf, math.inf)
TRAINED = "Of these trained models only, which is a narrower claim:"
Json = dict[str, Any]


def write_comparison(folder: str | Path) -> Path:
    """Write ``comparison.html`` into a folder that holds ``comparison.json``, and perhaps ``seeds.json``.

    Raises:
        InputError: there is no ``comparison.json``, or it is no list of pairs.
    """
    folder = Path(folder)
    entries = read_json(folder / "comparison.json")
    if not isinstance(entries, list) or not entries or "verdict" not in entries[0]:
        raise InputError(f"{folder / 'comparison.json'}: holds no compared pairs; run dermlab compare again")
    seeds = folder / "seeds.json"
    shown = view(entries, read_json(seeds) if seeds.exists() else None)
    shown["origin"] = provenance.shown(folder)
    return write_text(folder / "comparison.html", html.page("comparison.html", shown))


def view(entries: Sequence[Json], seeds: Json | None = None) -> Json:
    """Return the variables of ``comparison.html``.

    Args:
        entries: the content of ``comparison.json``.
        seeds: the content of ``seeds.json``, where several training seeds were compared.
    """
    first = entries[0]
    names = list(dict.fromkeys(name for entry in entries for name in (entry["a"], entry["b"])))
    groups = words.groups_word(first.get("group_by"))
    held = f" of {words.count(first['n_groups'])} {groups}" if first["n_groups"] < first["n"] else ""
    measured = f"{words.count(first['n'])} paired test cases{held}"
    metrics = [
        _metric(place, metric, [entry for entry in entries if entry["metric"] == metric], names)
        for place, metric in enumerate(dict.fromkeys(entry["metric"] for entry in entries))
    ]
    told = list(dict.fromkeys(text for entry in entries for text in entry.get("warnings", [])))
    told += [text for text in (seeds or {}).get("warnings", []) if text not in told]
    if first.get("margin") is not None:
        told.append(margin_sentence(entries))
    sentence, leading = metrics[0]["sentence"], list(entries)
    if seeds is not None and seeds["comparisons"]:
        # A claim about how models are made needs seeds; the narrower one about these checkpoints comes second.
        leading = seeds["comparisons"]
        sentence = f"{_over_seeds(seeds)} {TRAINED} {sentence[0].lower()}{sentence[1:]}"
    decided = any(entry["verdict"] != "cannot tell apart" for entry in leading)
    return {
        "title": " against ".join(names) if len(names) <= 3 else f"{len(names)} models compared",
        "tone": "winner" if decided else "cannot-tell",
        "sentence": f"{sentence} Measured on {measured}.",
        "notes": [words.capital(text) + "." for text in told],
        "metrics": metrics,
        "groups_word": groups,
        "seeds": None if seeds is None else _seeds(seeds),
    }


def _metric(place: int, metric: str, entries: Sequence[Json], names: Sequence[str]) -> Json:
    """Return what is shown of one metric."""
    label, short, kind = words.metric_words(metric)
    placed = ranks(entries, names, metric)
    values: dict[str, float | None] = {}
    for entry in entries:
        values.setdefault(entry["a"], entry.get("value_a"))
        values.setdefault(entry["b"], entry.get("value_b"))
    pairs = [
        {**entry, "interval": words.gap_span(entry, kind), "verdict_words": verdict_words(entry)} for entry in entries
    ]
    rows = [
        {
            "label": f"{pair['a']} − {pair['b']}",
            "tags": [_tag(pair)],
            "note": "",
            "kind": "candidate" if pair["verdict"] != "cannot tell apart" else "floor",
            "metric": {"value": pair["difference"], "low": pair["low"], "high": pair["high"]},
            "shown": words.points(pair["difference"], kind),
            "within": pair["interval"],
        }
        for pair in pairs
    ]
    drawn = [pair[key] for pair in pairs for key in ("difference", "low", "high")]
    margin = entries[0].get("margin")
    edges = [] if margin is None else [-margin, margin]
    return {
        "id": f"metric-{place}",
        "label": label,
        "short": short,
        "kind": kind,
        "sentence": words.capital(_sentence(label, entries, placed)),
        "rows": rows,
        "axis": plots.axis([*drawn, 0.0, *edges], bounds=UNBOUNDED),
        "edges": edges,
        "ticks": "points" if kind == "share" else "signed",
        "margin": None if margin is None else words.margin(margin, kind),
        "pairs": pairs,
        "ranks": [
            {"name": name, "rank": placed[name], "value": values.get(name)}
            for name in sorted(names, key=lambda name: placed[name])
        ],
    }


def _sentence(label: str, entries: Sequence[Json], placed: Mapping[str, int]) -> str:
    """Say who is better by a metric, and who cannot be told apart."""
    if len(entries) == 1:
        (entry,) = entries
        kind = words.metric_words(entry["metric"])[2]
        unit = " points" if kind == "share" else ""
        size = f"{words.points(entry['difference'], kind)}{unit} ({words.gap_span(entry, kind)})"
        if entry["verdict"] == "cannot tell apart":
            return f"by {label} these data cannot tell {entry['a']} and {entry['b']} apart; the difference is {size}."
        return f"by {label} {verdict_words(entry)}; {entry['a']} minus {entry['b']} is {size}."
    best = [name for name, rank in placed.items() if rank == 1]
    rest = [name for name in placed if name not in best]
    unsure = sum(entry["verdict"] == "cannot tell apart" for entry in entries)
    if not rest and unsure == len(entries):
        return f"by {label} these data can tell none of the {len(placed)} models apart."
    beaten = [
        entry for entry in entries if entry["verdict"] != "cannot tell apart" and best[0] in (entry["a"], entry["b"])
    ]
    if len(best) == 1 and len(beaten) == len(placed) - 1:
        text = f"by {label} {best[0]} is better than every other model"
    else:
        text = f"by {label} no model is significantly better than {' or '.join(best)}"
    if not unsure:
        return f"{text}, and all other pairs differ too."
    return f"{text}; {unsure} of {words.plural(len(entries), 'pair')} cannot be told apart by these data."


def verdict_words(entry: Mapping[str, Any]) -> str:
    """Put the verdict of a pair into words, with the names in place of a and b, and what a margin showed."""
    names = {"a better": f"{entry['a']} is better", "b better": f"{entry['b']} is better"}
    text = names.get(entry["verdict"], str(entry["verdict"]))
    if entry.get("margin") is None:
        return text
    return f"{text}; {', '.join(within_margin(entry)) or 'nothing shown by the margin'}"


def _tag(pair: Json) -> Json:
    if pair["verdict"] == "cannot tell apart":
        return {"text": "cannot tell apart", "tone": "unsure"}
    return {"text": "first better" if pair["verdict"] == "a better" else "second better", "tone": "good"}


def _over_seeds(seeds: Json) -> str:
    """Say who is better as a recipe, over training seeds, by the first metric."""
    entries = [entry for entry in seeds["comparisons"] if entry["metric"] == seeds["comparisons"][0]["metric"]]
    label = words.metric_words(entries[0]["metric"])[0]
    runs = {recipe["name"]: recipe["n_seeds"] for recipe in seeds["recipes"]}
    text = _sentence(label, entries, ranks(entries, list(runs), entries[0]["metric"]))
    counts = ", ".join(f"{name} {n}" for name, n in runs.items())
    return f"As recipes, over training seeds ({counts}), {text}"


def _seeds(seeds: Json) -> Json:
    """Lay out recipes and their differences, one row for each metric."""
    recipes = [
        {"name": recipe["name"], "n_seeds": recipe["n_seeds"], "metric": metric, **_named(name)}
        for recipe in seeds["recipes"]
        for name, metric in recipe["metrics"].items()
    ]
    comparisons = [
        {
            **entry,
            **_named(entry["metric"]),
            "interval": words.gap_span(entry, words.metric_words(entry["metric"])[2]),
            "verdict_words": verdict_words(entry),
        }
        for entry in seeds["comparisons"]
    ]
    return {
        "recipes": recipes,
        "comparisons": comparisons,
        "groups_word": words.groups_word(seeds.get("group_by")),
    }


def _named(metric: str) -> Json:
    label, _, kind = words.metric_words(metric)
    return {"label": label, "kind": kind}
