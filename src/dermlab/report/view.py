"""What the report says where: the record of a bake-off turned into what the templates show, piece by piece."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dermlab.core import words
from dermlab.report import checklist, parts, plots
from dermlab.report.glossary import GLOSSARY

SYMBOLS = {"GO": "✓", "NO-GO": "✕", "CANNOT TELL": "≈", "WINNER": "★", "NO WINNER": "✕"}
TONES = {"GO": "go", "NO-GO": "no-go", "CANNOT TELL": "cannot-tell", "WINNER": "winner", "NO WINNER": "no-go"}
VERDICT_TONES = {"viable": "good", "viable with conditions": "unsure", "blocked": "bad", "unknown": "bad"}
RIVALS = {"baseline": "", "floor": " (best floor)", "candidate": " (best candidate)"}
# A line each on the first page.
BRIEF = ("subgroups", "hierarchy", "calibration", "referral", "conformal", "robustness", "unseen")
SEVERITIES = ("error", "warning", "info")
Json = dict[str, Any]


def photo_ids(record: Json) -> list[str]:
    """Return the images whose thumbnails the page shows."""
    subject = _subject_of(record)
    mistakes = [item["image_id"] for item in (subject or {}).get("mistakes", [])]
    samples = [image_id for ids in record["data"]["samples"].values() for image_id in ids]
    return mistakes + samples


def _subject_of(record: Json) -> Json | None:
    """Return the candidate whose errors are shown: the winner, else the best on val that has a result."""
    scored = [item for item in record["candidates"] if item["status"] == "ok"]
    return next((item for item in scored if item["winner"]), scored[0] if scored else None)


def view(record: Json, pictures: Mapping[str, str], further: Mapping[str, Json]) -> Json:
    """Return the variables of the templates.

    Args:
        record: the content of ``bakeoff.json``.
        pictures: data URIs by image id.
        further: the winner's assessment and what else was measured, by name.
    """
    shown = parts.view(
        further, record["warnings"] + [line for item in record["candidates"] for line in item["warnings"]]
    )
    subject = _subject_of(record)
    for part in shown:
        measured = subject and part["name"] == "robustness" and not part["skipped"]
        if measured and subject and not checklist.measured_on(further["robustness"], subject):
            part["sentence"] += f" {subject['name']} itself was not measured."
            part["tone"] = ""  # another model's weakness is no news about this one
    data, asked, candidates = record["data"], record["asked"], record["candidates"]
    metric = asked["metric"]
    metric_label, _, metric_kind = words.metric_words(metric)
    decision = dict(record["decision"])
    decision["tone"], decision["symbol"] = TONES.get(decision["word"], "winner"), SYMBOLS.get(decision["word"], "")
    baseline = record["baseline"]
    ordered = [item for item in candidates if item["status"] == "ok"]
    return {
        "title": record["title"],
        "made_at": record["made_at"],
        "asked": _asked(record),
        "decision": decision,
        "tiles": _tiles(record),
        "notes": _sorted(_bad_news(shown) + _notes(record) + _of_folds(record)),
        "brief": [
            part for part in shown if not part["skipped"] and part["name"] in BRIEF and part["tone"] != "bad"
        ],  # what is bad news stands among the notes
        "parts": [part for part in shown if part["name"] != "leak" or part["tone"] == "bad"],
        "leak": next((part for part in shown if part["name"] == "leak" and part["tone"] != "bad"), None),
        "checklists": checklist.counted(checklist.fill(record, further)),
        "metric_label": metric_label.replace("-", "\N{NON-BREAKING HYPHEN}"),
        "metric_kind": metric_kind,
        "use": words.use_words(asked["use"]),
        "groups_word": words.groups_word(data["group_by"]),
        "classes": data["classes"],
        "baseline": baseline,
        "forest": _forest(candidates, baseline, metric),
        "columns": [
            {"key": key, "label": words.METRICS[key][1], "kind": words.METRICS[key][2]} for key in _columns(data)
        ],
        "rows": [_row(item) for item in candidates] + ([_baseline_row(baseline)] if baseline else []),
        "pairs": _pairs(record["comparison"], [item["name"] for item in ordered], metric, metric_kind),
        "subject": _subject(subject, data, pictures) if subject else None,
        "recalls": _recalls(ordered, data["classes"]),
        "others": [_drawn(item) for item in ordered if item is not subject],
        "data": _data(data, pictures),
        "licences": _licences(candidates),
        "cost": _cost(record),
        "reproduce": record["reproduce"] | {"facts": list(record["reproduce"]["facts"].items())},
        "glossary": GLOSSARY,
        "has_photos": bool(pictures),
    }


def _columns(data: Json) -> list[str]:
    """Return the leaderboard's metrics; of three classes the first three are all there are."""
    return [key for key in words.headline(data["kind"]) if key != "top3" or len(data["classes"]) > parts.ALL_OF_TOP3]


