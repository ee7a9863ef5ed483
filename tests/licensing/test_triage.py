"""Rules over cards: the seeds' verdicts follow, each with its chain of reasons, and no rule is idle."""

import pytest

from dermlab.core.errors import InputError
from dermlab.licensing import USES, VERDICTS, LicenceCard, cards, triage
from dermlab.licensing.triage import INHERITED, RULES

V, C, U, B = VERDICTS


def card(id: str = "x", **fields) -> LicenceCard:
    given = {"id": id, "kind": "model", "name": id, "licence": "MIT", "trained_on": []}
    given["evidence"] = [{"quote": "a", "address": "b", "seen": "2026-01-01"}]
    given |= fields
    if given.get("unverified"):
        given["evidence"] = []
    return LicenceCard.model_validate(given)


def dataset(id: str, **fields) -> LicenceCard:
    return card(id, **{"kind": "dataset", "trained_on": None, **fields})


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
        card("no-licence", licence="none stated", unverified=True),
        card("two-licences", licence="MIT", other_licences=["CC-BY-NC-4.0"]),
        card("two-in-one-line", licence="Apache-2.0 and CC BY-NC-ND 4.0"),
        card("two-alike", licence="MIT", other_licences=["Apache-2.0"]),
        card("two-one-strange", licence="MIT", other_licences=["House terms"]),
        card("clinic-forbidden", clinical_use="no"),
        card("clinic-authorised", clinical_use="conditions", conditions={"clinical_use": "be authorised"}),
        card("clinic-unknown", clinical_use="unknown"),
        card("not-passed-on", redistribution="no"),
        card("gated", gating="accept", source="https://example.org/terms"),
        card("requested", gating="request", source="https://example.org/form"),
        card("named", attribution="Somebody 2020"),
        card("out-of-scope", deployment="out_of_scope"),
        card("not-clinical", deployment="not_clinical"),
        card("cpu-only", devices=["cpu"]),
        card("frozen-only", fine_tunable=False),
        card("unpublished-data", trained_on=None),
        card("on-nc-data", trained_on=["nc-data"]),
        card("on-nd-data", trained_on=["nd-data"]),
        card("on-nd-model", trained_on=["noderivatives"]),
        card("on-sa-data", trained_on=["sa-data"]),
        card("on-by-data", trained_on=["by-data"]),
        card("on-nc-web", trained_on=["nc-web"]),
        card("on-by-web", trained_on=["by-web"]),
        card("on-unread-data", trained_on=["unread-data"]),
        card("on-clinic-forbidden", trained_on=["clinic-forbidden"]),
        card("on-out-of-scope", trained_on=["out-of-scope"]),
        card("on-unpublished", trained_on=["unpublished-data"]),
        card("on-gated-data", trained_on=["gated"]),
        card("on-lost-data", trained_on=["lost"]),
        card("on-free-data", trained_on=["free-data"]),
        card("on-nc-model", trained_on=["noncommercial"]),
        card("on-two-licences", trained_on=["two-licences"]),
        card("grandchild", trained_on=["on-nc-data"]),
        card("itself", trained_on=["itself"]),
        card("circle-a", trained_on=["circle-b"]),
        card("circle-b", trained_on=["circle-a", "nc-data"]),
        card("two-parents", trained_on=["free-data", "nc-data"]),
        dataset("free-data", licence="CC0-1.0"),
        dataset("by-data", licence="CC-BY-4.0", attribution="Them 2021"),
        dataset("sa-data", licence="CC-BY-SA-4.0"),
        dataset("nc-data", licence="CC-BY-NC-4.0"),
        dataset("nd-data", licence="CC-BY-ND-4.0"),
        dataset("nc-web", licence="Web terms", commercial_use="no", generic=True),
        dataset("by-web", licence="CC-BY-4.0", attribution="the web", generic=True),
        dataset("unread-data", licence="CC-BY-4.0", unverified=True),
        dataset("of-nc-data", licence="CC-BY-4.0", trained_on=["nc-data"]),
        dataset("our-photos", licence="none stated", unverified=True),
    )
}

