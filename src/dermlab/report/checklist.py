"""TRIPOD+AI and CLAIM, filled in where a bake-off knows the answer and left open where only a person does.

The items are put in our own words, by their numbers: TRIPOD+AI (Collins et al., BMJ 2024;385:e078378, 27 items) and
CLAIM (2024 update, Tejani et al., Radiology: Artificial Intelligence 2024;6(4):e240300, 44 items). A checklist says
what a report of a study has to tell; that it is told does not make a study good.
"""

from __future__ import annotations

import functools
import importlib.resources
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from dermlab.core import words
from dermlab.report import parts as pieces

Json = dict[str, Any]
STANDARDS = {"TRIPOD+AI": "TRIPOD+AI (2024)", "CLAIM": "CLAIM (2024 update)"}
STATUSES = ("open", "partly", "answered")
SEEN_IN_TRAINING = ("group-overlap", "duplicates", "near-duplicates")
"""Findings of the audit that, waived, leave test photos or patients that the training part holds too."""

PEOPLE = (
    "sex",
    "gender",
    "age",
    "skin_type",
    "fitspatrick",
    "fitzpatrick",
    "phototype",
    "ita_band",
    "race",
    "ethnicity",
)
"""How the names of columns begin that tell groups of people apart, and not photos, devices or places of the body."""

Answer = str | tuple[str, str]
"""What a run says to an item; with a second text: what it leaves to a person, though other runs may not."""


@dataclass(frozen=True)
class Item:
    """One item of a checklist.

    Attributes:
        standard: a key of :data:`STANDARDS`.
        number: its number there.
        section: the part of a paper that it belongs to.
        asks: what it asks, in our words.
        fact: what the run knows of it, a key of :data:`FACTS`; empty where it knows nothing.
        left: what a person has to add; empty where the run's answer is the whole answer.
    """

    standard: str
    number: str
    section: str
    asks: str
    fact: str = ""
    left: str = ""


def fill(record: Json, parts: Mapping[str, Json]) -> list[Json]:
    """Return every item with what the run can say to it.

    Args:
        record: the content of ``bakeoff.json``.
        parts: the winner's assessment and further analyses, by name; see :mod:`dermlab.report.html`.

    Returns:
        For each item ``standard, number, section, asks, status`` (``answered``, ``partly`` or ``open``), ``answer`` and
        ``left``; an item whose fact this run lacks is open.
    """
    known = {name: fact(record, parts) for name, fact in FACTS.items()}
    rows = []
    for item in items():
        found = known[item.fact] if item.fact else ""
        answer, more = (found, "") if isinstance(found, str) else found
        left = "; ".join(text for text in (item.left, more) if text) or ("" if answer else "this run does not know it")
        status = "open" if not answer else "partly" if left else "answered"
        rows.append(
            {
                **{key: getattr(item, key) for key in ("standard", "number", "section", "asks")},
                "status": status,
                "answer": answer,
                "left": left,
            }
        )
    return rows


def counted(rows: list[Json]) -> list[Json]:
    """Return for each standard how many items are answered, partly answered and open."""
    return [
        {
            "standard": name,
            "title": title,
            **{status: sum(row["standard"] == name and row["status"] == status for row in rows) for status in STATUSES},
            "rows": [row for row in rows if row["standard"] == name],
        }
        for name, title in STANDARDS.items()
    ]


def as_markdown(rows: list[Json], title: str) -> str:
    """Return the checklist as ``checklist.md``: boxes ticked where nothing is left to a person."""
    lines = [f"# Reporting checklist: {escaped(title)}", ""]
    lines += [
        "Filled in by dermlab from the run's own files, in our words and by the standards' numbers. Ticked: answered. "
        "Open boxes are for a person: what stands after **to add** is what the run cannot know.",
        "",
    ]
    for part in counted(rows):
        lines += [
            f"## {part['title']}",
            "",
            f"{part['answered']} answered, {part['partly']} partly, {part['open']} open.",
            "",
        ]
        section = None
        for row in part["rows"]:
            if row["section"] != section:
                section = row["section"]
                lines += ["", f"### {section}", ""]
            box = "x" if row["status"] == "answered" else " "
            lines.append(f"- [{box}] **{row['number']}** {row['asks']}")
            if row["answer"]:
                lines.append(f"  - {escaped(row['answer'])}")
            if row["left"]:
                lines.append(f"  - **to add:** {row['left']}")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def escaped(text: str) -> str:
    """Return a user's text as plain Markdown text: no line breaks, no markup, no HTML, no links."""
    flat = " ".join(str(text).split()).replace("&", "&amp;").replace("<", "&lt;")
    for mark in "\\`*_[]>#|!":
        flat = flat.replace(mark, "\\" + mark)
    return flat


