"""May a candidate ship: the licence verdicts on its encoder and on the data it is fitted on, in one place."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dermlab.core.errors import InputError
from dermlab.licensing import Verdict, card_for, contamination_warning, find_cards, read_card, triage
from dermlab.licensing.triage import CONDITIONS, UNKNOWN, VIABLE, worst

if TYPE_CHECKING:
    from dermlab.models.encoders import EncoderIdentity


@dataclass(frozen=True)
class Terms:
    """What the rules say of an encoder or a data set for the intended use."""

    verdict: str = VIABLE
    conditions: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()


def encoder_terms(name: str | None, identity: EncoderIdentity | None, use: str) -> Terms:
    """Return the verdict on an encoder.

    Args:
        name: the encoder's name; None and ``histogram`` are no weights of anybody, nor are random ones.
        identity: what is known of its weights; None where they are not on this machine.
        use: the intended use.
    """
    if name is None or name.endswith("+random") or name == "histogram":
        return Terms()
    card_id = identity.licence_card if identity is not None else _card_id(name)
    if card_id is None:
        return Terms(UNKNOWN, (), (f"{name}: there is no licence card for these weights, so nothing is known",))
    extra = {card_id: read_card(card_id)} if Path(card_id).is_file() else {}
    return _terms(triage([card_id], use, extra=extra))


def data_terms(folder: str | Path, use: str) -> Terms:
    """Return the verdict on a data set folder; a data set that states no licence is ``unknown``."""
    ids, own = find_cards(folder)
    return _terms(triage(ids, use, extra=own))


def contamination(identity: EncoderIdentity | None, data_card: str | None) -> str | None:
    """Return the sentence that an encoder knows this very data set, or None where nothing says so.

    Args:
        identity: the encoder.
        data_card: licence card id of the data set.
    """
    if identity is None:
        return None
    return contamination_warning(identity.name, [identity.licence_card, *identity.lineage], data_card)


def _card_id(name: str) -> str | None:
    """Return the card of an encoder whose weights are not here, by its name alone."""
    from dermlab.models.names import ALIASES

    long_name = ALIASES[name].target if name in ALIASES else name
    try:
        found = card_for(long_name)
    except InputError:
        return None
    return found.id if found is not None else None


def _terms(verdicts: Iterable[Verdict]) -> Terms:
    verdicts = list(verdicts)
    return Terms(
        worst(verdict.verdict for verdict in verdicts),
        tuple(dict.fromkeys(line for verdict in verdicts for line in verdict.conditions)),
        tuple(
            dict.fromkeys(
                f"{' ← '.join(reason.chain)}: {reason.text}"
                for verdict in verdicts
                for reason in verdict.reasons
                if reason.verdict != CONDITIONS  # those are told as conditions
            )
        ),
    )
