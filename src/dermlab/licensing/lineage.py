"""Which licence cards stand behind an artefact, read from the files it is made of; and who has seen which data."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from dermlab.core.config import read_yaml, validate
from dermlab.core.errors import InputError
from dermlab.core.files import read_json
from dermlab.licensing.card import NONE_STATED, QUOTE_WORDS, LicenceCard, cards, known_cards, read_card

# Keys under which dermlab's artefacts keep card ids, what the data set's own card said, and cards of weights made here.
CARD_KEY, LINEAGE_KEYS, DATA_KEY, OWN_KEY = "licence_card", ("lineage", "cards"), "data_card", "own_cards"
RUN_FILES = (
    *("*.parquet.json", "*.csv.json", "encoder/card.yaml", "runs/*/*.parquet.json", "provenance.json"),
    *("robustness.json", "unseen.json", "label_efficiency.json"),
)
# What stands in a run or bake-off folder without saying itself what it was made from: its folder does.
PAGES = (".html", ".md", ".csv", ".svg", ".png")
RECORDS = ("bakeoff.json", "comparison.json", "metrics.json", "config.yaml", "inputs.json", "done.json")


def find_cards(path: str | Path) -> tuple[list[str], dict[str, LicenceCard]]:
    """Return the card ids behind a data set, an encoder folder, a run, a bake-off, a report or a predictions table.

    Args:
        path: the artefact's folder or file; a report or a checkpoint stands for the folder it lies in.

    Returns:
        Ids in the order found, and the cards that the artefact itself brings, by id.

    Raises:
        InputError: nothing at ``path`` says what it was made from.
    """
    path = Path(path)
    ids: list[str] = []
    own: dict[str, LicenceCard] = {}
    for file in _files(path):
        if file.suffix in (".yaml", ".yml"):
            brought = [_card_of(file)]
        else:
            record = read_json(file)
            ids += _ids(record)
            brought = [_card_of_data(data, file) for data in _told(record, DATA_KEY)]
            brought += [validate(LicenceCard, one, source=str(file)) for one in _told(record, OWN_KEY)]
        own |= {card.id: card for card in brought if card.id not in own}
        ids += [card.id for card in brought]
    if not ids:
        raise InputError(
            f"{path}: says of no licence card what it was made from (no card.yaml, no lineage in a sidecar)"
        )
    return list(dict.fromkeys(ids)), own


def contaminated(ids: Iterable[str], extra: Mapping[str, LicenceCard] | None = None) -> dict[str, str]:
    """Return, by id of its card, what each model knows of a data set that stands in the same artefact.

    Args:
        ids: all cards behind an artefact, as :func:`find_cards` returns them.
        extra: further cards by the name they go by.
    """
    known = known_cards(extra)
    present = [known[name] for name in ids if name in known]
    found: dict[str, str] = {}
    for model in (card for card in present if card.kind == "model"):
        for data in (card for card in present if card.kind == "dataset"):
            told = contamination([model.id], data.id, extra)
            if told is not None:
                found[model.id] = f"contaminated: it {told}; what is measured on that says nothing of new patients"
    return found


def attributions(ids: Iterable[str], extra: Mapping[str, LicenceCard] | None = None) -> list[tuple[str, str]]:
    """Return whom to name: (what is theirs, how to name them), for some cards and all that stands behind them."""
    known = known_cards(extra)
    named = (known[name] for name in _ancestors(ids, known) if name in known)
    return [(card.name, card.attribution) for card in named if card.attribution]


def contamination(ids: Iterable[str], data: str, extra: Mapping[str, LicenceCard] | None = None) -> str | None:
    """Return how weights came to know a data set that they are to be tested on.

    A data set counts as known where it, or what it was made from, stands in what the weights were made from: DermaMNIST
    is HAM10000 in small, and ISIC 2019 holds it.

    Args:
        ids: licence cards of the weights.
        data: licence card of the data set.
        extra: further cards by the name they go by.

    Returns:
        The end of a sentence that starts with the weights' name, or None where no card says so.
    """
    known = known_cards(extra)
    behind, tested = _ancestors(ids, known), _ancestors([data], known)
    name = known[data].name if data in known else data
    for one in tested:
        if one in behind and not (one in known and known[one].generic):
            chain = f" ({' ← '.join(behind[one])})" if len(behind[one]) > 2 else ""
            if one == data:
                return f"was pretrained on {name}{chain}"
            return f"was pretrained on {known[one].name if one in known else one}, which {name} is made from{chain}"
    for model in behind:
        told = known[model].contamination if model in known else {}
        for one in tested:
            if one in told:
                return f"knows {name} in part: {told[one]}"
    return None


def contamination_warning(encoder: str, weights: Iterable[str | None], data: str | None) -> str | None:
    """Return the sentence that an encoder knows the data set that it is tried on; None where no card says so.

    Args:
        encoder: its name, for the sentence.
        weights: licence cards of its weights: ids, and ``card.yaml`` files of weights made here.
        data: licence card of the data set; None: it has none.
    """
    ids = [one for one in weights if one]
    if data is None or not ids:
        return None
    found = contamination(ids, data, {one: read_card(one) for one in ids if Path(one).is_file()})
    return None if found is None else f"contaminated: {encoder} {found}"


def _ancestors(ids: Iterable[str], known: Mapping[str, LicenceCard]) -> dict[str, tuple[str, ...]]:
    """Return all cards that stand behind some cards, themselves included, each with the shortest way to it."""
    found: dict[str, tuple[str, ...]] = {}
    queue: deque[tuple[str, tuple[str, ...]]] = deque((name, (name,)) for name in ids)
    while queue:
        name, chain = queue.popleft()
        if name in found:
            continue
        found[name] = chain
        if name in known:
            queue.extend((further, (*chain, further)) for further in known[name].trained_on or ())
    return found


def _files(path: Path) -> Iterator[Path]:
    if path.is_file() and (path.suffix in PAGES or path.name in RECORDS):
        yield from _files(path.parent)
        return
    if "checkpoints" in path.parts[-3:]:  # RUN/checkpoints/repeat0-fold0/…: the run says it
        yield from _files(next(parent for parent in (path, *path.parents) if parent.name == "checkpoints").parent)
        return
    if path.is_file():
        described = path if path.suffix in (".yaml", ".yml", ".json") else path.with_name(path.name + ".json")
        if described.is_file():
            yield described
        elif path.name == "model.safetensors":
            yield from _files(path.parent)
        return
    if (path / "card.yaml").is_file():
        yield path / "card.yaml"
        return
    folders = [path, *sorted(child for child in path.iterdir() if child.is_dir())] if path.is_dir() else []
    for folder in folders:
        for pattern in RUN_FILES:
            yield from sorted(folder.glob(pattern))


def _card_of(file: Path) -> LicenceCard:
    """Return the licence card in a card.yaml: itself, or what a data set's own card says of its licence."""
    data = read_yaml(file)
    return read_card(file) if "kind" in data else _card_of_data(data, file)


