"""What a person wrote into a card outlives the next import: a merge of three cards, field by field."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from dermlab.core.config import validate
from dermlab.data.card import Card

_BY_COLUMN = ("targets", "metadata")
_GROWING = ("classes", "values")  # lists to which new data may add


def merge_cards(
    imported: Card, edited: Card, earlier: Card | None, *, columns: Collection[str], said: Collection[str] = ()
) -> tuple[Card, list[str]]:
    """Return the card of a repeated import, and the fields that stand as a person wrote them.

    What differs from what the earlier import wrote is a person's and stays; the rest is the new import's. Targets and
    questionnaire columns are merged one by one: new ones come in, what a person took out stays out, and classes and
    values that are new follow a person's.

    Args:
        imported: the card that this import makes.
        edited: the card as it stands in the folder.
        earlier: the card as the earlier import wrote it; None where nobody remembers it: then all of it is a person's.
        columns: the new manifest's columns; entries of others go.
        said: fields that were given with this very import, which win.
    """
    ours, theirs = imported.model_dump(mode="json"), edited.model_dump(mode="json")
    base = {} if earlier is None else earlier.model_dump(mode="json")
    kept: list[str] = []
    merged: dict[str, Any] = {}
    for name in ours:
        if name in said:
            merged[name] = ours[name]
        elif name in _BY_COLUMN:
            merged[name] = _entries(ours[name], theirs[name], base.get(name, []), columns, name, kept)
        else:
            merged[name] = _field(ours, theirs, base, name, name, kept)
    return validate(Card, merged, source="card.yaml"), kept


def _entries(
    ours: list[Any], theirs: list[Any], base: list[Any], columns: Collection[str], place: str, kept: list[str]
) -> list[Any]:
    new, old = ({entry["column"]: entry for entry in entries} for entries in (ours, base))
    result = []
    for entry in theirs:
        column = entry["column"]
        if column not in columns:
            continue
        at = f"{place}.{column}"
        if column in new:
            before = old.get(column, {})
            result.append({name: _field(new[column], entry, before, name, f"{at}.{name}", kept) for name in entry})
        elif column not in old:  # a person made a column of the manifest one of the card
            result.append(entry)
            kept.append(at)
    present = {entry["column"] for entry in theirs}
    for column, entry in new.items():
        if column in present:
            continue
        if column in old:
            kept.append(f"{place} without {column}")
        else:
            result.append(entry)
    return result


def _field(
    ours: dict[str, Any], theirs: dict[str, Any], base: dict[str, Any], name: str, at: str, kept: list[str]
) -> Any:
    mine, new = theirs[name], ours[name]
    if mine == new or (name in base and mine == base[name]):
        return new
    if name in _GROWING and mine and new:
        grown = [*mine, *(value for value in new if value not in mine)]
        if name in base or grown != mine:
            kept.append(at)
        return grown
    kept.append(at)
    return mine
