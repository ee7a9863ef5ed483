"""Rules over cards: the seeds' verdicts follow, each with its chain of reasons, and no rule is idle."""

import pytest

from dermlab.core.errors import InputError
from dermlab.licensing import USES, VERDICTS, LicenceCard, triage
from dermlab.licensing.triage import RULES

V, C, U, B = VERDICTS


def card(id: str = "x", **fields) -> LicenceCard:
    given = {"id": id, "kind": "model", "name": id, "licence": "MIT", "trained_on": []}
    given["evidence"] = [{"quote": "a", "address": "b", "seen": "2026-01-01"}]
    given |= fields
    if given.get("unverified"):
        given["evidence"] = []
    return LicenceCard.model_validate(given)


def dataset(id: str, **fields) -> LicenceCard:
    return card(id, kind="dataset", trained_on=None, **fields)


WORLD = {
    one.id: one
    for one in (
        card("free"),
        card("noncommercial", licence="CC-BY-NC-4.0"),
        card("noderivatives", licence="CC-BY-ND-4.0"),
        card("sharealike", licence="CC-BY-SA-4.0"),
        card("unread", unverified=True),
        card("unread-noncommercial", licence="CC-BY-NC-4.0", unverified=True),
        card("own-terms", licence="House terms"),
        card("clinic-forbidden", clinical_use="no"),
        card("clinic-authorised", clinical_use="conditions", conditions={"clinical_use": "be authorised"}),
        card("clinic-unknown", clinical_use="unknown"),
        card("not-passed-on", redistribution="no"),
        card("gated", gating="accept", source="https://example.org/terms"),
        card("named", attribution="Somebody 2020"),
        card("out-of-scope", deployment="out_of_scope"),
        card("cpu-only", devices=["cpu"]),
        card("frozen-only", fine_tunable=False),
        card("unpublished-data", trained_on=None),
        card("on-nc-data", trained_on=["nc-data"]),
        card("on-nd-data", trained_on=["nd-data"]),
        card("on-nc-web", trained_on=["nc-web"]),
        card("on-unread-data", trained_on=["unread-data"]),
        card("on-lost-data", trained_on=["lost"]),
        card("on-free-data", trained_on=["free-data"]),
        card("on-nc-model", trained_on=["noncommercial"]),
        card("grandchild", trained_on=["on-nc-data"]),
        card("circle-a", trained_on=["circle-b"]),
        card("circle-b", trained_on=["circle-a", "nc-data"]),
        card("two-parents", trained_on=["free-data", "nc-data"]),
        dataset("free-data", licence="CC0-1.0"),
        dataset("by-data", licence="CC-BY-4.0", attribution="Them 2021"),
        dataset("nc-data", licence="CC-BY-NC-4.0"),
        dataset("nd-data", licence="CC-BY-ND-4.0"),
        dataset("nc-web", licence="Web terms", commercial_use="no", generic=True),
        dataset("unread-data", licence="CC-BY-4.0", unverified=True),
    )
}

# id: research, internal, commercial, commercial-medical
TABLE = {
    "free": (V, V, V, V),
    "noncommercial": (C, C, B, B),
    "noderivatives": (C, C, C, C),
    "sharealike": (V, V, C, C),
    "unread": (C, C, U, U),
    "unread-noncommercial": (C, C, B, B),
    "own-terms": (V, V, U, U),
    "clinic-forbidden": (V, V, V, B),
    "clinic-authorised": (V, V, V, C),
    "clinic-unknown": (V, V, V, U),
    "not-passed-on": (V, V, C, C),
    "gated": (C, C, C, C),
    "named": (C, C, C, C),
    "out-of-scope": (V, C, C, C),
    "cpu-only": (C, C, C, C),
    "frozen-only": (C, C, C, C),
    "unpublished-data": (V, V, U, U),
    "on-nc-data": (C, C, B, B),
    "on-nd-data": (C, C, B, B),
    "on-nc-web": (V, V, C, C),
    "on-unread-data": (C, C, U, U),
    "on-lost-data": (V, V, U, U),
    "on-free-data": (V, V, V, V),
    "on-nc-model": (C, C, B, B),
    "grandchild": (C, C, B, B),
    "circle-a": (C, C, B, B),
    "circle-b": (C, C, B, B),
    "two-parents": (C, C, B, B),
    "by-data": (C, C, C, C),
    "nd-data": (C, C, B, B),
    "nobody": (U, U, U, U),
}
CASES = [(name, use, verdict) for name, row in TABLE.items() for use, verdict in zip(USES, row, strict=True)]


@pytest.mark.parametrize(("name", "use", "verdict"), CASES)
def test_the_table(name, use, verdict):
    (found,) = triage([name], use, extra=WORLD)
    assert found.verdict == verdict
    assert (found.verdict == V) == (not found.reasons)


@pytest.mark.parametrize("rule", RULES)
def test_without_any_one_rule_some_case_of_the_table_fails(rule, monkeypatch):
    monkeypatch.delitem(RULES, rule)
    assert any(triage([name], use, extra=WORLD)[0].verdict != verdict for name, use, verdict in CASES)


def test_the_reasons_lead_to_the_card_that_gave_them():
    (found,) = triage(["grandchild"], "commercial", extra=WORLD)
    assert found.reasons[0].chain == ("grandchild", "on-nc-data", "nc-data")
    assert "no commercial use (CC-BY-NC-4.0)" in found.reasons[0].text


def test_strictness_makes_a_block_of_pretraining_on_the_web():
    assert triage(["on-nc-web"], "commercial", extra=WORLD, strict=True)[0].verdict == B


def test_conditions_say_what_to_do():
    (found,) = triage(["gated"], "research", extra=WORLD)
    assert found.conditions == ("accept its terms at https://example.org/terms",)


def test_a_use_that_nobody_knows_is_refused():
    with pytest.raises(InputError, match="research, internal, commercial, commercial-medical"):
        triage(["free"], "fun")


SEEDS = {
    "medsiglip": C,
    "derm-foundation": C,
    "panderm": B,
    "monet": B,
    "ham10000-classifier": B,
    "dermnet-classifier": B,
    "isic-cc0-ccby": C,
    "torchvision-imagenet": C,
    "openai-clip": C,
    "convnextv2-fcmae": B,
    "ham10000": B,
    "dermnet": B,
    "fitzpatrick17k": B,
    "pad-ufes-20": C,
}


@pytest.mark.parametrize(("name", "verdict"), SEEDS.items())
def test_the_seeds_candidates_get_the_seeds_verdicts(name, verdict):
    assert triage([name], "commercial-medical")[0].verdict == verdict


def test_the_isic_subset_comes_with_its_domain_mismatch():
    assert "domain mismatch" in triage(["isic-cc0-ccby"], "commercial")[0].cautions[0]


def test_an_encoders_name_finds_its_card():
    (found,) = triage(["timm:convnextv2_tiny.fcmae_ft_in22k_in1k"], "commercial")
    assert (found.id, found.verdict) == ("convnextv2-fcmae", B)