def _winner(record: Json) -> Json:
    """Return the winner, else the best that has a result, else nothing."""
    scored = [item for item in record["candidates"] if item["status"] == "ok"]
    return next((item for item in scored if item["winner"]), scored[0] if scored else {})


def _title(record: Json, parts: Mapping[str, Json]) -> str:
    winner = _winner(record)
    if not winner:
        return ""
    data = record["data"]
    return (
        f"image classification of {data['target']!r} ({len(data['classes'])} classes) by {_made_of(winner)}, "
        f"on {data['name']}"
    )


def _made_of(item: Json) -> str:
    if item.get("weights"):
        return "a weighted mean of " + ", ".join(name for _, name in weighed(item["weights"]))
    if item.get("finetuned"):
        return f"the network of {item['encoder']}, {item['head']}"
    if item["encoder"]:
        return f"the frozen encoder {item['encoder']} with a {item['head']} head"
    return f"the {item['head']} model, which looks at no photo"


def weighed(weights: Mapping[str, float]) -> list[tuple[str, str]]:
    """Return an ensemble's weights as they are written, without the members whose weight rounds to nothing."""
    return [(text, name) for name, weight in weights.items() if (text := f"{weight:.2f}") != "0.00"]


def _summary(record: Json, parts: Mapping[str, Json]) -> str:
    return f"{record['decision']['word']}: {record['decision']['sentence']}"


def _objective(record: Json, parts: Mapping[str, Json]) -> str:
    asked = record["asked"]
    n = len([item for item in record["candidates"] if item["kind"] != "floor"])
    against = f", held against {record['baseline']['name']}" if record["baseline"] else ""
    return (
        f"development and internal evaluation: {words.plural(n, 'candidate')} for {asked['target']!r}, judged by "
        f"{words.metric_words(asked['metric'])[0]}{against}"
    )


def _source(record: Json, parts: Mapping[str, Json]) -> str:
    data = record["data"]
    told = [f"{data['name']}, version {data['version']}", data["description"], data["citation"]]
    return ". ".join(text.strip().rstrip(".") for text in told if text and text.strip()) + "."


def _participants(record: Json, parts: Mapping[str, Json]) -> str:
    data = record["data"]
    groups = words.groups_word(data["group_by"])
    of = f" of {words.count(data['n_groups'])} {groups}" if groups != "photos" else ""
    counts = ", ".join(f"{part['name']} {words.count(part['n'])}" for part in data["parts"])
    lost = len(data["quarantine"])
    aside = f"; {words.plural(lost, 'unusable file')} set aside" if lost else "; no file was unusable"
    unlabelled = data["n_images"] - data["n_labelled"]
    without = f"; {words.plural(unlabelled, 'photo')} without a label left out" if unlabelled else ""
    fold = " in the first fold" if data["split"]["n_folds"] > 1 else ""
    return f"{words.count(data['n_images'])} photos{of}; {counts}{fold}{aside}{without}"


def _characteristics(record: Json, parts: Mapping[str, Json]) -> str:
    data = record["data"]
    totals = {name: sum(counts.values()) for name, counts in data["class_counts"].items()}
    text = "photos by class: " + ", ".join(f"{name} {words.count(n)}" for name, n in totals.items())
    columns = _columns(parts)
    return text + (f"; by {', '.join(columns)}: see the subgroups" if columns else "")


def _exclusions(record: Json, parts: Mapping[str, Json]) -> str:
    lost = len(record["data"]["quarantine"])
    waived = record["waivers"]
    told = f"{words.plural(lost, 'file')} set aside by the importer, each with its reason in quarantine.csv"
    return told + (
        f"; waived findings of the audit: {len(waived)}" if waived else "; no finding of the audit was waived"
    )


def _preparation(record: Json, parts: Mapping[str, Json]) -> str:
    return (
        "photos: EXIF orientation applied, colours to sRGB, then the encoder's own preprocessing (size, crop, "
        "interpolation, mean, standard deviation), the same for every patient; questionnaire: scaled and encoded by "
        "what the training part alone shows"
    )


def _deidentified(record: Json, parts: Mapping[str, Json]) -> str:
    return "EXIF and GPS are not carried into caches, features, predictions or thumbnails"


def _outcome(record: Json, parts: Mapping[str, Json]) -> str:
    data = record["data"]
    names = [f"{name} ({spelled})" if (spelled := data["class_names"].get(name)) else name for name in data["classes"]]
    return f"{data['target']}, {data['kind']}: {', '.join(names)}; scored by {data['unit']}"


