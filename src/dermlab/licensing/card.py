"""Licence cards: what a model or a data set allows, in its own words, with the place where the words stand."""

from __future__ import annotations

import datetime
import fnmatch
import functools
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from dermlab.core.config import Config, read_yaml, validate, write_yaml
from dermlab.core.errors import InputError
from dermlab.core.files import write_text
from dermlab.licensing.terms import Answer, named_licences, strictest

QUOTE_WORDS = 25
NONE_STATED = "none stated"
QUESTIONS = ("commercial_use", "clinical_use", "derivatives", "redistribution")


class Evidence(Config):
    """A sentence that somebody really read, where, and when."""

    quote: str = Field(description="Verbatim, at most 25 words.")
    address: str = Field(description="The page or file it stands in.")
    seen: datetime.date = Field(description="The day it was read.")

    @field_validator("quote")
    @classmethod
    def _is_short(cls, quote: str) -> str:
        if len(quote.split()) > QUOTE_WORDS:
            raise ValueError(f"a quote has at most {QUOTE_WORDS} words")
        return quote


class LicenceCard(Config):
    """What is known of one model or data set. A standard licence's terms need not be repeated; own fields win."""

    id: str = Field(description="The short name by which other cards and artefacts refer to it.")
    kind: Literal["model", "dataset"] = Field(description="Whether it is a model's weights or a data set.")
    name: str = Field(description="What people call it.")
    version: str = Field("", description="The release that the card speaks of; empty where it holds for all.")
    publisher: str = Field("", description="Who publishes it.")
    source: str = Field("", description="Its home page.")
    licence: str = Field(description="An SPDX id or the terms' own name; 'none stated' where there is none.")
    other_licences: tuple[str, ...] = Field(
        (), description="Further licences stated for the same thing elsewhere; the strictest answer counts."
    )
    commercial_use: Answer = Field("unknown", description="Whether it may serve a commercial purpose.")
    clinical_use: Answer = Field("unknown", description="Whether it may serve in the care of patients.")
    derivatives: Answer = Field("unknown", description="Whether it may be changed or trained further.")
    redistribution: Answer = Field("unknown", description="Whether it may be passed on.")
    conditions: dict[str, str] = Field({}, description="For each question answered 'conditions': what must be done.")
    attribution: str = Field("", description="Whom to name, where naming is asked for.")
    gating: Literal["none", "accept", "request"] = Field(
        "none", description="Whether terms must be accepted to get it."
    )
    deployment: Literal["unstated", "not_clinical", "out_of_scope"] = Field(
        "unstated", description="Whether its own page calls clinical, or any deployed, use out of scope."
    )
    evidence: tuple[Evidence, ...] = Field((), description="Sentences read at their source.")
    unverified: bool = Field(False, description="Nobody has read the terms at their source yet; counts as caution.")
    covers: tuple[str, ...] = Field((), description="Encoder names (with * for any) whose weights this card is for.")
    trained_on: tuple[str, ...] | None = Field(
        None, description="Cards of the data and weights it was made from; null where that is not published."
    )
    contamination: dict[str, str] = Field(
        {}, description="Data set cards it has otherwise seen or shares photos with, and what is known of that."
    )
    generic: bool = Field(False, description="A data set of the web at large or ImageNet, not of the domain.")
    modality: str = Field("", description="clinical, dermoscopy, histopathology, … where it is of skin or tissue.")
    framework: str = Field("", description="torch, transformers, open_clip, tensorflow.")
    n_parameters: int | None = Field(None, description="Of the image encoder; of a family, of one usual member.")
    size_px: int | None = Field(None, description="Input size.")
    fit: str = Field("", description="How its publisher fits a photo into it: crop, squash, pad.")
    devices: tuple[str, ...] = Field(("cpu", "cuda", "mps"), description="Where its published artefact runs.")
    fine_tunable: bool | None = Field(None, description="Whether its published artefact can be trained further.")
    cautions: tuple[str, ...] = Field((), description="What to know beside the licence; changes no verdict.")
    notes: str = Field("", description="Anything else.")

    @model_validator(mode="before")
    @classmethod
    def _fill_standard_terms(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and isinstance(data.get("licence"), str):
            terms = strictest(_stated(data["licence"], data.get("other_licences") or ()))
            if terms is not None:
                own = {key: value for key, value in data.items() if key != "conditions"}
                return {**terms, **own, "conditions": {**terms["conditions"], **dict(data.get("conditions") or {})}}
        return data

    @model_validator(mode="after")
    def _is_consistent(self) -> LicenceCard:
        if not self.evidence and not self.unverified:
            raise ValueError("without evidence a card must say unverified: true")
        for question in self.conditions:
            if question not in QUESTIONS:
                raise ValueError(f"conditions.{question}: is not one of {', '.join(QUESTIONS)}")
        silent = [q for q in QUESTIONS if getattr(self, q) == "conditions" and q not in self.conditions]
        if silent:
            raise ValueError(f"conditions.{silent[0]}: must say what has to be done")
        return self

    @property
    def licences(self) -> tuple[str, ...]:
        """All licences that are stated for it."""
        return _stated(self.licence, self.other_licences)

    @property
    def states_a_licence(self) -> bool:
        """Whether anybody says under what it may be used."""
        return self.licence != NONE_STATED


def _stated(licence: str, others: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*named_licences(licence), *others)))


@functools.cache
def cards() -> dict[str, LicenceCard]:
    """Return the built-in cards by id."""
    found: dict[str, LicenceCard] = {}
    for entry in sorted(resources.files("dermlab.licensing").joinpath("cards").iterdir(), key=lambda item: item.name):
        if entry.name.endswith(".yaml"):
            with resources.as_file(entry) as path:
                one = read_card(path)
            if f"{one.id}.yaml" != entry.name:
                raise InputError(f"{entry.name}: holds the card {one.id!r}; file and id must be called the same")
            found[one.id] = one
    return found


def known_cards(own: Mapping[str, LicenceCard] | None = None) -> dict[str, LicenceCard]:
    """Return the built-in cards by id, and those that an artefact brought along in place of them where ids agree."""
    return {**cards(), **(own or {})}


def read_card(path: str | Path) -> LicenceCard:
    """Read a card file. Raises :class:`InputError` naming the file and the field."""
    return validate(LicenceCard, read_yaml(path), source=str(path))


def write_card(path: str | Path, card: LicenceCard) -> Path:
    """Write a card file."""
    return write_text(path, write_yaml(card.model_dump(mode="json", exclude_defaults=True)))


def card(name: str) -> LicenceCard:
    """Return the card of an id, or of a card file's path.

    Raises:
        InputError: there is no such card.
    """
    if name in cards():
        return cards()[name]
    if name.endswith((".yaml", ".yml")) and Path(name).is_file():
        return read_card(name)
    raise InputError(f"{name}: there is no licence card of this name; dermlab triage lists them")


def card_for(encoder: str) -> LicenceCard | None:
    """Return the card that covers an encoder's long name (``timm:resnet18.a1_in1k``), the closest pattern first."""
    matching = [
        (len(pattern.replace("*", "")), one)
        for one in cards().values()
        for pattern in one.covers
        if fnmatch.fnmatchcase(encoder, pattern)
    ]
    return max(matching, key=lambda pair: pair[0])[1] if matching else None
