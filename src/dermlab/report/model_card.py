"""``MODEL_CARD.md`` of a bake-off's winner, in the form that the Hugging Face Hub reads.

After Mitchell et al. 2019, "Model cards for model reporting": what it is, what it was made from and under which terms,
how good it is and for whom, what it is for and what not, and how to make it again. The Hub's front matter (YAML between
two lines of dashes) holds the metrics as a model index.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from dermlab import __version__
from dermlab.core import words
from dermlab.core.config import write_yaml
from dermlab.report import parts as analyses
from dermlab.report.checklist import escaped, weighed

Json = dict[str, Any]
INDEXED = {"top1": "accuracy", "balanced_accuracy": "balanced_accuracy", "macro_f1": "f1", "auroc": "roc_auc"}
"""Our metric -> the Hub's name for it."""
SHOWN = ("top1", "top3", "balanced_accuracy", "macro_f1", "auroc", "ece", "brier", "log_loss")
TOLD = ("leak", "subgroups", "calibration", "referral", "conformal", "hierarchy", "robustness", "unseen")


def model_card(record: Json, further: Mapping[str, Json]) -> str | None:
    """Return the model card of a bake-off's winner; None where nothing won.

    Args:
        record: the content of ``bakeoff.json``.
        further: the winner's assessment, and what else was measured, by name.
    """
    winner = next((item for item in record["candidates"] if item["winner"]), None)
    if winner is None:
        return None
    sections = (
        _what_it_is(record, winner),
        _warned(record, winner),
        _use(record, winner),
        _data(record),
        _terms(record, winner),
        _measured(record, winner),
        _further(further),
        _reproduce(record),
    )
    lines = ["---", _front_matter(record, winner).rstrip(), "---", ""]
    lines += [f"# {escaped(winner['name'])}: {escaped(record['asked']['target'])}", ""]
    for section in sections:
        lines += [*section, ""]
    return "\n".join(lines).rstrip() + "\n"


def _front_matter(record: Json, winner: Json) -> str:
    data, metrics = record["data"], winner["metrics"]
    indexed = [
        {"type": kind, "name": words.metric_words(name)[0], "value": round(float(metrics[name]["value"]), 6)}
        for name, kind in INDEXED.items()
        if (metrics.get(name) or {}).get("value") is not None
    ]
    dataset = {"name": str(data["name"]), "type": str(data["name"]), "split": "test", "revision": data["fingerprint"]}
    result = {
        "task": {"type": "image-classification", "name": f"{record['asked']['target']} of skin photos"},
        "dataset": dataset,
        "metrics": indexed,
    }
    front: Json = {
        "library_name": "dermlab",
        "pipeline_tag": "image-classification",
        # What may be done with it follows from the terms of all it was made from: no single licence of the Hub's list.
        "license": "other",
        "license_name": "see-lineage",
        "license_link": "#licences-and-lineage",
        "tags": ["dermatology", "medical-imaging", "dermlab", str(winner["head"] or "ensemble")],
        "model-index": [{"name": str(winner["name"]), "results": [result]}],
    }
    return write_yaml(front)


def _what_it_is(record: Json, winner: Json) -> list[str]:
    data = record["data"]
    classes = ", ".join(
        f"{escaped(name)} ({escaped(spelled)})" if (spelled := data["class_names"].get(name)) else escaped(name)
        for name in data["classes"]
    )
    if winner["weights"]:
        members = ", ".join(f"{weight} {escaped(name)}" for weight, name in weighed(winner["weights"]))
        made = f"the weighted mean of the probabilities of {members}"
    elif winner["encoder"]:
        made = f"a {escaped(winner['head'])} head on the frozen encoder {escaped(winner['encoder'])}"
    else:
        made = f"the {escaped(winner['head'])} model, which looks at no photo"
    return [
        f"Tells {len(data['classes'])} classes of {escaped(record['asked']['target'])} apart: {classes}. "
        f"It is {made}. Chosen by a bake-off of {len(record['candidates'])} candidates ({record['made_at']}):",
        "",
        f"> **{escaped(record['decision']['word'])}.** {escaped(record['decision']['sentence'])}",
    ]


def _warned(record: Json, winner: Json) -> list[str]:
    told = [*record["waivers"], *winner["flags"], *winner["warnings"], *record["warnings"]]
    told += [item["message"] for item in record["findings"] if item["severity"] == "error" and not item.get("waived")]
    if not told:
        return ["## Warnings", "", "None were raised by the audit of the data or by the evaluation."]
    return ["## Warnings", "", *[f"- {escaped(line)}" for line in dict.fromkeys(told)]]


