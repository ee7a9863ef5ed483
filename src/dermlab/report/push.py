"""A run for the Hugging Face Hub: which files go, under which terms, and the sending itself.

What goes is named, what is not named stays: weights (a frozen encoder's too, if it was made here), how photos are
prepared, the names of the classes, the metrics and the model card. Predictions, the lists of what a model has seen,
photos, logs and paths of this machine never go, and a text that holds the id of a photo or of a patient goes without
it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dermlab.adapt.probe import ENCODER_FOLDER, MODEL_FILE, PUSHED_FILE, SEEN_FILE, decisions
from dermlab.core.errors import DermlabError, InputError, first_line
from dermlab.core.files import read_json
from dermlab.evaluate.predictions import read_table
from dermlab.licensing import Verdict, known_cards, read_card
from dermlab.licensing.triage import BLOCKED, UNKNOWN, worst
from dermlab.report.model_card import Lineage, anonymous, encoder_folder, folder_card, without_places

Json = dict[str, Any]
USE = "commercial"
"""The use that a model on the Hub is judged for: whoever gets it may sell what they make of it."""

WEIGHTS = ("head.safetensors", "best.safetensors", "model.safetensors")
DESCRIPTIONS = (
    *("model.json", "head.json", "questionnaire.json"),
    *("config.json", "preprocess.json", "preprocessor_config.json", "card.yaml"),
)
VECTOR_HEAD = "KNNHead"
WAIVERS = ("licence", "redistribution", "vectors")


@dataclass(frozen=True)
class Package:
    """What would go to the Hub.

    Attributes:
        files: path in the repository -> the file on this machine, or the bytes.
        verdict: the gravest verdict on the cards behind the run for :data:`USE`.
        conditions: what must be done first.
        refusals: waiver -> why the run may not go without it.
        waived: the refusals that a person waived, in words.
    """

    files: Mapping[str, Path | bytes]
    verdict: str
    conditions: tuple[str, ...]
    refusals: Mapping[str, str]
    waived: tuple[str, ...]

    def sizes(self) -> dict[str, int]:
        """Return the bytes of every file, by its path in the repository."""
        return {
            name: len(content) if isinstance(content, bytes) else content.stat().st_size
            for name, content in self.files.items()
        }


def package(folder: str | Path, waive: Sequence[str] = ()) -> Package:
    """Return what of a finished run, or of an encoder folder, would go to the Hub, and what stands against it.

    Args:
        folder: a probe's or a fine-tuning's run folder, a pretraining run or an encoder folder.
        waive: of :data:`WAIVERS`, what a person takes upon themselves; it is told in the model card.

    Raises:
        InputError: the folder holds no model, or a waiver is not one of :data:`WAIVERS`.
    """
    folder = Path(folder)
    unknown = sorted(set(waive) - set(WAIVERS))
    if unknown:
        raise InputError(f"waive: {unknown[0]!r} is not one of {', '.join(WAIVERS)}")
    places = _places(folder)
    lineage = Lineage.of(folder)
    verdicts = lineage.verdicts(USE)
    refusals = _refusals(lineage, verdicts, places.values())
    waived = tuple(
        f"waived before it was pushed: {name}: {refusals[name]}"
        for name in WAIVERS
        if name in waive and name in refusals
    )
    hidden = _identities(folder)
    files: dict[str, Path | bytes] = {}
    for prefix, place in places.items():
        for name in WEIGHTS:
            if (place / name).is_file():
                files[prefix + name] = place / name
        for name in DESCRIPTIONS:
            if (place / name).is_file():
                text = (place / name).read_text(encoding="utf-8")
                shown = _as_json(_shown(json.loads(text), hidden)) if name.endswith(".json") else _without(text, hidden)
                files[prefix + name] = shown.encode()
    if not any(name.endswith(".safetensors") for name in files):
        raise InputError(f"{folder}: holds no weights (safetensors); there is nothing that anybody could use")
    if (folder / "metrics.json").is_file():
        files["metrics.json"] = _as_json(_public(read_json(folder / "metrics.json"), hidden)).encode()
        files |= {name: _as_json(content).encode() for name, content in _described(folder, places).items()}
    files["README.md"] = _without(folder_card(folder, waived=waived), hidden).encode()
    conditions = tuple(dict.fromkeys(line for verdict in verdicts for line in verdict.conditions))
    gravest = worst(verdict.verdict for verdict in verdicts) if verdicts else UNKNOWN
    return Package(files, gravest, conditions, {k: v for k, v in refusals.items() if k not in waive}, waived)


def _places(folder: Path) -> dict[str, Path]:
    """Return where the model lies: what stands before a file's name in the repository -> the folder."""
    if (folder / "bakeoff.json").is_file():
        run = next((item["run"] for item in read_json(folder / "bakeoff.json")["candidates"] if item["winner"]), None)
        told = f"push its winner: {folder / run}" if run else "it has no winner"
        raise InputError(f"{folder}: is a bake-off and no model; {told}")
    encoder = encoder_folder(folder)
    if encoder is not None:
        return {"": encoder}  # at the top, where timm and transformers look
    folds = sorted(file.parent for file in folder.glob("checkpoints/*/model.json"))
    if not folder.exists():
        raise InputError(f"{folder}: no such folder")
    if not folds:
        raise InputError(f"{folder}: holds no model; give the folder of a probe, a fine-tuning or an encoder")
    if not (folder / "done.json").is_file():
        raise InputError(f"{folder}: this run is not finished; the command that began it goes on with it")
    frozen = _encoder_made_here(read_json(folds[0] / MODEL_FILE))
    return {
        **{f"checkpoints/{place.name}/": place for place in folds},
        **({f"{ENCODER_FOLDER}/": frozen} if frozen is not None else {}),
    }