def _asked(record: Json) -> Json:
    asked, data = record["asked"], record["data"]
    n = len([item for item in record["candidates"] if item["kind"] != "floor"])
    label = words.metric_words(asked["metric"])[0]
    groups = words.groups_word(data["group_by"])
    what = f"tell {len(data['classes'])} classes of {data['target']!r} apart"
    if data["kind"] == "multilabel":
        what = f"say which of the {len(data['classes'])} labels of {data['target']!r} a photo has"
    sentence = (
        f"Which of {words.plural(n, 'candidate')} should be used to {what} on {data['name']}, judged by {label}, and "
        f"may it go into {words.use_words(asked['use'])}?"
    )
    if record["baseline"]:
        sentence += f" To be worth a change it must be {_margin(asked)} {record['baseline']['name']!r}."
    split = data["split"]
    if split["n_folds"] > 1:
        protocol = f"{split['n_folds']} folds" + (f", {split['n_repeats']} times" if split["n_repeats"] > 1 else "")
        protocol += f" (split {split['name']!r}): every photo is tested by a model that saw none of its group's photos."
    else:
        protocol = f"One split ({split['name']!r}) into train, val and test."
    together = "" if groups == "photos" else f" The photos of one of the {groups} never stand in two parts."
    protocol += f"{together} Seed {asked['seed']}. Settings were chosen on val only."
    return {**asked, "sentence": sentence, "protocol": protocol}


def _margin(asked: Json) -> str:
    """Put the margin into words; a negative one asks for a model that is not worse by more than that."""
    kind = words.metric_words(asked["metric"])[2]
    size = words.points(abs(asked["margin"]), kind).lstrip("+") + (" points" if kind == "share" else "")
    if asked["margin"] > 0:
        return f"at least {size} better than"
    return "better than" if asked["margin"] == 0 else f"no more than {size} worse than"


def _tiles(record: Json) -> list[Json]:
    """Return the four figures that a reader in a hurry takes away."""
    decision, data, metric = record["decision"], record["data"], record["asked"]["metric"]
    label, _, kind = words.metric_words(metric)
    winner = next((item for item in record["candidates"] if item["winner"]), None)
    if winner is None:
        return []
    metrics = winner["metrics"]
    scored = metrics.get(metric) or {"value": None, "low": None, "high": None}
    unit = words.units_word(metrics["unit"], metrics["n"])
    groups = words.groups_word(data["group_by"])
    of = f"of {words.count(metrics['n_groups'])} {groups}" if groups != unit else ""
    unseen = "" if checklist.seen_in_training(record) else "none of them seen in training"
    n_models = _n_models(data)
    by = f"by {n_models} models" if n_models > 1 else ""
    tiles = [
        {
            "label": f"{winner['name']}: {label} on test",
            "value": words.score(scored["value"], kind),
            "note": f"95% interval {words.span(scored, kind)}",
            "words": False,
        },
        {
            "label": "Measured on",
            "value": f"{words.count(metrics['n'])} {unit}",
            "note": ", ".join(text for text in (of, unseen, by) if text),
            "words": False,
        },
        *_weakest_tile(record, winner),
    ]
    against = decision["against"]
    if against:
        tiles.append(
            {
                "label": f"Against {against['name']}{RIVALS[against['kind']]}",
                "value": words.points(against["difference"], kind) + (" points" if kind == "share" else ""),
                "note": ("" if against["low"] is None else "95% interval ") + words.gap_span(against, kind),
                "words": False,
            }
        )
    n_conditions = len(winner["licence"]["conditions"])
    tiles.append(
        {
            "label": f"May it ship ({record['asked']['use']})",
            "value": winner["licence"]["verdict"],
            "note": f"{words.plural(n_conditions, 'condition')} to meet, listed below"
            if n_conditions
            else "no conditions",
            "words": True,
        }
    )
    return tiles