def _predictors(record: Json, parts: Mapping[str, Json]) -> Answer:
    """Name what the fitted model reads: columns as its plans hold them, not what the data set happens to have."""
    winner = _winner(record)
    if not winner:
        return ""
    asks = winner["head"] in ("fusion", "finetuned fusion", "questionnaire") or any(
        "fusion" in name or "questionnaire" in name for name in winner["weights"]
    )
    columns = winner.get("questionnaire")
    looks = "the photo" if winner["encoder"] or winner["weights"] else ""
    answers = ""
    if asks and columns:
        answers = f"the questionnaire's {', '.join(columns)}"
    elif asks and columns is None:
        answers = "the questionnaire"
    text = " and ".join(part for part in (looks, answers) if part) or "nothing but the class frequencies"
    if not asks:
        return text
    betrayed = [row["column"] for row in record["data"]["dropped"]]
    out = [name for name in betrayed if name not in (columns or ())]
    text += f"; left out because their blanks betray the label: {', '.join(out)}" if out else ""
    if columns is None:
        return text, "which columns: those of the plans in the run's checkpoints/*/questionnaire.json"
    other = [row["column"] for row in record["data"]["missing"]]
    other = [name for name in other if name not in columns and name not in betrayed]
    return text + (f"; never given to the model: {', '.join(other)}" if other else "")


def _size(record: Json, parts: Mapping[str, Json]) -> str:
    metrics = _winner(record).get("metrics") or {}
    if not metrics:
        return ""
    fewest = min(metrics["per_class"], key=lambda name: metrics["per_class"][name]["n"])
    groups = words.groups_word(record["data"]["group_by"])
    return (
        f"tested on {words.count(metrics['n'])} {words.units_word(metrics['unit'])} of "
        f"{words.count(metrics['n_groups'])} {groups}; the smallest class, {fewest}, has "
        f"{metrics['per_class'][fewest]['n']}"
    )


def _missing(record: Json, parts: Mapping[str, Json]) -> str:
    blank = [row for row in record["data"]["missing"] if row["share"] > 0]
    out = [row["column"] for row in record["data"]["dropped"]]
    if not record["data"]["missing"]:
        return "there is no questionnaire; a photo without a label is left out"
    text = (
        f"{len(blank)} of {len(record['data']['missing'])} questionnaire columns have blanks; a blank is an answer of "
    )
    text += "its own (missing indicator), nothing is imputed from other patients"
    return text + (f"; dropped whole because their blanks betray the label: {', '.join(out)}" if out else "")


def _partitions(record: Json, parts: Mapping[str, Json]) -> str:
    split = record["data"]["split"]
    groups = words.groups_word(record["data"]["group_by"])
    how = f"{split['n_folds']} folds" if split["n_folds"] > 1 else "one split into train, val and test"
    times = f", drawn {split['n_repeats']} times" if split["n_repeats"] > 1 else ""
    return f"{how}{times} ({split['name']}), stratified by class; val, a part of its own, chose everything; by {groups}"


def _disjoint(record: Json, parts: Mapping[str, Json]) -> Answer:
    groups = words.groups_word(record["data"]["group_by"])
    overlap = seen_in_training(record)
    if overlap:
        return f"parts by {groups}, with exceptions that were waived: {'; '.join(overlap)}", "why these are no leak"
    return f"no two parts share any of the {groups}; checked by the audit, as are duplicates"


def seen_in_training(record: Json) -> list[str]:
    """Return what the audit found, and a waiver let through, of test photos that the training part holds too."""
    return [
        item["message"].rstrip(".")
        for item in record["findings"]
        if item["code"] in SEEN_IN_TRAINING and item["severity"] == "error" and item.get("waived")
    ]


def _same_source(record: Json, parts: Mapping[str, Json]) -> str:
    data = record["data"]
    counts = ", ".join(f"{part['name']} {words.count(part['n'])}" for part in data["parts"])
    fold = " in the first fold" if data["split"]["n_folds"] > 1 else ""
    return (
        f"one source, {data['name']}, divided at random and stratified by class ({counts} photos{fold}): the parts "
        "differ by chance alone; class by class they stand in the report"
    )


def _model(record: Json, parts: Mapping[str, Json]) -> str:
    winner = _winner(record)
    return f"{winner['name']}: {_made_of(winner)}; its files and settings are in {winner['run']}" if winner else ""


def _software(record: Json, parts: Mapping[str, Json]) -> str:
    facts = record["reproduce"]["facts"]
    return "; ".join(f"{name} {facts[name]}" for name in ("python", "packages") if facts.get(name))