def _encoder_made_here(model: Json) -> Path | None:
    """Return the folder of the frozen encoder that a probe stands on, where nobody else could fetch it by its name."""
    name = model.get("encoder_name")
    return Path(name) if name is not None and encoder_folder(name) == Path(name) else None


def _shown(content: Json, hidden: frozenset[str]) -> Json:
    """Return a description as it goes: an encoder that goes along is found there, and its card is named by its id."""
    shown = _public(content, hidden)
    if _encoder_made_here(content) is not None:
        shown["encoder_name"] = ENCODER_FOLDER
    encoder = content.get("encoder")
    card = encoder.get("licence_card") if isinstance(encoder, dict) else None
    if card is not None and Path(card).is_file():
        shown["encoder"]["licence_card"] = read_card(card).id
    return dict(shown)


def _described(folder: Path, places: Mapping[str, Path]) -> dict[str, Json]:
    """Return the files at the top of a classifier's repository: what it is, and how photos are prepared."""
    folds = [prefix for prefix in places if prefix.startswith("checkpoints/")]
    model = read_json(places[folds[0]] / MODEL_FILE)
    classes = model["target"]["classes"]
    encoder = model["encoder"] or {}
    config = {
        "library_name": "dermlab",
        "model": _public(model["name"], frozenset()),
        "encoder": None if not encoder else _public(encoder["name"], frozenset()),
        "target": model["target"]["column"],
        "id2label": {str(code): name for code, name in enumerate(classes)},
        "label2id": {name: code for code, name in enumerate(classes)},
        "class_names": model["target"].get("names") or {},
        "decisions": decisions(folder),
        "folds": [prefix.rstrip("/") for prefix in folds],
    }
    return {PUSHED_FILE: config, **({"preprocess.json": encoder["preprocess"]} if encoder.get("preprocess") else {})}


def _refusals(lineage: Lineage, verdicts: Sequence[Verdict], places: Iterable[Path]) -> dict[str, str]:
    found: dict[str, str] = {}
    grave = [verdict for verdict in verdicts if verdict.verdict in (BLOCKED, UNKNOWN)]
    if not lineage.ids:
        found["licence"] = "nothing says what it was made from, so what may be done with it is unknown"
    elif grave:
        first = max(grave, key=lambda verdict: verdict.verdict == BLOCKED)
        found["licence"] = f"{first.id} is {first.verdict} for {USE} use: {first.reasons[0].text}"
    known = known_cards(lineage.own)
    kept = [known[name] for name in lineage.ids if name in known and known[name].kind == "model"]
    kept = [card for card in kept if card.redistribution in ("no", "unknown")]
    if kept:
        found["redistribution"] = f"{kept[0].id} may not be passed on, as far as is known ({kept[0].licence})"
    if any(_holds_vectors(place) for place in places):
        found["vectors"] = "a knn head keeps the feature vector and the label of every training photo"
    return found


def _holds_vectors(place: Path) -> bool:
    """Tell whether a head keeps something of each single photo, itself or one of its members."""
    if not (place / "head.json").is_file():
        return False
    return f'"{VECTOR_HEAD}"' in (place / "head.json").read_text(encoding="utf-8")


_WORD = re.compile(r"[\w.\-]+")


def _identities(folder: Path) -> frozenset[str]:
    """Return the ids of photos, lesions and patients that the run was fitted, chosen or tested on."""
    found: set[str] = set()
    for file in folder.glob(f"checkpoints/*/{SEEN_FILE}"):
        seen = read_json(file)
        found.update(str(value) for name in ("images", "groups") for value in seen.get(name) or ())
    file = folder / "predictions.parquet"
    if file.is_file():
        frame = read_table(file)
        columns = [name for name in ("image_id", "unit", "group") if name in frame]
        found.update(str(value) for name in columns for value in frame[name].dropna().unique())
    # A letter or a bare small number is nobody's name, and would be found in every sentence and metric.
    return frozenset(value for value in found if len(value) > (5 if value.isdigit() else 2))