def _weakest_tile(record: Json, winner: Json) -> list[Json]:
    """Return the class that the winner misses most, by the decision, or by its own figures where that is an old one."""
    found = record["decision"].get("weakest")
    if not found:
        known = {
            name: entry
            for name, entry in winner["metrics"]["per_class"].items()
            if entry["n"] and (entry["recall"] or {}).get("value") is not None
        }
        if not known:
            return []
        name = min(known, key=lambda name: known[name]["recall"]["value"])
        n, recall = known[name]["n"], known[name]["recall"]
        found = [{"class": name, "n": n, "n_found": round(recall["value"] * n), "recall": recall}]
    first = found[0]
    between = words.span_whole(first["recall"])
    return [
        {
            "label": f"Weakest: of {first['class']} it finds",
            "value": words.whole(first["recall"]["value"]),
            "note": f"{first['n_found']:,} of {first['n']:,}{f'; 95% interval {between}' if between else ''}",
            "words": False,
        }
    ]


def _n_models(data: Json) -> int:
    return int(data["split"]["n_folds"] * data["split"]["n_repeats"])


def _of_folds(record: Json) -> list[Json]:
    """Say whose figures the winner's are where no one model was tested on all photos."""
    n_models = _n_models(record["data"])
    if n_models < 2 or not record["decision"]["winner"]:
        return []
    message = (
        f"The figures of {record['decision']['winner']} are those of {n_models} models, one for each fold, each on the "
        f"photos that it had not seen. What 'dermlab predict' runs on new photos is the mean of these {n_models}; it "
        "was not tested as one model."
    )
    return [{"severity": "info", "kind": "What was measured", "message": message, "remedy": ""}]


def _bad_news(shown: Sequence[Json]) -> list[Json]:
    """Return what the further analyses found that a reader must know first."""
    return [
        {
            "severity": "error" if part["name"] == "leak" else "warning",
            "kind": part["title"],
            "message": part["sentence"],
            "remedy": "",
        }
        for part in shown
        if part["tone"] == "bad"
    ]


def _notes(record: Json) -> list[Json]:
    """Return what the reader must know before trusting the page, worst first."""
    notes: list[Json] = []
    for line in record["waivers"]:
        severity = "info" if line.endswith("nothing of it was found") else "error"
        message = line.removeprefix("waived ")
        notes.append({"severity": severity, "kind": "Waived in the config", "message": message, "remedy": ""})
    for finding in record["findings"]:
        if finding["severity"] != "info" and not finding.get("waived"):
            kind = finding["code"].replace("_", " ").replace("-", " ").replace("proxy:", "proxy column: ")
            remedy = finding.get("remedy") or ""
            notes.append(
                {
                    "severity": finding["severity"],
                    "kind": kind[:1].upper() + kind[1:],
                    "message": finding["message"],
                    "remedy": remedy,
                }
            )
    for item in record["candidates"]:
        if item["status"] != "ok":
            notes.append(
                {"severity": "error", "kind": f"{item['name']} failed", "message": item["error"], "remedy": ""}
            )
        for flag in item["flags"]:
            notes.append(
                {"severity": "warning", "kind": f"{item['name']} is not ranked", "message": flag, "remedy": ""}
            )
    for warning in record["warnings"]:
        notes.append({"severity": "warning", "kind": "Note", "message": warning, "remedy": ""})
    return notes


def _sorted(notes: list[Json]) -> list[Json]:
    """Return the notes, the worst first."""
    return sorted(notes, key=lambda note: SEVERITIES.index(note["severity"]))


def _tags(item: Json) -> list[Json]:
    tags = []
    if item["winner"]:
        tags.append({"text": "winner", "tone": "win"})
    if item["kind"] in ("floor", "ensemble"):
        tags.append({"text": item["kind"], "tone": ""})
    if item["status"] != "ok":
        tags.append({"text": "failed", "tone": "bad"})
    if item["licence"]["verdict"] in ("blocked", "unknown"):
        text = "may not ship" if item["licence"]["verdict"] == "blocked" else "licence unknown"
        tags.append({"text": text, "tone": "bad"})
    if item["flags"]:
        tags.append({"text": "not ranked", "tone": "unsure"})
    return tags


def _forest(candidates: Sequence[Json], baseline: Json | None, metric: str) -> Json:
    rows = []
    for item in candidates:
        if item["status"] == "ok":
            kind = "floor" if item["kind"] == "floor" else "candidate"
            rows.append({"label": item["name"], "tags": _tags(item), "note": "", "kind": kind} | _value(item, metric))
    if baseline:
        tags = [{"text": "baseline", "tone": ""}]
        rows.append(
            {"label": baseline["name"], "tags": tags, "note": "", "kind": "baseline"} | _value(baseline, metric)
        )
    values = [row["metric"].get(key) for row in rows if row["metric"] for key in ("value", "low", "high")]
    guide = (baseline["metrics"].get(metric) or {}).get("value") if baseline else None
    return {"rows": rows, "axis": plots.axis(values), "guide": guide, "kind": words.metric_words(metric)[2]}


