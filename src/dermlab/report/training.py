"""What a bake-off's page says of trainings: the screening, the learning curves, seeds, and which change gave what."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dermlab.core import words
from dermlab.report import parts

Json = dict[str, Any]
WIDTH, HEIGHT = 300.0, 170.0
BAR, GAP, TALL = 74.0, 26.0, 220.0
CUT = 3.0  # times the median loss beyond which a curve is cut off, so that a divergence does not flatten the others


def screening(part: Json) -> Json:
    """Return what is shown of a screening."""
    label, _, kind = words.metric_words(part["metric"])
    budget, rows = part["budget"], part["rows"]
    chosen = [row["candidate"] for row in rows if row["goes_on"]]
    val = "all of val" if budget["max_val_samples"] is None else f"{budget['max_val_samples']:,} of val"
    sentence = (
        f"Before the full budget each of {words.plural(len(rows), 'recipe')} was trained on the same "
        f"{budget['max_train_samples']:,} photos at most for {budget['frozen_epochs']} + {budget['finetune_epochs']} "
        f"epochs and judged by {label} on {val}, seed {part['seed']}. "
        f"{', '.join(chosen) or 'None'} went on to the full budget. This is not the leaderboard: nothing of test was "
        "read here."
    )
    table = [[row["candidate"], _goes_on(row), row["why"], words.score(row["val_score"], kind)] for row in rows]
    heads = ["Screened recipe", "Goes on", "Why", f"{words.capital(label)} on val, small budget"]
    return {"sentence": sentence, "blocks": [parts.table("Screening", heads, table, text_columns=3)]}


def _goes_on(row: Json) -> str:
    return "yes" if row["goes_on"] else "no"


def recipes(part: Json) -> Json:
    """Return what is shown of the candidates as recipes, over training seeds and groups."""
    groups = words.groups_word(part["group_by"])
    metrics = list(dict.fromkeys(name for recipe in part["recipes"] for name in recipe["metrics"]))
    blocks: list[Json] = []
    for metric in metrics:
        label, _, kind = words.metric_words(metric)
        rows = []
        for recipe in part["recipes"]:
            found = recipe["metrics"][metric]
            by_seed = ", ".join(words.score(value, kind) for value in found["by_seed"])
            rows.append([recipe["name"], str(recipe["n_seeds"]), parts.written(found, kind), by_seed])
        heads = ["Recipe", "Seeds", f"Mean {label} (interval over seeds and {groups})", "Each seed"]
        blocks.append(parts.table(f"Recipes by {label}", heads, rows))
        pairs = [
            [
                f"{pair['a']} − {pair['b']}",
                parts.change(pair, kind, "difference"),
                words.p_value(pair["p_adjusted"]),
                {"a better": f"{pair['a']} better", "b better": f"{pair['b']} better"}.get(
                    pair["verdict"], pair["verdict"]
                ),
            ]
            for pair in part["comparisons"]
            if pair["metric"] == metric
        ]
        heads = ["Recipes", "Difference (interval)", "p after Holm", "Verdict"]
        blocks.append(parts.details(f"Every pair by {label}", parts.table("Pairs of recipes", heads, pairs)))
    decided = [pair for pair in part["comparisons"] if pair["verdict"] != "cannot tell apart"]
    sentence = (
        "The leaderboard compares trained models. About the recipes that made them, which must allow for another seed, "
        f"{words.plural(len(decided), 'pair')} of those below can be told apart"
        if decided
        else "The leaderboard compares trained models. The recipes that made them, which must allow for another seed, "
        "cannot be told apart by these trainings"
    )
    note = (
        "Figures are means over seeds of single networks, not of their ensemble. A head that draws nothing comes out "
        "the same for every seed."
    )
    return {"sentence": f"{sentence}.", "blocks": [*blocks, parts.text(note)]}


# --- learning curves ------------------------------------------------------------------------------------------------


def training(part: Json) -> Json:
    """Return every candidate's learning curves, a figure of small charts, and a table with a row a training."""
    metric = part["metric"]
    label, _, kind = words.metric_words(metric)
    grouped: dict[tuple[str, str], list[Json]] = {}
    for run in part["runs"]:
        grouped.setdefault((run["stage"], run["candidate"]), []).append(run)
    charts, rows = [], []
    for (stage, candidate), runs in grouped.items():
        title = f"{candidate} (screening)" if stage == "screening" else candidate
        curves = mean_curves(runs, f"val_{metric}")
        charts.append(_panel(f"{title}: loss", curves, ("train_loss", "val_loss"), "number", cut=True))
        charts.append(_panel(f"{title}: {label} on val", curves, ("metric",), kind, cut=False))
        rows += [_row(title, run, metric, kind, len(runs)) for run in runs]
    bad = [run for run in part["runs"] if any(alarm["disqualifies"] for alarm in run["alarms"])]
    n_folds = max(len({(run["repeat"], run["fold"]) for run in runs}) for runs in grouped.values())
    over = " A line is the mean over the folds of a seed; the table has each fold." if n_folds > 1 else ""
    sentence = f"{words.plural(len(part['runs']), 'training')}, each with its curves."
    if bad:
        named = ", ".join(dict.fromkeys(run["candidate"] for run in bad))
        sentence += f" {len(bad)} went wrong ({named})."
    note = (
        "Dashed: on train, as trained (with augmentation and dropout, so it may lie above val). Solid: on val. A ring "
        f"marks the epoch whose weights were kept; a colour is a seed.{over}"
    )
    heads = ["Training", "Seed", "Fold", "Epochs", "Kept", "Train loss there", "Val loss there", "Val loss at the end"]
    heads += [f"Val {label} there", "Alarms"]
    return {
        "sentence": sentence,
        "tone": "bad" if bad else "",
        "blocks": [
            {"kind": "curves", "charts": charts},
            parts.text(note),
            parts.details("Every training", parts.table("Trainings", heads, rows)),
        ],
    }