# id: verdicts for research, internal, commercial, commercial-medical; and the rule that decides the gravest of them
TABLE = {
    "free": (V, V, V, V, None),
    "noncommercial": (C, C, B, B, "commercial_use"),
    "noderivatives": (C, C, C, C, "derivatives"),
    "sharealike": (V, V, C, C, "derivatives"),
    "unread": (C, C, U, U, "commercial_use"),
    "unread-noncommercial": (C, C, B, B, "commercial_use"),
    "own-terms": (V, V, U, U, "commercial_use"),
    "no-licence": (U, U, U, U, "no_licence"),
    "two-licences": (C, C, B, B, "commercial_use"),
    "two-in-one-line": (C, C, B, B, "commercial_use"),
    "two-alike": (V, V, V, V, None),
    "two-one-strange": (C, C, U, U, "commercial_use"),
    "clinic-forbidden": (V, V, V, B, "clinical_use"),
    "clinic-authorised": (V, V, V, C, "clinical_use"),
    "clinic-unknown": (V, V, V, U, "clinical_use"),
    "not-passed-on": (V, V, C, C, "redistribution"),
    "gated": (C, C, C, C, "gating"),
    "requested": (C, C, C, C, "gating"),
    "named": (C, C, C, C, "attribution"),
    "out-of-scope": (V, C, C, C, "stated_use"),
    "not-clinical": (V, V, V, C, "stated_use"),
    "cpu-only": (C, C, C, C, "hardware"),
    "frozen-only": (C, C, C, C, "frozen"),
    "unpublished-data": (V, V, U, U, "unpublished"),
    "on-nc-data": (C, C, B, B, "trained_on.commercial_use"),
    "on-nd-data": (C, C, B, B, "trained_on.derivatives"),
    "on-nd-model": (C, C, B, B, "trained_on.derivatives"),
    "on-sa-data": (V, V, C, C, "trained_on.derivatives"),
    "on-by-data": (C, C, C, C, "trained_on.attribution"),
    "on-nc-web": (V, V, C, C, "trained_on.commercial_use"),
    "on-by-web": (V, V, C, C, "trained_on.attribution"),
    "on-unread-data": (C, C, U, U, "trained_on.commercial_use"),
    "on-clinic-forbidden": (V, V, V, B, "trained_on.clinical_use"),
    "on-out-of-scope": (V, C, C, C, "trained_on.stated_use"),
    "on-unpublished": (V, V, U, U, "trained_on.unpublished"),
    "on-gated-data": (V, V, V, V, None),  # how it was to be had is its maker's affair
    "on-lost-data": (V, V, U, U, "trained_on"),
    "on-free-data": (V, V, V, V, None),
    "on-nc-model": (C, C, B, B, "trained_on.commercial_use"),
    "on-two-licences": (C, C, B, B, "trained_on.commercial_use"),
    "grandchild": (C, C, B, B, "trained_on.commercial_use"),
    "itself": (V, V, V, V, None),
    "circle-a": (C, C, B, B, "trained_on.commercial_use"),
    "circle-b": (C, C, B, B, "trained_on.commercial_use"),
    "two-parents": (C, C, B, B, "trained_on.commercial_use"),
    "by-data": (C, C, C, C, "attribution"),
    "nd-data": (C, C, B, B, "derivatives"),
    "of-nc-data": (C, C, B, B, "trained_on.commercial_use"),
    "our-photos": (U, U, U, U, "no_licence"),
    "nobody": (U, U, U, U, "card"),
}
CASES = [
    (name, use, verdict, row[-1] if verdict == max(row[:-1], key=VERDICTS.index) else None)
    for name, row in TABLE.items()
    for use, verdict in zip(USES, row[:-1], strict=True)
]


def told(name: str, use: str) -> tuple[str, str | None]:
    """Return the verdict, and the rule behind the gravest reason."""
    (found,) = triage([name], use, extra=WORLD)
    return found.verdict, found.reasons[0].rule if found.reasons else None


def deviates(case) -> bool:
    name, use, verdict, rule = case
    found = told(name, use)
    return found[0] != verdict or (rule is not None and found[1] != rule)


@pytest.mark.parametrize(("name", "use", "verdict", "rule"), CASES)
def test_the_table(name, use, verdict, rule):
    assert told(name, use)[0] == verdict
    if rule is not None:
        assert told(name, use)[1] == rule
    (found,) = triage([name], use, extra=WORLD)
    assert (found.verdict == V) == (not found.reasons)
    assert all(reason.text for reason in found.reasons)


def test_the_table_is_long_enough_to_mean_something():
    assert len([case for case in CASES if case[-1] is not None]) >= 60


@pytest.mark.parametrize("rule", RULES)
def test_without_any_one_rule_some_case_of_the_table_fails(rule, monkeypatch):
    monkeypatch.delitem(RULES, rule)
    assert any(map(deviates, CASES))


@pytest.mark.parametrize("rule", INHERITED)
def test_without_any_one_inherited_rule_some_case_of_the_table_fails(rule, monkeypatch):
    import sys

    monkeypatch.setattr(
        sys.modules["dermlab.licensing.triage"], "INHERITED", tuple(one for one in INHERITED if one != rule)
    )
    assert any(map(deviates, CASES))


