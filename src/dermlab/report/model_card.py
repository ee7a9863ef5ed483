"""``MODEL_CARD.md`` of a run, a bake-off's winner or an encoder, in the form that the Hugging Face Hub reads.

After Mitchell et al. 2019, "Model cards for model reporting": what it is, what it was made from and under which terms,
how good it is and for whom, what it is for and what not, and how to make it again. The Hub's front matter (YAML between
two lines of dashes) holds the metrics as a model index.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dermlab import __version__
from dermlab.core import words
from dermlab.core.config import read_yaml, write_yaml
from dermlab.core.errors import InputError
from dermlab.core.files import read_json, write_text
from dermlab.evaluate.assessment import PARTS, Assessment, Known, assess, write_parts
from dermlab.evaluate.predictions import read_predictions
from dermlab.licensing import (
    USES,
    LicenceCard,
    Verdict,
    attributions,
    cards,
    contaminated,
    find_cards,
    known_cards,
    triage,
)
from dermlab.report import parts as analyses
from dermlab.report.checklist import escaped, weighed

Json = dict[str, Any]
CARD_FILE = "MODEL_CARD.md"
INDEXED = {"top1": "accuracy", "balanced_accuracy": "balanced_accuracy", "macro_f1": "f1", "auroc": "roc_auc"}
"""Our metric -> the Hub's name for it."""
FURTHER = ("brier", "log_loss")
PLACE = re.compile(r"(?<![\w.:/~\\])~?(?:/[^\s/:;,()'\"]+){2,}")
"""A path of this machine within a text; what follows a word or a colon (``and/or``, ``https://…``) is none."""
TOLD = ("leak", "subgroups", "calibration", "referral", "conformal", "hierarchy", "robustness", "unseen")
TOLD_OF_RUNS = ("subgroups", "calibration", "hierarchy")
STRICTEST_USE = USES[-1]
"""The use that conditions are listed for where nobody said what the model is for."""


@dataclass(frozen=True)
class Lineage:
    """The licence cards that stand behind an artefact: ids in the order found, and those that it brings itself."""

    ids: tuple[str, ...] = ()
    own: Mapping[str, LicenceCard] | None = None

    @classmethod
    def of(cls, path: str | Path) -> Lineage:
        """Read what an artefact's files say; nothing where they say nothing."""
        try:
            ids, own = find_cards(path)
        except InputError:
            return cls()
        return cls(tuple(ids), own)

    @property
    def named(self) -> list[tuple[str, str]]:
        """Whom to name: (what is theirs, how), for everything down to the last data set."""
        return attributions(self.ids, self.own)

    def verdicts(self, use: str) -> list[Verdict]:
        """Return the verdict on each card for a use."""
        return triage(self.ids, use, extra=self.own)

    def datasets(self) -> list[str]:
        """Return the ids of the data sets among the cards."""
        known = known_cards(self.own)
        return [name for name in self.ids if name in known and known[name].kind == "dataset"]

    def warnings(self) -> list[str]:
        """Return what models here know of data sets here."""
        return [f"{name}: {told}" for name, told in contaminated(self.ids, self.own).items()]


def write_model_card(
    folder: str | Path, *, further: Mapping[str, Json] | None = None, waived: Sequence[str] = ()
) -> Path:
    """Write ``MODEL_CARD.md`` into a finished run's folder or an encoder folder, from the files that are in it.

    Args:
        folder: the folder of a probe, a fine-tuning, a pretraining run or an encoder.
        further: analyses by name of :data:`dermlab.report.parts.TITLES`; None: what stands in its ``assessment/``.
        waived: what a person waived since, in words.

    Returns:
        The path of the card.

    Raises:
        InputError: the folder holds neither a finished run nor an encoder.
    """
    folder = Path(folder)
    return write_text(folder / CARD_FILE, folder_card(folder, further=further, waived=waived))


def describe_run(folder: str | Path, *, n_boot: int = 2000, seed: int = 0) -> Path:
    """Write a finished run's card, and before it what the card tells beyond the metrics: subgroups and calibration.

    Args:
        folder: a run folder with ``predictions.parquet``; analyses that stand in its ``assessment/`` are not repeated.
        n_boot: bootstrap replicates.
        seed: of the bootstraps.
    """
    folder = Path(folder)
    place = folder / "assessment"
    if not place.is_dir():
        file = next(iter(sorted(folder.glob("checkpoints/*/model.json"))), None)
        hierarchy = read_json(file)["target"].get("hierarchy") if file is not None else None
        asked = Assessment(skip=tuple(name for name in PARTS if name not in TOLD_OF_RUNS))
        write_parts(place, assess(read_predictions(folder), asked, Known(hierarchy or None), n_boot=n_boot, seed=seed))
    return write_model_card(folder)