def _use(record: Json, winner: Json) -> list[str]:
    data = record["data"]
    groups = words.groups_word(data["group_by"])
    return [
        "## Intended use and limits",
        "",
        f"Meant for {words.use_words(record['asked']['use'])}, as a second opinion for people who can judge a skin "
        "lesion themselves. It is no medical device and makes no diagnosis.",
        "",
        f"- It knows {len(data['classes'])} classes and will name one of them for any photo, of whatever it is.",
        f"- It was tested on {groups} of the same source as those it learnt from ({escaped(data['name'])}): other "
        "cameras, places and people may give other results, and nobody has measured them here.",
        "- Subgroups with few cases were too few to say anything about.",
        "- A person has to fill in: who may use it, in which step of care, and who answers for its mistakes.",
    ]


def _data(record: Json) -> list[str]:
    data = record["data"]
    groups = words.groups_word(data["group_by"])
    counts = ", ".join(
        f"{escaped(name)} {words.count(sum(by_part.values()))}" for name, by_part in data["class_counts"].items()
    )
    split = data["split"]
    how = f"{split['n_folds']} folds" if split["n_folds"] > 1 else "train, val and test"
    lines = [
        "## Data",
        "",
        f"{escaped(data['name'])}, version {escaped(data['version'])}: {words.count(data['n_images'])} photos of "
        f"{words.count(data['n_groups'])} {groups} ({counts}). {escaped(data['description'])}",
        "",
        f"Divided by {groups} into {how} (split {escaped(split['name'])}); val chose everything, test only reports.",
    ]
    if data["dropped"]:
        lines += ["", "Questionnaire columns that were not used:", ""]
        lines += [f"- {escaped(item['column'])}: {escaped(item['reason'])}" for item in data["dropped"]]
    return lines


def _terms(record: Json, winner: Json) -> list[str]:
    data, terms = record["data"], winner["licence"]
    lines = [
        "## Licences and lineage",
        "",
        f"For {words.use_words(record['asked']['use'])}: **{escaped(terms['verdict'])}**. Engineering triage by "
        "written rules, no legal advice.",
        "",
        f"- Made from: {escaped(winner['encoder'] or ', '.join(winner['weights']) or 'no weights of others')}",
        f"- Data set: {escaped(data['name'])}, {escaped(data['licence'] or 'no licence stated')}",
    ]
    if data["citation"]:
        lines.append(f"- Cite: {escaped(data['citation'])}")
    lines += [f"- Condition: {escaped(line)}" for line in terms["conditions"]]
    lines += [f"- Obstacle: {escaped(line)}" for line in terms["reasons"]]
    return lines


def _measured(record: Json, winner: Json) -> list[str]:
    metrics = winner["metrics"]
    lines = ["## How good it is", "", f"On {analyses.measured(metrics)} that no training part held", ""]
    lines[2] += f" ({words.intervals_sentence(metrics)}):" if "interval" in metrics else ":"
    lines += ["| metric | value | 95% interval |", "|---|---|---|"]
    for name in SHOWN:
        found = metrics.get(name) or {}
        if found.get("value") is not None:
            label, _, kind = words.metric_words(name)
            lines.append(f"| {label} | {words.score(found['value'], kind)} | {words.span(found, kind)} |")
    lines += ["", "| class | n | recall | 95% interval |", "|---|---|---|---|"]
    for name, found in metrics["per_class"].items():
        recall = found["recall"] or {"value": None}
        lines.append(f"| {escaped(name)} | {found['n']:,} | {words.score(recall['value'])} | {words.span(recall)} |")
    return lines


def _further(further: Mapping[str, Json]) -> list[str]:
    lines: list[str] = []
    for part in analyses.view({name: further[name] for name in TOLD if name in further}):
        lines += [f"### {part['title']}", "", escaped(part["sentence"]), ""]
    return ["## For whom, how sure, how robust", "", *lines[:-1]] if lines else []


def _reproduce(record: Json) -> list[str]:
    made = record["reproduce"]
    facts = [f"- {escaped(name)}: {escaped(value)}" for name, value in made["facts"].items()]
    # A fence longer than any run of backticks cannot be left by a path.
    runs = re.findall(r"`+", made["command"] + made["config_yaml"])
    fence = "`" * max(3, 1 + max(map(len, runs), default=0))
    config = [f"{fence}yaml", *made["config_yaml"].rstrip().splitlines(), fence]
    return [
        "## How to make it again",
        "",
        fence,
        " ".join(made["command"].split()),
        fence,
        "",
        "with this config:",
        "",
        *config,
        "",
        *facts,
        "",
        f"Made by dermlab {__version__}; the report beside `runs/` shows all of it, `checklist.md` what TRIPOD+AI and "
        "CLAIM ask.",
    ]