def _weights(record: Json, parts: Mapping[str, Json]) -> str:
    facts = record["reproduce"]["facts"]
    found = [
        f"{name.removeprefix('weights of ')} {value}" for name, value in facts.items() if name.startswith("weights")
    ]
    return f"encoders start from public weights and stay frozen; fingerprints: {', '.join(found)}" if found else ""


def _training(record: Json, parts: Mapping[str, Json]) -> str:
    return (
        f"heads fitted on the training part, their settings swept on val, convergence checked; seed "
        f"{record['asked']['seed']}; each run's config.yaml and log.jsonl hold the settings"
    )


def _selection(record: Json, parts: Mapping[str, Json]) -> str:
    label = words.metric_words(record["asked"]["metric"])[0]
    return (
        f"the best {label} on val among the candidates whose licences allow {words.use_words(record['asked']['use'])}"
    )


def _ensembling(record: Json, parts: Mapping[str, Json]) -> str:
    found = next((item for item in record["candidates"] if item["kind"] == "ensemble"), None)
    if found is None or not found["weights"]:
        return "no ensemble was made"
    made = ", ".join(f"{weight} {name}" for weight, name in weighed(found["weights"]))
    fate = "it won" if found["winner"] else "it did not win"
    return f"weighted mean of probabilities, weights chosen on val: {made}; {fate}"


def _measures(record: Json, parts: Mapping[str, Json]) -> str:
    if record["data"].get("kind") == "multilabel":
        return (
            "AUROC, average precision and F1 of each label and their means over labels, sensitivity of each label at "
            "its threshold chosen on val, calibration error; beside the labels' shares, the questionnaire alone and a "
            "colour histogram"
        )
    return (
        "top-1 and top-3 accuracy, balanced accuracy, macro-F1, AUROC (one against the rest, mean over classes), "
        "recall and confusion matrix by class, calibration error; beside the majority class, the questionnaire alone "
        "and a colour histogram"
    )


def _uncertainty(record: Json, parts: Mapping[str, Json]) -> str:
    metrics = _winner(record).get("metrics") or {}
    if "interval" not in metrics:
        return ""
    return (
        f"{metrics['interval']['level']:.0%} intervals by {words.intervals_sentence(metrics)}; candidates compared on "
        "the same cases by paired tests that respect these groups, corrected by Holm"
    )


def _performance(record: Json, parts: Mapping[str, Json]) -> str:
    metrics = _winner(record).get("metrics") or {}
    told = []
    for name in words.headline(metrics.get("kind", "")):
        found = metrics.get(name) or {}
        if name != "top3" and found.get("value") is not None:
            label, _, kind = words.metric_words(name)
            told.append(f"{label} {words.score(found['value'], kind)} ({words.span(found, kind)})")
    return "; ".join(told)


def _performance_of_people(record: Json, parts: Mapping[str, Json]) -> Answer:
    text = _performance(record, parts)
    people = [name for name in _columns(parts) if name.lower().startswith(PEOPLE)]
    if not text:
        return ""
    if not people:
        return text, "performance for groups of people: none was looked at"
    return f"{text}; for groups of people ({', '.join(people)}), with n and interval, in the report"


def _columns(parts: Mapping[str, Json]) -> list[str]:
    """Return the columns that results were broken down by."""
    return list(parts.get("subgroups", {}).get("columns", {}))


def _by_group(record: Json, parts: Mapping[str, Json]) -> str:
    columns = _columns(parts)
    return f"performance by {', '.join(columns)}, with n and interval, in the report" if columns else ""


def _imbalance(record: Json, parts: Mapping[str, Json]) -> str:
    totals = {name: sum(counts.values()) for name, counts in record["data"]["class_counts"].items()}
    filled = {name: n for name, n in totals.items() if n}
    if len(filled) < 2:
        return ""
    most, fewest = max(filled, key=lambda name: filled[name]), min(filled, key=lambda name: filled[name])
    ratio = filled[most] / filled[fewest]
    return (
        f"{most} is {ratio:.1f} times as frequent as {fewest}; measured by balanced accuracy, macro-F1 and recall by "
        "class as well; parts are stratified by class"
    )


def _output(record: Json, parts: Mapping[str, Json]) -> str:
    text = "a probability for each class; the most probable one is the answer"
    if record["data"].get("kind") == "multilabel":
        text = "a probability for each label; each is called from a threshold of its own, chosen on val"
    if parts.get("calibration", {}).get("skipped") is None and "calibration" in parts:
        text += "; calibration before and after correction is in the report"
    if parts.get("referral", {}).get("skipped") is None and "referral" in parts:
        text += "; a threshold for referral, chosen on val, too"
    return text