def _without(text: str, hidden: frozenset[str]) -> str:
    """Return a text with ids of photos and patients blanked, also within a name: ``IMG_001.jpg``, ``IMG_001_crop``.

    Markdown writes their underscores with a backslash.
    """
    # Ids with blanks or slashes are in no single word: they are looked for one by one, the longest first.
    for odd in sorted((value for value in hidden if not _WORD.fullmatch(value)), key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(odd)}(?!\w)", "[id]", text)

    def blanked(found: re.Match[str]) -> str:
        word = found.group().replace("\\", "")
        if word in hidden:
            return "[id]"
        if word.replace(".", "").isdigit():  # a metric's digits are nobody's number
            return found.group()
        parts = re.split(r"([._-])", word)
        pieces = ("".join(parts[i:j]) for i in range(len(parts)) for j in range(i + 1, len(parts) + 1))
        return "[id]" if any(piece in hidden for piece in pieces) else found.group()

    return re.sub(r"(?:[\w\-]|\\_)+(?:\.(?:[\w\-]|\\_)+)*", blanked, text)


def _public(value: Any, hidden: frozenset[str]) -> Any:
    """Return JSON-able content without paths of this machine, examples in warnings, and ids of photos and patients."""
    if isinstance(value, Mapping):
        return {_without(str(key), hidden): _public(item, hidden) for key, item in value.items()}
    if isinstance(value, list):
        return [_public(item, hidden) for item in value]
    return _without(anonymous(without_places(value)), hidden) if isinstance(value, str) else value


def _as_json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


# --- the sending ----------------------------------------------------------------------------------------------------


def send(contents: Package, repository: str, *, private: bool = True, message: str = "Made by dermlab") -> str:
    """Send a package to the Hub in one commit and return the repository's address.

    The token is huggingface_hub's own: ``HF_TOKEN``, or what ``hf auth login`` left.

    Args:
        contents: as :func:`package` returns it, with no refusal left.
        repository: ``OWNER/NAME``; it is made where it is not there.
        private: whether a new repository is private; one that is there stays as it is.
        message: of the commit.

    Raises:
        InputError: something stands against it still, or ``repository`` is no name of the Hub's.
        DermlabError: the Hub could not be reached or said no.
    """
    check_name(repository)
    if contents.refusals:
        raise InputError(refused(contents.refusals))
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    api = HfApi()
    try:
        made = api.create_repo(repository, private=private, exist_ok=True)
        operations = [
            CommitOperationAdd(name, content if isinstance(content, bytes) else str(content))
            for name, content in contents.files.items()
        ]
        api.create_commit(made.repo_id, operations, commit_message=message)
    except HFValidationError as error:
        raise InputError(f"{repository!r}: is no name of a repository: {first_line(error)}") from None
    except OfflineModeIsEnabled:
        raise DermlabError("the hub is switched off here (HF_HUB_OFFLINE is set); nothing was sent") from None
    except HfHubHTTPError as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        raise DermlabError(_said(status, repository, error)) from None
    except ValueError as error:  # the Hub's word on the front matter
        raise DermlabError(f"the hub refused the model card: {first_line(error)}") from None
    except Exception as error:
        # The client's transport (httpx, by whatever name it ships it) shares no base class with the standard library.
        if isinstance(error, OSError) or type(error).__module__.startswith(("httpx", "httpcore")):
            raise DermlabError(f"the hub at {api.endpoint} cannot be reached; nothing was sent") from None
        raise
    return str(made)


def check_name(repository: str) -> None:
    """Refuse what can be no repository's name, before anything is packed."""
    if re.fullmatch(r"[\w.-]+/[\w.-]+", repository) is None:
        raise InputError(f"{repository!r}: is no name of a repository; write OWNER/NAME")


def refused(refusals: Mapping[str, str]) -> str:
    """Say why a run may not go, and what would have to be waived."""
    told = "; ".join(refusals.values())
    return f"not pushed: {told}; if a person has cleared that: --waive {','.join(refusals)}"


def _said(status: int | None, repository: str, error: BaseException) -> str:
    if status == 401:
        return "the hub wants a token, or does not know this one (401): put one with write access into HF_TOKEN"
    if status == 403:
        return f"the token in HF_TOKEN may not write to {repository} (403): give it write access there"
    if status == 404:
        return f"the hub knows no {repository} (404): is its owner written as on the hub?"
    if status == 429:
        return "the hub says that too much was asked of it (429): wait some minutes"
    if status is not None and status >= 500:
        return f"the hub itself is out of order ({status}): try again later"
    return f"the hub refused ({first_line(error)})"
