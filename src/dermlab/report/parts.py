"""What the pages say of each further analysis: its JSON turned into a sentence and a few blocks, drawn by one template.

A part is ``{"id", "title", "sentence", "tone", "notes", "blocks"}``. A block is a figure (``forest``, ``chart``,
``reliability``), a ``table``, a ``text``, or ``details`` that fold other blocks away. Numbers are written here; the
template escapes and places them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from dermlab.core import words
from dermlab.evaluate.conformal import FEW_GROUPS
from dermlab.evaluate.fitting import TOO_FEW
from dermlab.evaluate.levels import NOT_RECORDED
from dermlab.report import plots

Json = dict[str, Any]
UNBOUNDED = (-float("inf"), float("inf"))
TITLES = {
    "leak": "How much of the accuracy is the leak",
    "screening": "Screening on a small budget",
    "recipes": "Recipes over training seeds",
    "decomposition": "Which change gave what",
    "training": "Learning curves",
    "subgroups": "For whom it works less well",
    "calibration": "Calibration, before and after correction",
    "referral": "What could be referred to a person",
    "selective": "Does it know when it does not know",
    "conformal": "Differential diagnosis of a stated coverage",
    "hierarchy": "Benign or malignant",
    "costs": "Decisions that weigh errors",
    "frequency": "Rare classes",
    "prior_shift": "At another prevalence",
    "seeds": "Over training seeds",
    "robustness": "On poor photos",
    "unseen": "Diagnoses it was never taught",
    "label_efficiency": "How many labels it takes",
}
DIFFER = "levels differ"
OF_LABEL = ("recall", "specificity", "auroc", "auprc")
HALF = 0.5  # from where a label is called if val chose nothing
VERDICTS = {"held": "good", "broken": "bad", "cannot tell": "unsure", "too few": "unsure"}


def view(parts: Mapping[str, Json], said: Collection[str] = ()) -> list[Json]:
    """Return what is shown of each part, in the order of :data:`TITLES`.

    Args:
        parts: JSON results by name; one that could not be computed holds ``{"skipped": reason}``.
        said: warnings that the page says elsewhere, and that are not repeated with each part.
    """
    shown = []
    for name, title in TITLES.items():
        part = parts.get(name)
        if part is None:
            continue
        heading: Json = {"id": name.replace("_", "-"), "name": name, "title": title, "tone": ""}
        if "skipped" in part:
            reason = f"Not computed: {part['skipped'].rstrip('.')}."
            shown.append({**heading, "sentence": reason, "skipped": True, "notes": [], "blocks": []})
            continue
        told = [words.capital(text).rstrip(".") + "." for text in part.get("warnings", []) if text not in said]
        shown.append({**heading, "skipped": False, "notes": told, **VIEWS[name](part)})
    return shown


def lines(parts: Mapping[str, Json]) -> list[str]:
    """Return one line a part for a terminal."""
    return [f"{part['title'].lower()}: {part['sentence']}" for part in view(parts)]


# --- pieces ---------------------------------------------------------------------------------------------------------


def percent(estimate: Mapping[str, Any] | None) -> str:
    """Write a share with its interval: ``61.3% (54.2–68.1)``."""
    return written(estimate, "share")


def number(estimate: Mapping[str, Any] | None) -> str:
    """Write a number with its interval: ``0.885 (0.861–0.902)``."""
    return written(estimate, "number")


def written(estimate: Mapping[str, Any] | None, kind: str) -> str:
    """Write an estimate with its interval in the way of its kind."""
    if not estimate or estimate.get("value") is None:
        return "n/a"
    return f"{words.score(estimate['value'], kind)} ({words.span(estimate, kind)})"


def change(estimate: Mapping[str, Any], kind: str, key: str = "value") -> str:
    """Write a difference with its interval, signed."""
    if estimate.get(key) is None:
        return "n/a"
    text = words.points(estimate[key], kind)
    if estimate.get("low") is None or estimate.get("high") is None:
        return f"{text} (no interval)"
    return f"{text} ({words.points(estimate['low'], kind)} to {words.points(estimate['high'], kind)})"


def measured(part: Mapping[str, Any]) -> str:
    """Say on how many something was measured: ``842 photos of 657 patients``."""
    unit, groups = words.units_word(part["unit"], part["n"]), words.groups_word(part["group_by"])
    of = f" of {words.count(part['n_groups'])} {groups}" if part["n_groups"] < part["n"] else ""
    return f"{words.count(part['n'])} {unit}{of}"


def row(label: str, metric: Mapping[str, Any] | None, note: str = "", *tags: Json, kind: str = "candidate") -> Json:
    """Return one row of a forest."""
    return {"label": label, "tags": list(tags), "note": note, "kind": kind, "metric": metric}


def forest(rows: Sequence[Json], kind: str = "share", guide: float | None = None, legend: str = "") -> Json:
    """Return a figure of values with intervals; shares keep the whole scale from 0 to 100 %."""
    drawn = [0.0, 1.0] if kind == "share" else [(item["metric"] or {}).get(k) for item in rows for k in _ENDS]
    axis = plots.axis(drawn, bounds=(0.0, 1.0) if kind == "share" else UNBOUNDED)
    return {"kind": "forest", "rows": list(rows), "axis": axis, "scale": kind, "guide": guide, "legend": legend}


_ENDS = ("value", "low", "high")


def table(caption: str, head: Sequence[str], rows: Sequence[Sequence[Any]], *, text_columns: int = 1) -> Json:
    """Return a table; the first ``text_columns`` columns are words, the others numbers."""
    heads = [{"text": text, "num": place >= text_columns} for place, text in enumerate(head)]
    cells = [
        [{"text": words.plain(value), "num": place >= text_columns} for place, value in enumerate(line)]
        for line in rows
    ]
    return {"kind": "table", "caption": caption, "head": heads, "rows": cells}


def labels_table(metrics: Mapping[str, Any]) -> Json | None:
    """Return the table of a multi-label ``metrics.json``, a row a label; None for other targets."""
    if metrics.get("kind") != "multilabel":
        return None
    thresholds = metrics.get("thresholds") or {}
    rows = [
        [
            name,
            words.count(found["n"]),
            words.score(thresholds.get(name, HALF), "number"),
            *(written(found.get(key), words.metric_words(key)[2]) for key in OF_LABEL),
        ]
        for name, found in metrics["per_class"].items()
    ]
    heads = ["Label", "n", "Threshold", "Sensitivity", "Specificity", "AUROC", "Average precision"]
    return table("Labels", heads, rows)


def text(*sentences: str) -> Json:
    """Return a paragraph in small print."""
    return {"kind": "text", "text": " ".join(sentence for sentence in sentences if sentence)}


def details(summary: str, *blocks: Json) -> Json:
    """Return blocks folded away under a line."""
    return {"kind": "details", "summary": summary, "blocks": list(blocks)}


def tag(verdict: str) -> Json:
    """Return a verdict as a tag, in words and a tone."""
    return {"text": verdict, "tone": VERDICTS.get(verdict, "")}


# --- the parts ------------------------------------------------------------------------------------------------------


def _calibration(part: Json) -> Json:
    chosen, before = part["chosen"], part["before"]
    after = chosen["after"]
    was, now = number(before["ece"]), number(after["ece"])
    if chosen["method"] == "none":
        sentence = f"Its calibration error is {was}; no correction fitted on {part['fitted_on']} made it better."
    else:
        verdict = {
            "better": "the correction helps",
            "worse": "the correction harms",
            "cannot tell": "whether the correction helps these data cannot tell",
        }[chosen["verdict"]]
        how = "by the method that each fold chose" if chosen["method"] == "mixed" else f"by {chosen['method']} scaling"
        how = how.replace("isotonic scaling", "isotonic regression")
        sentence = (
            f"Its calibration error is {was}; corrected {how}, fitted on {part['fitted_on']} alone, {now}. By the log "
            f"loss, {change(chosen['change']['log_loss'], 'number')}, {verdict}."
        )
    figures = [
        {"title": "Before", "points": plots.reliability_points(part["reliability"])},
        {"title": "After", "points": plots.reliability_points(chosen["reliability"])},
    ]
    metrics = [name for name in ("log_loss", "brier", "ece", "ece_equal_mass", "top1") if name in before]
    heads = [words.metric_words(name)[1] for name in metrics]
    kinds = [words.metric_words(name)[2] for name in metrics]
    rows: list[list[str]] = [
        ["none", *(written(before[name], kind) for name, kind in zip(metrics, kinds, strict=True))]
    ]
    refused = []
    for method, found in part["methods"].items():
        if found.get("refused"):
            refused.append(f"{words.capital(method)}: {found['refused']}.")
        else:
            rows.append([method, *(written(found["after"][n], k) for n, k in zip(metrics, kinds, strict=True))])
    rows.append([f"chosen ({chosen['method']})", *(written(after[n], k) for n, k in zip(metrics, kinds, strict=True))])
    chance = before["ece"].get("if_calibrated")
    note = f"A perfectly calibrated model would show an error of {chance:.3f} on so many cases." if chance else ""
    shown = table("What each correction does, on test", ["Correction", *heads], rows)
    return {
        "sentence": sentence,
        "blocks": [
            {"kind": "reliability", "figures": figures},
            text(note),
            details("Every correction tried", shown, text(*refused)),
        ],
    }


def _selective(part: Json) -> Json:
    curve = part["curve"]
    at = min(curve, key=lambda point: abs(point["coverage"] - 0.8))
    sentence = (
        f"Of all {measured(part)} it gets {percent(part['error'])} wrong; of the {at['coverage']:.0%} it is surest of, "
        f"{percent(at['risk'])}."
    )
    chart = plots.chart(
        [
            plots.Line(
                "error among the cases kept",
                tuple(point["coverage"] for point in curve),
                tuple(point["risk"]["value"] for point in curve),
                tuple(point["risk"]["low"] for point in curve),
                tuple(point["risk"]["high"] for point in curve),
            )
        ],
        x="share of cases kept, the surest first",
        y="wrong among them",
        x_kind="share",
        y_kind="share",
    )
    note = (
        f"Area under the curve (AURC): {number(part['aurc'])}; above the best order possible: "
        f"{number(part['excess_aurc'])}."
    )
    return {"sentence": sentence, "blocks": [{"kind": "chart", "chart": chart}, text(note)]}


def _referral(part: Json) -> Json:
    blocks: list[Json] = []
    for rule in part["rules"]:
        rows = [
            ["cases kept", percent(rule["coverage"])],
            ["wrong among the kept", percent(rule["error_kept"])],
            ["wrong among the referred", percent(rule["error_referred"])],
            ["wrong among all, without referral", percent(rule["error_all"])],
        ]
        if _refers_all(rule):
            rows = [rows[0], rows[3]]  # none is kept: what is wrong among them is no number
        blocks.append(
            {"kind": "verdicts", "items": [{"said": _promise(p), **tag(p["verdict"])} for p in rule["promises"]]}
        )
        blocks.append(table(f"Rule {_rule(rule)}", [f"Rule {_rule(rule)}", "On test (95% interval)"], rows))
        by_class = [row(name, found["referred"], f"n = {found['n']:,}") for name, found in rule["per_class"].items()]
        blocks.append(details(f"Share of each class that {_rule(rule)} refers", forest(by_class)))
    told = "; ".join(f"{_rule(rule)} {_outcome(rule)}" for rule in part["rules"])
    sentence = (
        f"{'A rule' if len(part['rules']) == 1 else 'Rules'} chosen on val and tested on {measured(part)}: {told}."
    )
    return {"sentence": sentence, "blocks": blocks}


def _refers_all(rule: Json) -> bool:
    return rule["coverage"]["value"] == 0


def _outcome(rule: Json) -> str:
    """Say what became of a rule on test: its promises first, then what it costs."""
    if _refers_all(rule):
        return "refers everybody, so it decides nothing"
    reached = []
    for promise in rule["promises"]:
        found = "no case on test" if promise["found"]["value"] is None else percent(promise["found"])
        held = {"held": "held", "broken": "not held", "cannot tell": "within chance of it"}[promise["verdict"]]
        counts = f"n = {promise['n']:,}; {promise['aim']:.0%} promised, {held}"
        if promise["kind"] == "error":
            reached.append(f"keeps cases of which {found} are wrong ({counts})")
        else:
            reached.append(f"refers {found} of {'+'.join(promise['classes'])} ({counts})")
    sure = (
        ""
        if any(p["kind"] == "error" for p in rule["promises"])
        else (f"; of those kept {percent(rule['error_kept'])} are wrong")
    )
    helpless = sum(bool(fold.get("refers_all")) for fold in rule["thresholds"])
    folds = f" (everybody in {helpless} of {len(rule['thresholds'])} folds)" if helpless else ""
    total = f"refers {rule['referred_per_100']['value']:.0f} of 100 cases in all{folds}"
    return f"{' and '.join(reached)}, and {total}{sure}"


def _rule(rule: Json) -> str:
    return str(rule["rule"]).replace("<=", " ≤ ").replace(">=", " ≥ ")


def _promise(promise: Json) -> str:
    """Put a promise and what became of it into words, without its verdict."""
    return str(promise["statement"]).rsplit(":", 1)[0]


def _conformal(part: Json) -> Json:
    aim, found = part["coverage_aimed"], part["coverage_of_groups"]
    verdict = {"held": "the promise held", "broken": "the promise did not hold", "cannot tell": "within chance of it"}
    said = verdict.get(part["verdict"], part["verdict"])
    known = {name: item for name, item in part["per_class"].items() if item["coverage"]["value"] is not None}
    worst = sorted(known, key=lambda name: known[name]["coverage"]["value"])
    # Below by the plain interval: a reader of one class has no use for a correction that hides it.
    below = [name for name in worst if (known[name]["coverage"]["high"] or 1.0) < aim] or worst[:1]
    told = ", ".join(f"{name} in {percent(known[name]['coverage'])}, n = {known[name]['n']:,}" for name in below)
    sentence = (
        f"Instead of one answer, the classes that cannot be excluded at {aim:.0%}: on average "
        f"{part['mean_size']['value']:.2f} of {len(part['per_class'])}. They hold the true class least often for "
        f"{told}; over all cases in {percent(found)} ({words.groups_word(part['group_by'])} weighing alike; "
        f"{aim:.0%} was stated): {said}.{_carried(part)}"
    )
    sizes = [[f"{size}", words.whole(share)] for size, share in enumerate(part["sizes"])]
    classes = [
        row(
            name,
            item["coverage"],
            f"n = {item['n']:,}, {(item['mean_size'] or {}).get('value') or 0:.1f} classes",
            *_broken(item),
        )
        for name, item in part["per_class"].items()
    ]
    blocks = [
        forest(classes, guide=aim, legend="share of the class's cases whose set holds it; dashed: the coverage stated"),
        text(
            f"One class alone stands in {percent(part['share_single'])} of sets, and is right in "
            f"{percent(part['accuracy_of_single'])} of these.",
            "" if part["class_conditional"] else "The coverage is promised over all cases, not for each class.",
            _verdict_rule(part),
        ),
        details("How many classes the sets hold", table("Size of the sets", ["Classes in the set", "Share"], sizes)),
    ]
    for column, levels in part.get("subgroups", {}).items():
        rows = [row(item["level"], item["coverage"], f"n = {item['n']:,}", *_broken(item)) for item in levels]
        blocks.append(details(f"Coverage by {column}", forest(rows, guide=aim)))
    broken = [item for item in (part, *part["per_class"].values()) if item["verdict"] == "broken"]
    return {"sentence": sentence, "tone": "bad" if broken else "", "blocks": blocks}


def _verdict_rule(part: Json) -> str:
    """Say by which interval a class, or a subgroup, is called below the coverage stated."""
    levels = part["interval"].get("level_of_verdicts") or {}
    told = ", ".join(
        f"the {100 * levels[key]:.4g}% one for {what}" for key, what in _FAMILIES.items() if levels.get(key) is not None
    )
    rule = (
        f"intervals shown are {part['interval']['level']:.0%} ones; 'below the coverage stated' is said only where a "
    )
    rule += f"wider one, which allows for how many are looked at, lies below it ({told}); of fewer than {FEW_GROUPS} "
    return words.capital(f"{rule}{words.groups_word(part['group_by'])} nothing is said ('{TOO_FEW}').") if told else ""


_FAMILIES = {"per_class": "classes", "subgroups": "subgroups"}


def _carried(part: Json) -> str:
    """Name the cases of which nothing is recorded where they alone bring the total up."""
    found = []
    for column, levels in part.get("subgroups", {}).items():
        known = [item for item in levels if item["coverage"]["value"] is not None]
        without = next((item for item in known if item["level"] == NOT_RECORDED), None)
        recorded = [item for item in known if item["level"] != NOT_RECORDED]
        n = sum(item["n"] for item in recorded)
        if without is None or not n or without["verdict"] == TOO_FEW:
            continue
        rest = sum(item["n"] * item["coverage"]["value"] for item in recorded) / n
        if rest < part["coverage_aimed"] <= without["coverage"]["value"]:
            found.append((rest, n, column, without))
    if not found:
        return ""
    rest, n, column, without = min(found, key=lambda item: item[0])
    return (
        f" The total is carried by the {without['n']:,} cases whose {column} is not recorded "
        f"({words.score(without['coverage']['value'])}); for the {n:,} others it is {words.score(rest)}."
    )


def _broken(item: Json) -> list[Json]:
    if item["verdict"] == TOO_FEW:
        return [tag(TOO_FEW)]
    return [tag("below the coverage stated") | {"tone": "bad"}] if item["verdict"] == "broken" else []


def _subgroups(part: Json) -> Json:
    metric = "top1" if "top1" in part["metrics"] else part["metrics"][0]
    label, _, kind = words.metric_words(metric)
    looked = sum(len(column["levels"]) for column in part["columns"].values())
    # What is worse by an average over the same classes does not come from a group's mix of diagnoses.
    worse = [item for item in part["worse"] if item["metric"] != "top1"] or part["worse"]
    if worse:
        first = worse[0]
        name, _, how = words.metric_words(first["metric"])
        others = {(item["column"], item["level"]) for item in part["worse"]} - {(first["column"], first["level"])}
        more = f", and by some measure for {len(others)} more" if others else ""
        sentence = (
            f"It does worse for {first['column']} = {first['level']}: {name} "
            f"{change(first, how, 'difference')}{' points' if how == 'share' else ''} against everybody else"
            f"{more} (adjusted for all {part['n_tests']} tests)."
        )
        if first["metric"] == "top1":
            sentence += " By averages over the same classes none is shown to be: its diagnoses may be the harder ones."
    elif part["columns"]:
        sentence = (
            f"No subgroup is significantly worse than the rest by any measure (of {looked} looked at, adjusted for all "
            f"{part['n_tests']} tests); with so few cases in many of them that is no proof that all fare alike."
        )
    else:
        sentence = "The table has no column that describes the patients, so nobody can say for whom it works less well."
    passed = part.get("not_looked_at") or []
    if passed:
        sentence += f" Not looked at: {', '.join(passed)}."
    gaps = _gaps(part, metric)
    differing = [(gap, name) for gap, name in gaps if gap["verdict"] == DIFFER]
    if differing:
        told = "; ".join(
            f"by {name} {words.score(gap['group_min'], kind)} ({gap['worst']}) to "
            f"{words.score(gap['group_max'], kind)} ({gap['best']})"
            for gap, name in differing
        )
        sentence += f" Levels differ in {label}: {told}."
    blocks: list[Json] = []
    if gaps:
        blocks.append(_gap_table(part, gaps, metric))
    fair = _gaps(part, "balanced_accuracy") if metric != "balanced_accuracy" else []
    if gaps and metric == "top1":
        blocks.append(text("Top-1 accuracy also tells which diagnoses a group has: some are harder than others."))
    if fair:
        note = "Averaged, within each row, over the classes of which every level has enough cases."
        blocks.append(details("The gaps by balanced accuracy", _gap_table(part, fair, "balanced_accuracy"), text(note)))
    ranked = [name for _, name in gaps]
    ordered = sorted(
        part["columns"].items(), key=lambda item: ranked.index(item[0]) if item[0] in ranked else len(ranked)
    )
    for place, (name, column) in enumerate(ordered):
        levels = sorted(column["levels"], key=lambda item: _value(item["metrics"].get(metric)))
        rows = [
            row(
                item["level"],
                item["metrics"].get(metric),
                f"n = {item['n']:,}",
                *([] if item["claimed"] else [{"text": "too few to say", "tone": "unsure"}]),
                *([{"text": "worse than the rest", "tone": "bad"}] if _is_worse(item, metric) else []),
                kind="candidate" if item["claimed"] else "floor",
            )
            for item in levels
        ]
        overall = (part["overall"].get(metric) or {}).get("value")
        drawn = forest(rows, kind, overall, f"{label}; dashed: all cases together")
        summary = f"By {name}{', estimated from the photo' if column['estimated'] else ''}"
        blocks += [{"kind": "heading", "text": summary}, drawn] if place == 0 else [details(summary, drawn)]
    if part["not_claimed"]:
        told_of = [[item["column"], item["level"], f"{item['n']:,}", item["why"]] for item in part["not_claimed"]]
        shown = table("Levels of which nothing is claimed", ["By", "Level", "n", "Why"], told_of, text_columns=4)
        blocks.append(details(f"{words.plural(len(told_of), 'level')} too small for any claim", shown))
    return {"sentence": sentence, "tone": "bad" if worse else "", "blocks": blocks}


def _gaps(part: Json, metric: str) -> list[tuple[Json, str]]:
    """Return the gap of each column by a metric, those that are more than chance first, then the largest."""
    found = [((column.get("gaps") or {}).get(metric), name) for name, column in part["columns"].items()]
    known = [(gap, name) for gap, name in found if gap and gap.get("worst") is not None]
    return sorted(known, key=lambda item: (item[0]["verdict"] != DIFFER, -(item[0]["difference"]["value"] or 0.0)))


def _gap_table(part: Json, gaps: Sequence[tuple[Json, str]], metric: str) -> Json:
    label, _, kind = words.metric_words(metric)
    rows = []
    for gap, name in gaps:
        n = {item["level"]: item["n"] for item in part["columns"][name]["levels"]}
        rows.append(
            [
                name + (" (estimated)" if part["columns"][name]["estimated"] else ""),
                f"{gap['worst']}: {words.score(gap['group_min'], kind)} (n = {n.get(gap['worst'], 0):,})",
                f"{gap['best']}: {words.score(gap['group_max'], kind)} (n = {n.get(gap['best'], 0):,})",
                gap["verdict"],
                change(gap["difference"], kind).replace("+", ""),
                words.unsigned(words.points(gap["difference_by_chance"], kind)),
            ]
        )
    heads = ["By", "Worst", "Best", "Verdict", "Gap, points" if kind == "share" else "Gap", "By chance"]
    return table(f"Largest gaps in {label}", heads, rows, text_columns=4)


def _value(metric: Json | None) -> float:
    return metric["value"] if metric and metric.get("value") is not None else 2.0


def _is_worse(item: Json, metric: str) -> bool:
    return ((item.get("against_rest") or {}).get(metric) or {}).get("verdict") == "worse than the rest"


def _hierarchy(part: Json) -> Json:
    errors = part["errors"]
    sentence = (
        f"On {measured(part)}, {part['positive']} against the rest: sensitivity {percent(part['sensitivity'])}, "
        f"specificity {percent(part['specificity'])} at a probability of {part['threshold']:g}; AUROC "
        f"{number(part['auroc'])}. {percent(errors['across'])} of all cases end in the wrong branch."
    )
    by_share = sorted(part["missed"].items(), key=lambda item: -((item[1]["share"] or {}).get("value") or 0))
    missed = [row(name, found["share"], f"n = {found['n']:,}") for name, found in by_share]
    if by_share and (by_share[0][1]["share"] or {}).get("value"):
        name, found = by_share[0]
        sentence += (
            f" Most often called otherwise, of the {part['positive']} ones: {name}, {percent(found['share'])} of "
            f"{found['n']:,}."
        )
    branches = "; ".join(f"{name}: {', '.join(members)}" for name, members in part["branches"].items())
    return {
        "sentence": sentence,
        "blocks": [
            forest(missed, legend=f"share of each {part['positive']} class that is called otherwise"),
            text(branches + "."),
        ],
    }


def _costs(part: Json) -> Json:
    verdict = part["difference"]["verdict"]
    sentence = (
        f"By the card's costs, deciding for the least expected cost instead of the most probable class changes "
        f"{percent(part['changed'])} of the answers and the cost of {part['per']} cases by "
        f"{change(part['difference'], 'number')}: {verdict}."
    )
    rows = [
        ["most probable class", number(part["most_probable"])],
        ["least expected cost", number(part["least_cost"])],
        [f"always {part['one_class']['class']}", number(part["one_class"])],
    ]
    return {"sentence": sentence, "blocks": [table(f"Cost per {part['per']} cases", ["Decision", "Cost"], rows)]}


def _frequency(part: Json) -> Json:
    bins = {
        "head": f"more than {part['many']} training photos",
        "tail": f"fewer than {part['few']}",
        "medium": f"{part['few']} to {part['many']}",
    }
    rows = [
        row(f"{item['bin']} ({bins[item['bin']]})", item["recall"], f"{', '.join(item['classes'])}; n = {item['n']:,}")
        for item in reversed(part["bins"])
    ]
    link = part["spearman"]
    said = (
        "too few classes to say"
        if link.get("value") is None
        else f"Spearman {change(link, 'number')}, {link['n_classes']} classes"
    )
    sentence = f"Mean recall by how often a class was seen in training; recall against frequency: {said}."
    classes = [
        row(name, found["recall"], f"{found['n_train']:,} in training, n = {found['n']:,}")
        for name, found in sorted(part["classes"].items(), key=lambda item: item[1]["n_train"])
    ]
    return {
        "sentence": sentence,
        "blocks": [forest(rows), details("Class by class, the rarest first", forest(classes))],
    }


def _prior_shift(part: Json) -> Json:
    top1, floor = part["top1"], part["majority"]
    by_class = part.get("per_class", {})  # a file of an earlier dermlab has none
    stated = "stated" if part["stated"] else "estimated from the photos"
    after, before = (_score(top1[key]) for key in ("after", "before"))
    moved = {
        name: found["recall"]["difference"]
        for name, found in by_class.items()
        if found["recall"]["difference"]["value"] is not None
    }
    fewer = sorted((name for name in moved if (moved[name]["high"] or 0) < 0), key=lambda name: moved[name]["value"])
    told = []
    for name in fewer[:LOST]:
        recall = by_class[name]["recall"]
        told.append(
            f"{name}, {percent(recall['after'])} instead of {percent(recall['before'])} (n = {by_class[name]['n']:,})"
        )
    more = f", and fewer of {len(fewer) - LOST} more" if len(fewer) > LOST else ""
    lost = f"it finds fewer of {'; of '.join(told)}{more}. In exchange, " if told else ""
    beaten = floor["top1"] >= (top1["after"]["value"] or 0.0)
    sentence = (
        f"With its probabilities corrected for the prevalence {stated}, {lost}its accuracy there "
        f"is {after} instead of {before}, {change(top1['difference'], 'share')} points; always answering "
        f"{floor['class']} would be right in {words.score(floor['top1'])}"
        f"{', no less: accuracy says nothing here' if beaten else ''}. {words.whole(part['changed'])} of the answers "
        "change."
    )
    heads = ["Class", "n", "Recall before", "after", "Specificity before", "after", "Precision before", "after"]
    rows = [
        [name, f"{found['n']:,}", *(percent(found[kind][side]) for kind in _AT_PREVALENCE for side in _SIDES)]
        for name, found in by_class.items()
    ]
    missing = text("Written by an earlier dermlab: evaluate the predictions again for what it costs each class.")
    classwise = [
        table("Class by class, before and after the correction", heads, rows),
        text("Specificity and precision (positive predictive value) are those at the prevalence used."),
    ]
    shares = [[name, *(words.score(part[key][name]) for key in ("train", "test", "used"))] for name in part["classes"]]
    return {
        "sentence": sentence,
        "tone": "bad" if fewer or beaten else "",
        "blocks": [
            *(classwise if rows else [missing]),
            table("Class shares", ["Class", "Corrected from (val)", "On test", f"Used ({stated})"], shares),
        ],
    }


_AT_PREVALENCE = ("recall", "specificity", "ppv")
_SIDES = ("before", "after")
LOST = 3  # so many classes that are found less often are told in the sentence


def _score(value: Json | float | None) -> str:
    return percent(value) if isinstance(value, dict) else words.score(value)


def _seeds(part: Json) -> Json:
    recipe = part["recipes"][0]
    rows = []
    for name, found in recipe["metrics"].items():
        label, _, kind = words.metric_words(name)
        spread = [
            words.score(found[key], kind) if found[key] is not None else "n/a"
            for key in ("sd_runs", "sd_seeds", "sd_groups")
        ]
        rows.append([label, written(found, kind), *spread])
    heads = ["Metric", "Mean over seeds", "SD over its seeds", "beyond the test set's noise", "SD over test sets"]
    sentence = (
        f"{words.plural(recipe['n_seeds'], 'training seed')}, the same test cases: intervals over seeds and cases."
    )
    return {"sentence": sentence, "blocks": [table("Spread over training seeds", heads, rows)]}


def _leak(part: Json) -> Json:
    blocks: list[Json] = []
    sentences = []
    for model in part["models"]:
        found = [item for item in model["differences"] if item["metric"] == "top1"]
        rows = [
            [
                step["inputs"],
                *(written(step["metrics"].get(name), words.metric_words(name)[2]) for name in _LEAK_METRICS),
            ]
            for step in model["steps"]
        ]
        heads = ["Inputs", *(words.metric_words(name)[1] for name in _LEAK_METRICS)]
        blocks.append(
            table(f"{model['name']}, on {measured(model)}", [f"{model['name']}: {heads[0]}", *heads[1:]], rows)
        )
        by_reason: dict[str, list[str]] = {}
        for item in model["columns"]:
            by_reason.setdefault(item["reason"].rstrip(".;"), []).append(item["column"])
        columns = "; ".join(f"{', '.join(names)}: {reason}" for reason, names in by_reason.items())
        blocks.append(text(f"Columns that leak: {columns}."))
        if not found:
            continue
        who = "the questionnaire alone" if model["name"] == "questionnaire" else model["name"]
        # What was admitted are proxies; blanks are dropped by the questionnaire encoder whatever was waived.
        given = [item for item in found if item["a"] == "with proxies"] if part["admitted"] else []
        shown = given[0] if given else max(found, key=lambda item: item["difference"] or 0.0)
        size = f"{change(shown, 'share', 'difference')} points"
        unsure = shown["verdict"] == "cannot tell apart"
        if part["admitted"]:
            with_leak = next((step for step in model["steps"] if step["inputs"] == shown["a"]), model["steps"][-1])
            whole = words.score(with_leak["metrics"]["top1"]["value"])
            reads = f"it reads {', '.join(part['admitted'])}, known only with the diagnosis"
            doubt = ", which is within chance" if unsure else ""
            named = who if who == model["name"] else words.capital(who)
            sentences.append(f"{named}: {size} of the {whole} of top-1 accuracy are the leak{doubt}: {reads}.")
        else:
            doubt = ", which is within chance" if unsure else ""
            sentences.append(
                f"Had {who} been given the columns that betray the label, its top-1 accuracy would have "
                f"looked {size} higher{doubt}; they were left out."
            )
    tone = "bad" if part["admitted"] else ""
    return {
        "sentence": " ".join(sentences) or "Columns that betray the label were found.",
        "tone": tone,
        "blocks": blocks,
    }


HEADS = {"knn": "kNN"}
_LEAK_METRICS = ("top1", "balanced_accuracy", "macro_f1", "auroc")


def _label_efficiency(part: Json) -> Json:
    metric = part["metric"]
    label, _, kind = words.metric_words(metric)
    blocks: list[Json] = []
    for head in dict.fromkeys(curve["head"] for curve in part["curves"]):
        for design, what in DESIGNS.items():
            series = []
            for curve in part["curves"]:
                points = sorted(curve["points"], key=lambda point: point["labels"]) if curve["head"] == head else []
                points = [
                    point
                    for point in points
                    if (point.get(metric) or {}).get("value") is not None and _of_design(point["size"], design)
                ]
                if points:
                    labels = tuple(float(point["labels"]) for point in points)
                    ends = (tuple(point[metric][end] for point in points) for end in _ENDS)
                    series.append(plots.Line(curve["encoder"], labels, *ends))
            if series:
                chart = plots.chart(series, x="labelled photos", y=label, x_kind="count", y_kind=kind, log=True)
                heading = f"{words.capital(what)}: {HEADS.get(head, head)} head"
                blocks += [{"kind": "heading", "text": heading}, {"kind": "chart", "chart": chart}]
    ratios = [item for item in part["ratios"] if item["headline"]] or part["ratios"]
    rows = [
        [
            f"{item['a']} : {item['b']}",
            f"{item['head']}, {item['design'].replace('_', ' ')}",
            f"{item['score']:g}",
            _ratio(item["ratio"]),
            item["verdict"].replace("a needs", f"{item['a']} needs").replace("b needs", f"{item['b']} needs"),
        ]
        for item in ratios
    ]
    if rows:
        heads = ["Encoders", "Head, labels drawn", f"At {label}", "Labels, first : second", "Verdict"]
        blocks.append(table("Labels needed for the same score, as a ratio", heads, rows, text_columns=5))
    decided = [item for item in ratios if item["verdict"].endswith("needs fewer")]
    if decided:
        first = decided[0]
        better = first["a"] if first["verdict"].startswith("a") else first["b"]
        other = first["b"] if better == first["a"] else first["a"]
        share = _ratio(first["ratio"])
        sentence = (
            f"{better} needs fewer labels than {other} for {label} {first['score']:g} ({first['head']} head): labels "
            f"that {first['a']} needs, divided by those that {first['b']} needs: {share}."
        )
    else:
        sentence = (
            f"How {label} grows with the number of labelled photos; which encoder needs fewer the data cannot tell."
        )
    return {"sentence": sentence, "blocks": blocks}


DESIGNS = {"per_class": "so many labels of each class", "percent": "a share of the labels, in the clinic's own mix"}


def _of_design(size: str, design: str) -> bool:
    """Tell whether a size (``10 per class``, ``5%``, ``all``) belongs to a way of drawing labels; all is of both."""
    return size == "all" or (design == "per_class") == size.endswith("per class")


def _ratio(ratio: Json | None) -> str:
    if not ratio or ratio.get("value") is None:
        return "not reached"
    ends = [f"{ratio[end]:.2f}" if ratio.get(end) is not None else "open" for end in ("low", "high")]
    return f"{ratio['value']:.2f} ({ends[0]} to {ends[1]})"


def _robustness(part: Json) -> Json:
    metric = part["metric"]
    label, _, kind = words.metric_words(metric)
    unit = " points" if kind == "share" else ""
    found = part["corruptions"]
    clean = (part["clean"].get(metric) or {}).get("value")
    worse = [item for item in found if item["verdict"] == "worse"]
    few = f", {words.groups_word(part['group_by'])} too few for much" if part["n_groups"] < FEWEST_GROUPS else ""
    if worse:
        first = worse[0]
        drop = change(first["mean"]["drop"], kind).replace("+", "")
        sentence = (
            f"Measured with {part['model']} on {measured(part)}{few}: {first['title']} harms most: {label} falls by "
            f"{drop}{unit}, the mean over its severities; {len(worse)} of {words.plural(len(found), 'corruption')} "
            "make it worse."
        )
    else:
        sentence = (
            f"None of {words.plural(len(found), 'corruption')} is shown to make {part['model']} worse, on "
            f"{measured(part)}{few}."
        )
    drawn = []
    for item in found[:DRAWN]:
        steps = sorted(item["severities"], key=lambda step: step["severity"])
        steps = [step for step in steps if (step.get(metric) or {}).get("value") is not None]
        start = ((0.0,), (clean,)) if clean is not None else ((), ())
        x = start[0] + tuple(float(step["severity"]) for step in steps)
        drawn.append(plots.Line(item["title"], x, start[1] + tuple(step[metric]["value"] for step in steps)))
    chart = plots.chart(drawn, x="severity (0: the photos as they are)", y=label, y_kind=kind)
    rows = [
        [
            item["title"],
            change(item["mean"]["drop"], kind),
            words.p_value(item["p_adjusted"]),
            item["verdict"],
        ]
        for item in found
    ]
    heads = ["Corruption", f"Mean fall in {label}{unit and ', points'}", "p after Holm", "Verdict"]
    steps_told = [
        [item["title"], f"{step['severity']}", words.plain(step["level"]), written(step.get(metric), kind)]
        for item in found
        for step in item["severities"]
    ]
    every = table("Every severity", ["Corruption", "Severity", "Level", label], steps_told)
    note = f"The worst {DRAWN} of {len(found)} are drawn." if len(found) > DRAWN else ""
    return {
        "sentence": sentence,
        "tone": "bad" if worse else "",
        "blocks": [
            {"kind": "chart", "chart": chart},
            text(note),
            table("Each corruption, the worst first", heads, rows),
            details("Every severity with its interval", every),
        ],
    }


DRAWN = 6
ALL_OF_TOP3 = 3  # of so many classes the first three are all there are
FEWEST_GROUPS = 30  # below it a bootstrap over groups is too narrow, as metrics say too


def _kind(head: Any) -> str:
    return str(head["kind"]) if isinstance(head, dict) else str(head)


def _unseen(part: Json) -> Json:
    # The plainest score leads; to name the best one here would be a choice made on test.
    best = "max_softmax" if "max_softmax" in part["mean_auroc"] else next(iter(part["mean_auroc"]), None)
    if best is None:
        return {"sentence": "No class was held out.", "blocks": []}

    def flagged_share(name: str) -> float:
        value = part["classes"][name]["scores"][best]["flagged_unseen"].get("value")
        return 2.0 if value is None else float(value)

    blind = min(part["classes"], key=flagged_share)
    found = part["classes"][blind]
    called = max(found["called"], key=lambda name: found["called"][name]) if found["called"] else ""
    flagged = found["scores"][best]["flagged_unseen"]
    several = len(part["classes"]) > 1
    held = "Classes held out, one at a time," if several else "One class held out"
    sentence = (
        f"{held} of the training of {part['encoder']} with a {_kind(part['head'])} head: by "
        f"the score {best} photos of a diagnosis never taught stand out "
        f"with AUROC {number(part['mean_auroc'][best])}{' on average. Least of all' if several else '. Of'} {blind}"
        f"{': ' if several else ', '}{percent(flagged)} of {'its ' if several else 'the '}"
        f"photos are flagged{f'; most are called {called}' if called else ''}."
    )
    rows = [
        row(
            name,
            item["scores"][best]["flagged_unseen"],
            f"n = {item['n_unseen']:,}; AUROC {number(item['scores'][best]['auroc'])}",
        )
        for name, item in ((name, part["classes"][name]) for name in sorted(part["classes"], key=flagged_share))
    ]
    told = "; ".join(f"{name}: {what}" for name, what in part["scores"].items())
    means = [[name, number(value)] for name, value in part["mean_auroc"].items()]
    return {
        "sentence": sentence,
        "blocks": [
            forest(rows, legend=f"share of the photos of a class never taught that {best} flags"),
            details("The scores tried", table("Mean AUROC of each score", ["Score", "AUROC"], means), text(told + ".")),
        ],
    }


def _of_trainings(name: str) -> Callable[[Json], Json]:
    def shown(part: Json) -> Json:
        from dermlab.report.training import VIEWS as OF_TRAININGS  # which is made of the pieces above

        return OF_TRAININGS[name](part)

    return shown


VIEWS: dict[str, Callable[[Json], Json]] = {
    "leak": _leak,
    **{name: _of_trainings(name) for name in ("screening", "recipes", "decomposition", "training")},
    "subgroups": _subgroups,
    "calibration": _calibration,
    "referral": _referral,
    "selective": _selective,
    "conformal": _conformal,
    "hierarchy": _hierarchy,
    "costs": _costs,
    "frequency": _frequency,
    "prior_shift": _prior_shift,
    "seeds": _seeds,
    "robustness": _robustness,
    "unseen": _unseen,
    "label_efficiency": _label_efficiency,
}