def _value(item: Json, metric: str) -> Json:
    return {"metric": item["metrics"].get(metric) or None}


def _row(item: Json) -> Json:
    what = " · ".join(str(part) for part in (item["encoder"], item["head"]) if part)
    if item["weights"]:
        what = " + ".join(f"{weight} {name}" for weight, name in checklist.weighed(item["weights"]))
    return {**item, "tags": _tags(item), "what": what}


def _baseline_row(baseline: Json) -> Json:
    tags = [{"text": "baseline", "tone": ""}]
    empty = {"rank": None, "winner": False, "error": "", "val_score": None, "what": baseline["path"]}
    return {**baseline, **empty, "tags": tags}


def _pairs(comparison: Sequence[Json], names: Sequence[str], metric: str, kind: str) -> Json:
    """Lay the verdicts out as a matrix: row against column."""
    mine = [pair for pair in comparison if pair["metric"] == metric]
    by_names = {(pair["a"], pair["b"]): pair for pair in mine}
    rows = []
    for a in names:
        cells = []
        for b in names:
            if a == b:
                cells.append({"kind": "self", "text": "·", "title": ""})
                continue
            pair, sign = (by_names[a, b], 1) if (a, b) in by_names else (by_names.get((b, a)), -1)
            if pair is None:
                cells.append({"kind": "same", "text": "n/a", "title": ""})
                continue
            difference = None if pair["difference"] is None else sign * pair["difference"]
            better = {"a better": sign, "b better": -sign}.get(pair["verdict"], 0)
            cell_kind, mark = {1: ("better", "▲"), -1: ("worse", "▼"), 0: ("same", "≈")}[better]
            low, high = (pair["low"], pair["high"]) if sign == 1 else (_minus(pair["high"]), _minus(pair["low"]))
            between = words.gap_span({"low": low, "high": high}, kind)
            p = words.p_value(pair["p_adjusted"])
            title = f"{a} − {b}: {words.points(difference, kind)} ({between}), p after Holm {p}"
            cells.append({"kind": cell_kind, "text": f"{mark} {words.points(difference, kind)}", "title": title})
        rows.append({"name": a, "cells": cells})
    spelled = [{**pair, "words": _verdict_words(pair), "interval": words.gap_span(pair, kind)} for pair in mine]
    return {"names": list(names), "rows": rows if mine else [], "all": spelled, "n": len(mine)}


def _minus(value: float | None) -> float | None:
    return None if value is None else -value


def _verdict_words(pair: Json) -> str:
    side = {"a better": "a", "b better": "b"}.get(pair["verdict"])
    return f"{pair[side]} better" if side else str(pair["verdict"])


def _drawn(item: Json) -> Json:
    return {
        "name": item["name"],
        "cells": plots.confusion_cells(item["metrics"].get("confusion_matrix") or []),
        "points": plots.reliability_points(item["metrics"].get("reliability") or []),
    }


def _subject(item: Json, data: Json, pictures: Mapping[str, str]) -> Json:
    recall = []
    for name in data["classes"]:
        entry = item["metrics"]["per_class"].get(name, {"n": 0, "recall": None})
        recall.append(
            {
                "label": _class_label(name, data),
                "tags": [],
                "note": f"n = {entry['n']}",
                "kind": "candidate",
                "metric": entry["recall"],
            }
        )
    chosen = "the winner" if item["winner"] else "the best on validation, though it did not win"
    n, unit = item["metrics"]["n"], words.units_word(item["metrics"]["unit"], item["metrics"]["n"])
    return {
        **_drawn(item),
        "intro": f"This part looks at {item['name']}, {chosen}, on the {words.count(n)} test {unit}.",
        "recall": recall,
        "recall_axis": plots.axis([0.0, 1.0]),
        "ece": item["metrics"].get("ece") or None,
        "labels": parts.labels_table(item["metrics"]),
        "mistakes": [{**mistake, "uri": pictures.get(mistake["image_id"])} for mistake in item["mistakes"]],
    }


def _class_label(name: str, data: Json) -> str:
    spelled = data["class_names"].get(name)
    return f"{name}: {spelled}" if spelled and spelled != name else name


