"""A candidate's terms: its licence, its data's, and whether it has seen the photos that it is tested on."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from dermlab.bench.outcome import Outcome
from dermlab.bench.terms import contamination, data_terms, encoder_terms
from dermlab.licensing import LicenceCard, write_card


def identity(card: str | None, *lineage: str) -> SimpleNamespace:
    return SimpleNamespace(name="ours", licence_card=card, lineage=lineage)


def test_an_encoder_that_knows_the_test_set_is_marked_and_cannot_win() -> None:
    told = contamination(identity("medsiglip"), "pad-ufes-20")
    assert told == "contaminated: ours was pretrained on PAD-UFES-20"
    outcome = Outcome("medsiglip-linear", "candidate", "medsiglip", "linear", run="runs/medsiglip-linear")
    outcome.val_score = 0.9
    assert outcome.may_win
    outcome.flags.append(told)
    assert not outcome.may_win


def test_an_encoder_pretrained_from_one_that_knows_it_knows_it_too(tmp_path: Path) -> None:
    own = LicenceCard.model_validate(
        {
            "id": "mine",
            "kind": "model",
            "name": "mine",
            "licence": "MIT",
            "unverified": True,
            "trained_on": ["medsiglip"],
        }
    )
    card = write_card(tmp_path / "card.yaml", own)
    told = contamination(identity(str(card)), "pad-ufes-20")
    assert told is not None
    assert "← medsiglip ← pad-ufes-20" in told
    assert contamination(identity(None, "medsiglip"), "pad-ufes-20") is not None


def test_nothing_is_said_where_no_card_says_it() -> None:
    assert contamination(identity("medsiglip"), "scin") is None
    assert contamination(identity("medsiglip"), None) is None
    assert contamination(None, "pad-ufes-20") is None


def test_data_without_a_licence_are_unknown_for_every_use(tmp_path: Path) -> None:
    (tmp_path / "card.yaml").write_text("name: our clinic\n")
    for use in ("research", "internal", "commercial", "commercial-medical"):
        assert data_terms(tmp_path, use).verdict == "unknown"
    assert encoder_terms("histogram", None, "commercial").verdict == "viable"
    assert encoder_terms("monet", None, "commercial").verdict == "blocked"