def mean_curves(runs: Sequence[Json], metric: str) -> list[Json]:
    """Return one curve a seed: the mean over its folds at each epoch that some fold reached.

    Returns:
        ``{"seed", "epochs", "train_loss", "val_loss", "metric", "kept"}`` each; None where no fold has a finite value.
    """
    curves = []
    for seed in dict.fromkeys(run["seed"] for run in runs):
        own = [run for run in runs if run["seed"] == seed]
        epochs = list(range(1, max(len(run["history"]) for run in own) + 1))

        def mean(key: str, own: Sequence[Json] = own, epochs: Sequence[int] = epochs) -> list[float | None]:
            return [
                _mean(run["history"][epoch - 1].get(key) for run in own if epoch <= len(run["history"]))
                for epoch in epochs
            ]

        curves.append(
            {
                "seed": seed,
                "epochs": epochs,
                "train_loss": mean("train_loss"),
                "val_loss": mean("val_loss"),
                "metric": mean(metric),
                "kept": round(sum(run["best_epoch"] for run in own) / len(own)),
            }
        )
    return curves


def _mean(values: Any) -> float | None:
    finite = [value for value in values if value is not None and math.isfinite(value)]
    return sum(finite) / len(finite) if finite else None


def _panel(title: str, curves: Sequence[Json], keys: Sequence[str], kind: str, *, cut: bool) -> Json:
    """Place the curves of one candidate in a small chart, in SVG pixels from its upper left corner."""
    values = [value for curve in curves for key in keys for value in curve[key] if value is not None]
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    middle = sorted(values)[len(values) // 2] if values else 0.0
    is_cut = cut and high > CUT * middle > 0
    if is_cut:
        high = CUT * middle
    ticks = nice_ticks(low, high)
    low, high = min(low, ticks[0]), max(high, ticks[-1])
    last = max((curve["epochs"][-1] for curve in curves), default=1)

    def x(epoch: float) -> float:
        return round(WIDTH * (epoch - 1) / max(1, last - 1), 1)

    def y(value: float) -> float:
        return round(HEIGHT * (1 - (min(value, high) - low) / (high - low)), 1)

    lines, kept = [], []
    for place, curve in enumerate(curves):
        for key in keys:
            points = [(x(e), y(v)) for e, v in zip(curve["epochs"], curve[key], strict=True) if v is not None]
            lines.append(
                {
                    "place": place % 6,
                    "dash": "5 4" if key == "train_loss" else "",
                    "points": " ".join(f"{a},{b}" for a, b in points),
                    "dots": points if len(points) < 3 else [],
                }
            )
        value = curve[keys[-1]][curve["kept"] - 1] if 0 < curve["kept"] <= len(curve["epochs"]) else None
        if value is not None:
            kept.append({"x": x(curve["kept"]), "y": y(value), "place": place % 6, "epoch": curve["kept"]})
    steps = max(1, math.ceil((last - 1) / 6))
    return {
        "title": title + (f" (cut at {high:.3g})" if is_cut else ""),
        "width": WIDTH,
        "height": HEIGHT,
        "kind": kind,
        "x_ticks": [(x(epoch), epoch) for epoch in range(1, last + 1, steps)],
        "y_ticks": [(y(tick), words.score(tick, kind) if kind == "share" else f"{tick:.3g}") for tick in ticks],
        "lines": lines,
        "kept": kept,
        "seeds": [{"place": place % 6, "seed": curve["seed"]} for place, curve in enumerate(curves)],
    }


def nice_ticks(low: float, high: float, n: int = 4) -> list[float]:
    """Return round values from at most ``low`` to at least ``high``, about ``n`` steps apart."""
    span = high - low if high > low else max(abs(high), 1e-3)
    raw = span / n
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(size * power for size in (1, 2, 5, 10) if size * power >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(place * step, 10) for place in range(first, max(last, first + 1) + 1)]


def _row(title: str, run: Json, metric: str, kind: str, n_runs: int) -> list[str]:
    history = run["history"]
    best = history[run["best_epoch"] - 1]
    alarms = ", ".join(
        f"{alarm['name']}" + (f" (epoch {alarm['epoch']})" * bool(alarm["epoch"])) for alarm in run["alarms"]
    )
    where = f"{run['fold']}" if not run["repeat"] else f"{run['repeat']}.{run['fold']}"
    return [
        title,
        str(run["seed"]),
        where,
        str(len(history)),
        str(run["best_epoch"]),
        *(_loss(value) for value in (best["train_loss"], best["val_loss"], history[-1]["val_loss"])),
        words.score(best.get(f"val_{metric}"), kind),
        alarms or "–",
    ]


def _loss(value: float | None) -> str:
    return "not finite" if value is None or not math.isfinite(value) else f"{value:.3g}"


# --- which change gave what -----------------------------------------------------------------------------------------


def decomposition(part: Json) -> Json:
    """Return the steps from the baseline to the last candidate: a sentence, a waterfall and tables."""
    label, _, kind = words.metric_words(part["metric"])
    unit = " points" if kind == "share" else ""
    total, steps = part["total"], part["steps"]
    sentence = (
        f"From {part['baseline']['candidate']} to {steps[-1]['candidate']} {label} changed by "
        f"{parts.change(total, kind, 'difference')}{unit} on {parts.measured(part)}: "
        f"{'these data ' if total['verdict'] == 'cannot tell' else ''}{_verdict(total)}."
    )
    known = [step for step in steps if step["verdict"] == "gain"]
    if known:
        most = max(known, key=lambda step: abs(step["difference"]))
        size = f"{words.points(most['difference'], kind)}{unit}"
        sentence += f" The largest step that is more than chance: {most['factor']}, {size}."
    rows = [
        [
            f"+ {step['factor']}",
            step["candidate"],
            _verdict(step),
            words.score(step["value"], kind),
            parts.change(step, kind, "difference"),
            words.p_value(step["p_adjusted"]),
        ]
        for step in steps
    ]
    base = part["baseline"]
    first = ["baseline", base["candidate"], "–", words.score(base["value"], kind), "–", "–"]
    heads = ["Change, in this order", "Candidate", "Verdict", words.capital(label), "Step (95% interval)"]
    heads += ["p after Holm"]
    blocks: list[Json] = [
        {"kind": "waterfall", "chart": waterfall(part, kind)},
        parts.table("Steps in the order run", heads, [first, *rows], text_columns=3),
        parts.text(_over(steps, part)),
    ]
    shapley = part["shapley"]
    if shapley is not None:
        averaged = [
            [item["factor"], _verdict(item), parts.change(item, kind, "difference")] for item in shapley["values"]
        ]
        heads = ["Change", "Verdict", "Mean over all orders (Shapley), 95% interval"]
        blocks.append(parts.table("Mean over all orders", heads, averaged, text_columns=2))
        blocks.append(
            parts.text(
                f"In the order run a change's share depends on what came before it; the mean over all orders of "
                f"{', '.join(shapley['factors'])} does not. Both add up to the same gain.",
                _over(shapley["values"], part),
            )
        )
    all_runs = [
        [" + ".join(run["factors"]) or "none", run["candidate"], str(run["n_seeds"]), parts.written(run, kind)]
        for run in part["runs"]
    ]
    blocks.append(
        parts.details(
            "Every candidate that took part",
            parts.table(
                "Candidates by their factors", ["Factors", "Candidate", "Seeds", words.capital(label)], all_runs
            ),
        )
    )
    return {"sentence": sentence, "blocks": blocks}


def _verdict(entry: Mapping[str, Any]) -> str:
    said = {"gain": "a gain", "loss": "a loss"}
    return said.get(entry["verdict"], "cannot tell")


def _over(steps: Sequence[Json], part: Json) -> str:
    """Say what the steps' intervals are drawn over, in the data's own words."""
    groups = words.groups_word(part["group_by"])
    named: dict[str, list[str]] = {}
    for step in steps:
        named.setdefault(str(step["over"]).replace("groups", groups), []).append(step["factor"])
    if len(named) == 1:
        return f"Intervals are over {next(iter(named))}."
    told = [f"over {over}: {', '.join(factors)}" for over, factors in named.items()]
    return f"Intervals {'; '.join(told)}. Those over {groups} alone are about these trained models."


def waterfall(part: Json, kind: str) -> Json:
    """Place the bars of the steps, each from the value before it to the one after, with the step's interval."""
    base, steps = part["baseline"], part["steps"]
    values = [base["value"], *(step["value"] for step in steps)]
    ends = [
        values[place] + step[key]
        for place, step in enumerate(steps)
        for key in ("low", "high")
        if step[key] is not None
    ]
    # No metric here exceeds 1, and a share is not below 0: an interval that does is drawn to the frame.
    ends = [min(1.0, end if min(values) < 0 else max(0.0, end)) for end in ends]
    ticks = nice_ticks(min([*values, *ends]), max([*values, *ends]))
    low, high = ticks[0], ticks[-1]

    def y(value: float) -> float:
        return round(TALL * (1 - (min(max(value, low), high) - low) / (high - low)), 1)

    def bar(place: int, start: float, end: float, label: str, said: str, tone: int) -> Json:
        top, bottom = sorted((y(start), y(end)))
        x = place * (BAR + GAP)
        return {
            **{"x": x, "middle": x + BAR / 2, "top": top, "height": max(1.5, round(bottom - top, 1)), "tone": tone},
            **{"label": label, "said": said, "low": None, "high": None},
        }

    bars = [bar(0, low, values[0], "baseline", words.score(values[0], kind), 0)]
    for place, step in enumerate(steps, 1):
        tone = {"gain": 2, "loss": 1}.get(step["verdict"], 4)
        drawn = bar(
            place, values[place - 1], values[place], f"+ {step['factor']}", words.points(step["difference"], kind), tone
        )
        if step["low"] is not None:
            drawn |= {"low": y(values[place - 1] + step["low"]), "high": y(values[place - 1] + step["high"])}
        bars.append(drawn)
    bars.append(bar(len(steps) + 1, low, values[-1], "all", words.score(values[-1], kind), 0))
    return {
        "width": len(bars) * (BAR + GAP),
        "height": TALL,
        "bar": BAR,
        "bars": bars,
        "y_ticks": [(y(tick), words.score(tick, kind)) for tick in ticks],
        "label": words.metric_words(part["metric"])[0],
    }


VIEWS: dict[str, Callable[[Json], Json]] = {
    "screening": screening,
    "training": training,
    "recipes": recipes,
    "decomposition": decomposition,
}
