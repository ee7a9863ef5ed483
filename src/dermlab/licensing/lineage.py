"""Which licence cards stand behind an artefact: read from the files it is made of."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dermlab.core.config import read_yaml
from dermlab.core.errors import InputError
from dermlab.core.files import read_json
from dermlab.licensing.card import QUOTE_WORDS, LicenceCard, cards, read_card

# Keys under which dermlab's artefacts keep card ids.
CARD_KEY, LINEAGE_KEY = "licence_card", "lineage"
RUN_FILES = ("*.parquet.json", "lineage.json", "encoder/card.yaml")


def find_cards(path: str | Path) -> tuple[list[str], dict[str, LicenceCard]]:
    """Return the card ids behind a data set, an encoder folder, a run, a bake-off or a predictions table.

    Args:
        path: the artefact's folder or file.

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
            card = _card_of(file)
            own.setdefault(card.id, card)
            ids.append(card.id)
        else:
            ids += _ids(read_json(file))
    if not ids:
        raise InputError(
            f"{path}: says of no licence card what it was made from (no card.yaml, no lineage in a sidecar)"
        )
    return list(dict.fromkeys(ids)), own


def _files(path: Path) -> Iterator[Path]:
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
    if "kind" in data:
        return read_card(file)
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
            "licence": str(licence or "none stated"),
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
    """Collect every ``licence_card`` and every name in a ``lineage`` list, wherever they stand."""
    found: list[str] = []
    if isinstance(value, dict):
        for key, item in value.items():
            if key == CARD_KEY and isinstance(item, str):
                found.append(item)
            elif key == LINEAGE_KEY and isinstance(item, list):
                found += [name for name in item if isinstance(name, str)]
            else:
                found += _ids(item)
    elif isinstance(value, list):
        for item in value:
            found += _ids(item)
    return found