def folder_card(folder: str | Path, *, further: Mapping[str, Json] | None = None, waived: Sequence[str] = ()) -> str:
    """Return the card of a folder; arguments and errors as with :func:`write_model_card`."""
    folder = Path(folder)
    if (folder / "metrics.json").is_file() and (folder / "predictions.parquet.json").is_file():
        if further is None:
            files = {name: folder / "assessment" / f"{name}.json" for name in TOLD}
            further = {name: read_json(file) for name, file in files.items() if file.is_file()}
        return _run_card(folder, further, waived)
    if encoder_folder(folder) is not None:
        return _encoder_card(folder, waived)
    raise InputError(f"{folder}: holds neither a finished run (metrics.json, predictions.parquet) nor an encoder")


def encoder_folder(folder: str | Path) -> Path | None:
    """Return where a folder holds an encoder: itself, or a pretraining run's ``encoder/``; None where it holds none."""
    folder = Path(folder)
    places = (folder, folder / "encoder")
    wanted = ("config.json", "preprocess.json")
    found = (place for place in places if all((place / name).is_file() for name in wanted))
    # A classifier that was pushed has these two at its top as well.
    return next((place for place in found if not (place / "checkpoints").is_dir()), None)


def model_card(record: Json, further: Mapping[str, Json], lineage: Lineage | None = None) -> str | None:
    """Return the model card of a bake-off's winner; None where nothing won.

    Args:
        record: the content of ``bakeoff.json``.
        further: the winner's assessment, and what else was measured, by name.
        lineage: the licence cards behind the winner; None: only what the record says of them.
    """
    winner = next((item for item in record["candidates"] if item["winner"]), None)
    if winner is None:
        return None
    lineage = lineage or Lineage()
    data, use = record["data"], record["asked"]["use"]
    told = [*record["waivers"], *winner["flags"], *winner["warnings"], *record["warnings"], *lineage.warnings()]
    told += [item["message"] for item in record["findings"] if item["severity"] == "error" and not item.get("waived")]
    sections = (
        _what_it_is(record, winner),
        _warned(told),
        _use(use, data["classes"], data.get("kind", ""), data["group_by"], data["name"]),
        _data(record),
        _terms(record, winner, lineage),
        _measured(winner["metrics"]),
        _further(further),
        _reproduce(**record["reproduce"]),
    )
    front = _front_matter(
        winner["name"],
        target=record["asked"]["target"],
        data=data["name"],
        fingerprint=data["fingerprint"],
        metrics=winner["metrics"],
        head=winner["head"] or "ensemble",
        datasets=[data.get("licence_card") or data["name"]],
    )
    return _page(front, f"{winner['name']}: {record['asked']['target']}", sections)


def _page(front: Json, title: str, sections: Iterable[Sequence[str]]) -> str:
    lines = ["---", write_yaml(front).rstrip(), "---", "", f"# {escaped(title)}", ""]
    for section in sections:
        if section:
            lines += [*section, ""]
    return without_places("\n".join(lines).rstrip() + "\n")


def _front_matter(
    name: str,
    *,
    target: str,
    data: str,
    fingerprint: str,
    metrics: Json,
    head: str,
    datasets: Sequence[str],
    base: str | None = None,
) -> Json:
    indexed = [
        {"type": kind, "name": words.metric_words(metric)[0], "value": round(float(metrics[metric]["value"]), 6)}
        for metric, kind in INDEXED.items()
        if (metrics.get(metric) or {}).get("value") is not None
    ]
    dataset = {"name": str(data), "type": slug(data), "split": "test", "revision": fingerprint}
    result = {
        "task": {"type": "image-classification", "name": f"{target} of skin photos"},
        "dataset": dataset,
        "metrics": indexed,
    }
    return {
        "library_name": "dermlab",
        "pipeline_tag": "image-classification",
        **_licence_and_tags(head, datasets, base),
        "metrics": [item["type"] for item in indexed],
        "model-index": [{"name": str(name), "results": [result]}],
    }


def _licence_and_tags(kind: str, datasets: Sequence[str], base: str | None) -> Json:
    return {
        # What may be done with it follows from the terms of all it was made from: no single licence of the Hub's list.
        "license": "other",
        "license_name": "see-lineage",
        "tags": ["dermatology", "medical-imaging", "dermlab", str(kind)],
        "datasets": [slug(name) for name in datasets],
        **({"base_model": base} if base else {}),
    }