def test_the_reasons_lead_to_the_card_that_gave_them():
    (found,) = triage(["grandchild"], "commercial", extra=WORLD)
    assert found.reasons[0].chain == ("grandchild", "on-nc-data", "nc-data")
    assert "no commercial use (CC-BY-NC-4.0)" in found.reasons[0].text


def test_a_source_that_is_reached_twice_is_told_once_by_the_shorter_way():
    world = WORLD | {"both": card("both", trained_on=["on-nc-data", "nc-data"])}
    (found,) = triage(["both"], "commercial", extra=world)
    assert [reason.chain for reason in found.reasons if reason.verdict == B] == [("both", "nc-data")]


def test_a_circle_ends_and_still_tells_what_stands_on_it():
    (found,) = triage(["circle-a"], "commercial", extra=WORLD)
    assert found.reasons[0].chain == ("circle-a", "circle-b", "nc-data")


def test_two_licences_are_named_and_the_stricter_counts():
    (found,) = triage(["two-licences"], "research", extra=WORLD)
    assert any("MIT, CC-BY-NC-4.0" in text and "stricter" in text for text in found.conditions)


def test_strictness_makes_a_block_of_pretraining_on_the_web():
    assert triage(["on-nc-web"], "commercial", extra=WORLD, strict=True)[0].verdict == B
    assert triage(["torchvision-imagenet"], "commercial", strict=True)[0].verdict == B
    assert triage(["on-nc-web"], "research", extra=WORLD, strict=True)[0].verdict == C


def test_conditions_say_what_to_do():
    (found,) = triage(["gated"], "research", extra=WORLD)
    assert found.conditions == ("accept its terms at https://example.org/terms",)


def test_a_use_that_nobody_knows_is_refused():
    with pytest.raises(InputError, match="research, internal, commercial, commercial-medical"):
        triage(["free"], "fun")


# What the seeds' author found by reading, and what their notes warn of: (card, verdict, what the reasons must name).
SEEDS = (
    ("medsiglip", C, "health regulatory authorisation"),
    ("derm-foundation", C, "CPU only"),
    ("panderm", B, "CC-BY-NC-ND-4.0"),
    ("panderm-base", B, "CC-BY-NC-ND-4.0"),
    ("dermfm-zero", B, "CC-BY-NC-ND-4.0"),
    ("monet", B, "CC-BY-NC-SA-4.0"),
    ("dermlip", B, "CC-BY-NC-4.0"),
    ("dermlip-panderm", B, "no derivatives"),
    ("ham10000-classifier", B, "HAM10000: no commercial use"),
    ("dermnet-classifier", B, "DermNet: no commercial use"),
    ("fitzpatrick17k-classifier", B, "Fitzpatrick17k: no commercial use"),
    ("isic-cc0-ccby", C, "the contributor of each CC BY image"),
    ("torchvision-imagenet", C, "ImageNet-1k"),
    ("openai-clip", C, "a person must clear"),
    ("openclip-laion", C, "a person must clear"),
    ("convnextv2-fcmae", B, "CC-BY-NC-4.0"),
    ("convnext", C, "ImageNet"),
    ("mae", B, "CC-BY-NC-4.0"),
    ("dinov2", C, "LVD-142M"),
    ("dinov3", U, "nobody has verified"),
    ("derm-ssl-dino", U, "no licence is stated"),
    ("ham10000", B, "no commercial use"),
    ("dermnet", B, "no commercial use"),
    ("fitzpatrick17k", B, "no commercial use"),
    ("dermamnist", B, "different licences are stated"),
    ("bloodmnist", C, "not intended for clinical use"),
    ("isic-2020", B, "no commercial use"),
    ("pad-ufes-20", C, "Pacheco"),
    ("scin", C, "re-identify"),
)


@pytest.mark.parametrize(("name", "verdict", "named"), SEEDS)
def test_the_seeds_candidates_get_the_seeds_verdicts(name, verdict, named):
    (found,) = triage([name], "commercial-medical")
    assert found.verdict == verdict
    assert any(named in reason.text for reason in found.reasons)


def test_the_isic_subset_comes_with_its_domain_mismatch():
    assert "domain mismatch" in triage(["isic-cc0-ccby"], "commercial")[0].cautions[0]


def test_an_encoders_name_finds_its_card():
    (found,) = triage(["timm:convnextv2_tiny.fcmae_ft_in22k_in1k"], "commercial")
    assert (found.id, found.verdict) == ("convnextv2-fcmae", B)


@pytest.mark.parametrize("name", [one.id for one in cards().values() if one.unverified])
def test_nothing_that_nobody_verified_is_called_fit_for_sale(name):
    assert triage([name], "commercial")[0].verdict in (U, B)
