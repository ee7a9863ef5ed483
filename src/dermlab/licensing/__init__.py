"""What may be done with a model or a data set: one card each, and rules that turn cards into a verdict.

In: the names of models, data sets and artefacts, and what they are meant for. Out: viable, viable with conditions,
blocked or unknown, with the chain of reasons. Engineering triage, not legal advice.
"""

from __future__ import annotations

from dermlab.licensing.card import LicenceCard, card, card_for, cards, known_cards, read_card, write_card
from dermlab.licensing.lineage import attributions, contaminated, contamination, contamination_warning, find_cards
from dermlab.licensing.triage import USES, VERDICTS, Reason, Verdict, triage

__all__ = [
    "USES",
    "VERDICTS",
    "LicenceCard",
    "Reason",
    "Verdict",
    "attributions",
    "card",
    "card_for",
    "cards",
    "contaminated",
    "contamination",
    "contamination_warning",
    "find_cards",
    "known_cards",
    "read_card",
    "triage",
    "write_card",
]