def slug(name: str) -> str:
    """Return a name as the Hub allows it in its lists: letters, digits, dots, dashes and underscores."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", str(name)).strip("-.")[:96] or "unnamed"


def _what_it_is(record: Json, winner: Json) -> list[str]:
    data = record["data"]
    classes = ", ".join(
        f"{escaped(name)} ({escaped(spelled)})" if (spelled := data["class_names"].get(name)) else escaped(name)
        for name in data["classes"]
    )
    if winner["weights"]:
        members = ", ".join(f"{weight} {escaped(name)}" for weight, name in weighed(winner["weights"]))
        made = f"the weighted mean of the probabilities of {members}"
    elif winner.get("finetuned"):
        made = f"the network of {escaped(winner['encoder'])}, {escaped(winner['head'])}"
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


def _warned(told: Iterable[str]) -> list[str]:
    lines = [f"- {escaped(anonymous(line))}" for line in dict.fromkeys(told)]
    return ["## Warnings", "", *(lines or ["None were raised."])]


def anonymous(warning: str) -> str:
    """Return a warning without the photos that it gives as an example: their names may be a person's."""
    return re.sub(r" \((?:the first:|for one,) [^)]*(?:\)[^()]*)*\)", "", warning)


def _use(use: str | None, classes: Sequence[str], kind: str, group_by: str | None, data: str) -> list[str]:
    groups = words.groups_word(group_by)
    meant = f"Meant for {words.use_words(use)}" if use else "A person has to say for which use it is meant; if for care"
    return [
        "## Intended use and limits",
        "",
        f"{meant}, as a second opinion for people who can judge a skin lesion themselves. It is no medical device and "
        "makes no diagnosis.",
        "",
        f"- It knows {len(classes)} {'labels' if kind == 'multilabel' else 'classes'} and will name "
        f"{'some or none' if kind == 'multilabel' else 'one'} of them for any photo, of whatever it is.",
        f"- It was tested on {groups} of the same source as those it learnt from ({escaped(data)}): other cameras, "
        "places and people may give other results, and nobody has measured them here.",
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


def _terms(record: Json, winner: Json, lineage: Lineage) -> list[str]:
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
    if lineage.ids:
        return lines + _table_of(lineage, record["asked"]["use"])
    lines += [f"- Condition: {escaped(line)}" for line in terms["conditions"]]
    lines += [f"- Obstacle: {escaped(line)}" for line in terms["reasons"]]
    return lines


def _table_of(lineage: Lineage, use: str) -> list[str]:
    """Return what each card behind a model says of every use, what a use asks for, and whom to name."""
    if not lineage.ids:
        return []
    columns = {name: lineage.verdicts(name) for name in USES}
    lines = ["", f"| card | licence | {' | '.join(USES)} |", "|---" * (2 + len(USES)) + "|"]
    for place, name in enumerate(lineage.ids):
        verdicts = [columns[each][place] for each in USES]
        cells = [name, verdicts[0].licence, *(verdict.verdict for verdict in verdicts)]
        lines.append(f"| {' | '.join(escaped(cell) for cell in cells)} |")
    lines += ["", f"For {words.use_words(use)}:", ""]
    told = [
        f"- {escaped(verdict.id)}: {escaped(reason.text)}"
        + (f" ({escaped(' ← '.join(reason.chain))})" if len(reason.chain) > 1 else "")
        for verdict in columns[use]
        for reason in verdict.reasons
    ]
    lines += list(dict.fromkeys(told)) or ["- no condition is known"]
    if lineage.named:
        lines += ["", "Name:", "", *(f"- {escaped(what)}: {escaped(how)}" for what, how in lineage.named)]
    return lines


def _measured(metrics: Json) -> list[str]:
    lines = ["## How good it is", "", f"On {analyses.measured(metrics)} that no training part held", ""]
    lines[2] += f" ({words.intervals_sentence(metrics)}):" if "interval" in metrics else ":"
    lines += ["| metric | value | 95% interval |", "|---|---|---|"]
    for name in (*words.headline(metrics.get("kind", "")), *FURTHER):
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


def _reproduce(command: str, config_yaml: str, facts: Mapping[str, Any]) -> list[str]:
    told = [f"- {escaped(name)}: {escaped(str(value))}" for name, value in facts.items()]
    # A fence longer than any run of backticks cannot be left by a path.
    runs = re.findall(r"`+", command + config_yaml)
    fence = "`" * max(3, 1 + max(map(len, runs), default=0))
    config = [f"{fence}yaml", *config_yaml.rstrip().splitlines(), fence]
    return [
        "## How to make it again",
        "",
        fence,
        " ".join(command.split()),
        fence,
        "",
        "with this config:",
        "",
        *config,
        "",
        *told,
        "",
        f"Made by dermlab {__version__}.",
    ]


# --- a run's folder -------------------------------------------------------------------------------------------------


def _run_card(folder: Path, further: Mapping[str, Json], waived: Sequence[str]) -> str:
    metrics, sidecar = read_json(folder / "metrics.json"), read_json(folder / "predictions.parquet.json")
    stored = read_yaml(folder / "config.yaml")
    models = [read_json(file) for file in sorted(folder.glob("checkpoints/*/model.json"))]
    lineage = Lineage.of(folder)
    made_from = sidecar.get("lineage") or {}
    told = [*waived, *_waived_words(made_from), *metrics["warnings"], *lineage.warnings()]
    name, target = str(sidecar["model"]), str(sidecar["target"])
    data = str(made_from.get("dataset") or next(iter(lineage.datasets()), "data of unknown origin"))
    head = (stored.get("config") or {}).get("head")
    sections = (
        _what_a_run_is(name, target, sidecar, models),
        _warned(told),
        _use(None, sidecar["classes"], str(sidecar.get("kind", "")), metrics["group_by"], data),
        _data_of_run(data, made_from, metrics, models),
        _terms_of_run(made_from) + _table_of(lineage, STRICTEST_USE),
        _measured(metrics),
        _further(further),
        _reproduce(
            f"dermlab {stored.get('command', 'run')} --config config.yaml",
            write_yaml(without_places(stored.get("config") or {})),
            _facts(folder, sidecar),
        ),
    )
    front = _front_matter(
        name,
        target=target,
        data=data,
        fingerprint=str(made_from.get("data_fingerprint") or "unknown"),
        metrics=metrics,
        head=str((head.get("kind") if isinstance(head, Mapping) else head) or stored.get("command") or "model"),
        datasets=lineage.datasets() or [data],
        base=_base_model(models[0].get("encoder") if models else None),
    )
    return _page(front, f"{name}: {target}", sections)


def _what_a_run_is(name: str, target: str, sidecar: Json, models: Sequence[Json]) -> list[str]:
    spelled = models[0]["target"].get("names", {}) if models else {}
    classes = ", ".join(
        f"{escaped(item)} ({escaped(spelled[item])})" if spelled.get(item) else escaped(item)
        for item in sidecar["classes"]
    )
    lines = [f"Tells {len(sidecar['classes'])} classes of {escaped(target)} apart: {classes}. It is {escaped(name)}."]
    if len(models) > 1:
        lines += ["", f"{len(models)} models, one for each fold; a new photo gets the mean of their probabilities."]
    preprocess = (models[0].get("encoder") or {}).get("preprocess") if models else None
    return [*lines, "", _photos(preprocess)] if preprocess else lines


def _photos(preprocess: Json) -> str:
    """Return how a photo is brought to the network; a histogram has no mean to subtract."""
    told = [f"{key}: {_plain(value)}" for key, value in preprocess.items() if value is not None]
    return f"Photos: {escaped('; '.join(told))}."


def _plain(value: Any) -> str:
    return ", ".join(f"{item:g}" for item in value) if isinstance(value, list) else str(value)


def _data_of_run(data: str, made_from: Json, metrics: Json, models: Sequence[Json]) -> list[str]:
    groups = words.groups_word(metrics["group_by"])
    by_class = ", ".join(f"{escaped(name)} {found['n']:,}" for name, found in metrics["per_class"].items())
    lines = ["## Data", "", f"{escaped(data)}; tested on {analyses.measured(metrics)} ({by_class}).", ""]
    split = escaped(str(made_from.get("split") or "unknown"))
    lines.append(
        f"Divided by {groups} into {words.plural(metrics['folds'], 'fold')} (split {split}); val chose everything, "
        "test only reports."
    )
    counts = [[model["report"].get(key) for model in models] for key in ("n_train", "n_val")]
    if models and all(isinstance(n, int) for column in counts for n in column):
        train, val = (round(sum(column) / len(column)) for column in counts)
        each = " a fold, on average" if len(models) > 1 else ""
        lines += ["", f"Fitted on {train:,} photos and chosen on {val:,}{each}."]
    return lines


def _terms_of_run(made_from: Json) -> list[str]:
    card = made_from.get("data_card") or {}
    lines = [
        "## Licences and lineage",
        "",
        "Engineering triage by written rules, no legal advice.",
        "",
        f"- Made from: {escaped(str(made_from.get('encoder') or 'no weights of others'))}",
    ]
    if card:
        lines.append(f"- Data set: {escaped(card['name'])}, {escaped(card.get('licence') or 'no licence stated')}")
    if card.get("citation"):
        lines.append(f"- Cite: {escaped(card['citation'])}")
    return lines


def _waived_words(made_from: Json) -> list[str]:
    return [f"waived: {name}" for name in made_from.get("waived") or ()]


def _facts(folder: Path, sidecar: Json) -> dict[str, Any]:
    made_from = sidecar.get("lineage") or {}
    facts = {
        "run": sidecar.get("run_id"),
        "fingerprint of the model": sidecar.get("fingerprint"),
        "fingerprint of the data": made_from.get("data_fingerprint"),
        "fingerprint of the encoder": made_from.get("encoder_fingerprint"),
    }
    return {name: value for name, value in {**facts, **_versions(folder)}.items() if value}


def _versions(folder: Path) -> dict[str, str]:
    file = folder / "environment.json"
    if not file.is_file():
        return {}
    found = read_json(file)
    packages = ", ".join(f"{name} {version}" for name, version in found.get("packages", {}).items())
    return {"Python": str(found.get("python", "")), "packages": packages}


def without_places(value: Any) -> Any:
    """Return JSON-able content with absolute paths cut to their last name: where a file lay is nobody's business.

    A text that is a path is cut whole; in a sentence a path ends at the first blank.
    """
    if isinstance(value, Mapping):
        return {key: without_places(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_places(item) for item in value]
    if not isinstance(value, str):
        return value
    if (Path(value).is_absolute() or value.startswith("~")) and not re.search(r"\n|[:;,.] ", value):
        return Path(value).name
    return PLACE.sub(lambda found: Path(found.group()).name, value)


def _base_model(encoder: Json | None) -> str | None:
    """Return the Hub's id of published weights that a model was made from; None where the Hub has none."""
    if encoder is None or encoder["name"].endswith("+random"):
        return None
    if encoder["name"].startswith(("hf:", "hf-hub:")):
        return encoder["name"].partition(":")[2]
    if encoder.get("library") == "timm" and encoder.get("licence_card") in cards() and "." in encoder["architecture"]:
        return f"timm/{encoder['architecture']}"
    return None


# --- an encoder's folder --------------------------------------------------------------------------------------------


def _encoder_card(folder: Path, waived: Sequence[str]) -> str:
    place = encoder_folder(folder)
    assert place is not None  # folder_card asked
    run = folder if place != folder else folder.parent
    config, preprocess = read_json(place / "config.json"), read_json(place / "preprocess.json")
    stored = read_yaml(run / "config.yaml") if (run / "config.yaml").is_file() else {}
    done = read_json(run / "done.json") if (run / "done.json").is_file() else {}
    lineage = Lineage.of(place)
    known = known_cards(lineage.own)
    own = next((known[name] for name in lineage.ids if name in known), None)
    architecture = str(config.get("architecture") or config.get("model_type") or "an image encoder")
    name = own.name if own is not None else architecture
    made_of = [known[item].name if item in known else item for item in (own.trained_on if own else None) or ()]
    data = [item for item in (own.trained_on if own else None) or () if item in known and known[item].kind == "dataset"]
    is_timm = "pretrained_cfg" in config
    front = {
        "library_name": "timm" if is_timm else "transformers" if "model_type" in config else "dermlab",
        "pipeline_tag": "image-feature-extraction",
        **_licence_and_tags(str(stored.get("command") or "encoder"), data, None),
    }
    lines = [f"An image encoder ({escaped(architecture)}): it turns a photo into numbers and names no class."]
    lines += ["", _photos(preprocess)]
    if is_timm:
        lines += ["", "It loads with timm: `timm.create_model('hf-hub:OWNER/NAME', pretrained=True)`."]
    sections = (
        lines,
        _warned([*waived, *(str(text) for text in done.get("warnings") or ()), *lineage.warnings()]),
        [
            "## Intended use and limits",
            "",
            "Meant as the start of a classifier that is then tested on patients of its own. It makes no diagnosis. "
            "Nothing here says how well such a classifier will do, and nothing that holds the photos it was trained on "
            "may test it.",
        ],
        ["## Data", "", f"Trained on: {escaped(', '.join(made_of) or 'not recorded')}."],
        ["## Licences and lineage", "", "Engineering triage by written rules, no legal advice."]
        + (_table_of(lineage, STRICTEST_USE) or ["", "Nothing was recorded: unknown for every use."]),
        _reproduce(
            f"dermlab {stored['command']} --config config.yaml",
            write_yaml(without_places(stored.get("config") or {})),
            _versions(run),
        )
        if stored.get("command")
        else [f"Made by dermlab {__version__}."],
    )
    return _page(front, name, sections)