def _card_of_data(data: dict[str, Any], file: Path) -> LicenceCard:
    """Return the licence card that a data set's own card, told in ``file``, comes to."""
    named = data.get(CARD_KEY)
    if named and named in cards():
        return cards()[named]
    licence = data.get("licence")
    name = str(data.get("name") or file.parent.name)
    return LicenceCard.model_validate(
        {
            "id": name,
            "kind": "dataset",
            "name": name,
            "licence": str(licence or NONE_STATED),
            "source": str(data.get("source") or ""),
            "attribution": str(data.get("citation") or "") if licence and "BY" in str(licence).upper() else "",
            # Whoever made the data set folder stated the licence: it counts as said, an absent one as unknown.
            "evidence": [
                {
                    "quote": " ".join(f"licence: {licence}".split()[:QUOTE_WORDS]),
                    "address": str(file),
                    "seen": _day(file),
                }
            ]
            if licence
            else [],
            "unverified": not licence,
        }
    )


def _day(file: Path) -> str:
    import datetime

    return datetime.date.fromtimestamp(file.stat().st_mtime).isoformat()


def _ids(value: Any) -> list[str]:
    """Collect every ``licence_card`` and every name in a list of ``lineage`` or ``cards``, wherever they stand."""
    found: list[str] = []
    if isinstance(value, dict):
        for key, item in value.items():
            if key == CARD_KEY and isinstance(item, str):
                found.append(item)
            elif key in (DATA_KEY, OWN_KEY):  # see _told
                continue
            elif key in LINEAGE_KEYS and isinstance(item, list):
                found += [name for name in item if isinstance(name, str)]
            else:
                found += _ids(item)
    elif isinstance(value, list):
        for item in value:
            found += _ids(item)
    return found


def _told(value: Any, wanted: str) -> Iterator[dict[str, Any]]:
    """Yield what stands under a key, one description or a list of them, wherever it stands."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key == wanted:
                yield from (one for one in (item if isinstance(item, list) else [item]) if isinstance(one, dict))
            else:
                yield from _told(item, wanted)
    elif isinstance(value, list):
        for item in value:
            yield from _told(item, wanted)