def _robust(record: Json, parts: Mapping[str, Json]) -> Answer:
    """Tell what robustness.json holds, of which model; another model than the winner answers but a part."""
    part = parts.get("robustness")
    if not part or part.get("skipped") is not None:
        return ""
    found = part["corruptions"]
    steps = sorted({step["severity"] for item in found for step in item["severities"]})
    text = (
        f"{part['model']} on {pieces.measured(part)}: {words.plural(len(found), 'corruption')} "
        f"({', '.join(item['title'] for item in found)}), severity {', '.join(map(str, steps))}; in the report"
    )
    left = []
    winner = _winner(record)
    if winner and not measured_on(part, winner):
        left.append(f"robustness of {winner['name']} itself: it was not measured")
    metrics = winner.get("metrics") or {}
    if part["n"] < metrics.get("n", 0):
        left.append(f"the other test cases: {words.count(part['n'])} of {words.count(metrics['n'])} were used")
    return (text, "; ".join(left)) if left else text


def measured_on(part: Json, candidate: Json) -> bool:
    """Tell whether a further analysis was made with a candidate, by its name or by what its run calls itself."""
    return part["model"] in (candidate["name"], (candidate.get("metrics") or {}).get("model"))


def _failures(record: Json, parts: Mapping[str, Json]) -> str:
    winner = _winner(record)
    n = len(winner.get("mistakes") or [])
    return f"confusion matrix and the {n} most confident mistakes with their photos, in the report" if n else ""


def _internal(record: Json, parts: Mapping[str, Json]) -> str:
    metrics = _winner(record).get("metrics") or {}
    if not metrics:
        return ""
    groups = words.groups_word(record["data"]["group_by"])
    text = f"tested on {words.count(metrics['n_groups'])} {groups} of the same source"
    overlap = seen_in_training(record)
    return text + (f", not all of them unseen: {'; '.join(overlap)}" if overlap else " that no training part held")


def _heterogeneity(record: Json, parts: Mapping[str, Json]) -> str:
    columns = _columns(parts)
    return f"by {', '.join(columns)}: see the subgroups" if columns else ""


def _code(record: Json, parts: Mapping[str, Json]) -> str:
    return f"dermlab is open source (Apache-2.0); this run: {record['reproduce']['command']}"


def _available(record: Json, parts: Mapping[str, Json]) -> str:
    data = record["data"]
    return f"{data['name']}, licence {data['licence'] or 'not stated'}, fingerprint {data['fingerprint']}"


def _limits(record: Json, parts: Mapping[str, Json]) -> str:
    told = [*record["waivers"], *record["warnings"]]
    told += [item["message"] for item in record["findings"] if item["severity"] == "error" and not item.get("waived")]
    told.append("tested on patients of the same source only")
    return "; ".join(text.rstrip(".") for text in told)


def _input_handling(record: Json, parts: Mapping[str, Json]) -> str:
    return "files that cannot be read are set aside with a reason; a blank questionnaire answer is an answer of its own"


FACTS: dict[str, Callable[[Json, Mapping[str, Json]], Answer]] = {
    "title": _title,
    "summary": _summary,
    "objective": _objective,
    "source": _source,
    "participants": _participants,
    "characteristics": _characteristics,
    "exclusions": _exclusions,
    "preparation": _preparation,
    "deidentified": _deidentified,
    "outcome": _outcome,
    "predictors": _predictors,
    "size": _size,
    "missing": _missing,
    "partitions": _partitions,
    "disjoint": _disjoint,
    "same_source": _same_source,
    "model": _model,
    "software": _software,
    "weights": _weights,
    "training": _training,
    "selection": _selection,
    "ensembling": _ensembling,
    "measures": _measures,
    "uncertainty": _uncertainty,
    "performance": _performance,
    "performance_of_people": _performance_of_people,
    "by_group": _by_group,
    "imbalance": _imbalance,
    "output": _output,
    "robust": _robust,
    "failures": _failures,
    "internal": _internal,
    "heterogeneity": _heterogeneity,
    "code": _code,
    "available": _available,
    "limits": _limits,
    "input_handling": _input_handling,
}


@functools.cache
def items() -> tuple[Item, ...]:
    """Return the items of both standards, read from ``checklist.yaml`` beside this file."""
    text = importlib.resources.files("dermlab.report").joinpath("checklist.yaml").read_text(encoding="utf-8")
    return tuple(Item(standard, **row) for standard, rows in yaml.safe_load(text).items() for row in rows)