def _recalls(candidates: Sequence[Json], classes: Sequence[str]) -> Json:
    if not candidates:
        return {"heads": [], "rows": []}
    counts = candidates[0]["metrics"]["per_class"]
    rows = [
        {
            "name": item["name"],
            "cells": [item["metrics"]["per_class"].get(name, {}).get("recall") for name in classes],
        }
        for item in candidates
    ]
    return {"heads": [{"name": name, "n": counts.get(name, {}).get("n", 0)} for name in classes], "rows": rows}


def _data(data: Json, pictures: Mapping[str, str]) -> Json:
    groups, unit = words.groups_word(data["group_by"]), words.units_word(data["unit"])
    sentence = f"{data['name']} (version {data['version']}): {words.count(data['n_images'])} photos"
    if groups != "photos":
        sentence += f" of {words.count(data['n_groups'])} {groups}"
    if data["n_labelled"] < data["n_images"]:
        sentence += f", {words.count(data['n_labelled'])} of them with a label"
    sentence += f"; the {data['target']} is scored by {unit if unit == 'photos' else unit[:-1]}"
    sentence = sentence.replace("scored by photos", "scored photo by photo")
    if data["quarantine"]:
        n = len(data["quarantine"])
        sentence += f"; {words.plural(n, 'file')} {'was' if n == 1 else 'were'} unusable and set aside"
    totals = {name: sum(parts.values()) for name, parts in data["class_counts"].items()}
    most, everything = max(totals.values(), default=0), sum(totals.values())
    balance = [
        {
            "name": _class_label(name, data),
            "total": total,
            "share": total / everything if everything else 0.0,
            "width": round(100 * total / most, 2) if most else 0,
            "parts": plots.stacked(data["class_counts"][name], total),
        }
        for name, total in totals.items()
    ]
    split = data["split"]
    note = (
        f"Parts of the first of {split['n_folds']} folds; over the folds each photo is tested once."
        if split["n_folds"] > 1
        else ""
    )
    reasons = {item["column"]: item["reason"] for item in data["dropped"]}
    missing = [{**row, "reason": reasons.get(row["column"], "")} for row in data["missing"] if row["share"] > 0]
    samples = [
        {
            "name": _class_label(name, data),
            "photos": [{"image_id": image_id, "uri": pictures.get(image_id)} for image_id in ids],
        }
        for name, ids in data["samples"].items()
        if ids
    ]
    because: dict[str, list[str]] = {}
    for item in data["dropped"]:
        because.setdefault(item["reason"], []).append(item["column"])
    table = data["balance"]
    columns = list(table[0]) if table else []
    return {
        **data,
        "sentence": sentence + ".",
        "images_word": "photos",
        "balance": balance,
        "split_note": note,
        "missing": missing,
        "dropped": [{"columns": ", ".join(columns), "reason": reason} for reason, columns in because.items()],
        "samples": samples if pictures else [],
        "balance_table": {
            "columns": columns,
            "rows": [[row.get(column) for column in columns] for row in table],
            "n_rows": len(table),
        }
        if table
        else None,
    }


def _licences(candidates: Sequence[Json]) -> list[Json]:
    """Return one row for all candidates that stand under the same terms."""
    rows: list[Json] = []
    for item in candidates:
        row = next((row for row in rows if row["licence"] == item["licence"]), None)
        if row is None:
            row = {"licence": item["licence"], "names": [], "winner": False}
            rows.append(row)
        row["names"].append(item["name"])
        row["winner"] |= item["winner"]
    return [{**row, **row["licence"], "tone": VERDICT_TONES.get(row["licence"]["verdict"], "")} for row in rows]


def _cost(record: Json) -> Json:
    cost = record["cost"]
    total = words.duration(cost["seconds"])
    sentence = f"This run took {total} on {cost['machine']}."
    if cost["n_reused"]:
        kept = f"{cost['n_reused']} of {len(record['candidates'])} candidates"
        sentence += f" The results of {kept} were there from an earlier one."
    rows = [{**item["cost"], "name": item["name"], "winner": item["winner"]} for item in record["candidates"]]
    note = "An encoder that several candidates share is run once; its time is shown with each of them. "
    note += "Where it had seen the photos before, its time is that of reading the features back. "
    if cost["full_data_images"]:
        note += "The estimate scales the encoder's time by the number of photos and the head's by the same."
    return {**cost, "sentence": sentence, "rows": rows, "note": note.strip()}
