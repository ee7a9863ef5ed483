"""Cards are validated: a quote is short and has its place, terms are spelt out, and every name leads somewhere."""

import pytest

from dermlab.core.errors import InputError
from dermlab.licensing import LicenceCard, card, card_for, cards, find_cards, read_card, write_card
from dermlab.licensing.terms import standard_terms
from dermlab.models.names import ALIASES


@pytest.mark.parametrize("name", cards())
def test_every_built_in_card_holds_together(name):
    one = cards()[name]
    for source in one.trained_on or ():
        assert source in cards(), f"{name} is said to be made from {source}, which has no card"
    assert one.evidence or one.unverified


def test_the_aliases_that_need_a_card_have_one():
    for alias in ALIASES.values():
        assert card_for(alias.target) or card_for(f"{alias.target}.DEFAULT"), alias.target


def test_the_closest_pattern_wins():
    assert card_for("torchvision:vit_b_16.IMAGENET1K_SWAG_LINEAR_V1").id == "torchvision-swag"
    assert card_for("torchvision:vit_b_16.IMAGENET1K_V1").id == "torchvision-imagenet"
    assert card_for("timm:nobody.knows") is None


@pytest.mark.parametrize("written", ["CC-BY-NC-4.0", "CC BY-NC 4.0", "cc-by-nc-4.0"])
def test_a_standard_licence_is_known_however_it_is_written(written):
    assert standard_terms(written)["commercial_use"] == "no"


def test_own_answers_win_over_the_licences():
    one = LicenceCard.model_validate(
        {"id": "x", "kind": "model", "name": "x", "licence": "MIT", "clinical_use": "no", "unverified": True}
    )
    assert (one.commercial_use, one.clinical_use) == ("yes", "no")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"unverified": False}, "unverified: true"),
        ({"evidence": [{"quote": "word " * 26, "address": "a", "seen": "2026-01-01"}]}, "at most 25 words"),
        ({"commercial_use": "maybe"}, "commercial_use"),
        ({"derivatives": "conditions"}, "conditions.derivatives: must say"),
        ({"conditions": {"weather": "dry"}}, "conditions.weather"),
        ({"colour": "blue"}, "no such field"),
    ],
)
def test_a_faulty_card_is_refused_with_the_field(tmp_path, change, told):
    import yaml

    file = tmp_path / "x.yaml"
    file.write_text(
        yaml.safe_dump({"id": "x", "kind": "model", "name": "x", "licence": "Terms", "unverified": True} | change)
    )
    with pytest.raises(InputError) as caught:
        read_card(file)
    assert told in str(caught.value)
    assert str(file) in str(caught.value)


def test_a_card_survives_being_written(tmp_path):
    one = cards()["medsiglip"]
    assert read_card(write_card(tmp_path / "c.yaml", one)) == one


def test_an_unknown_card_is_one_line():
    with pytest.raises(InputError, match="there is no licence card"):
        card("nix")


def test_the_cards_behind_an_artefact_are_found_in_its_files(tmp_path):
    import json

    run = tmp_path / "run"
    run.mkdir()
    lineage = {"encoder": {"name": "clip_vit_b16", "licence_card": "openai-clip"}, "data": {"licence_card": "ham10000"}}
    (run / "predictions.parquet.json").write_text(json.dumps({"model": "m", "lineage": lineage}))
    assert find_cards(run)[0] == ["openai-clip", "ham10000"]
    assert find_cards(tmp_path)[0] == ["openai-clip", "ham10000"]
    (run / "predictions.parquet").write_bytes(b"")
    assert find_cards(run / "predictions.parquet")[0] == ["openai-clip", "ham10000"]


def test_a_run_tells_of_its_encoder_and_of_its_data_set(tmp_path):
    import json

    clinic = {"name": "our clinic", "licence": "CC BY-NC 4.0"}
    member = {"cards": ["openai-clip"], "data_card": clinic}
    for lineage in (member, {"members": [{"model": "m", **member}]}):
        (tmp_path / "predictions.parquet.json").write_text(json.dumps({"lineage": lineage}))
        ids, own = find_cards(tmp_path)
        assert ids == ["openai-clip", "our clinic"]
        assert own["our clinic"].commercial_use == "no"


def test_a_data_set_speaks_for_itself(tmp_path):
    (tmp_path / "card.yaml").write_text("name: our clinic\nlicence: CC BY-NC 4.0\n")
    ids, own = find_cards(tmp_path)
    assert ids == ["our clinic"]
    assert own["our clinic"].commercial_use == "no"
    (tmp_path / "card.yaml").write_text("name: our clinic\n")
    assert find_cards(tmp_path)[1]["our clinic"].unverified
    (tmp_path / "card.yaml").write_text("name: a copy\nlicence_card: ham10000\n")
    assert find_cards(tmp_path)[0] == ["ham10000"]


def test_an_artefact_that_says_nothing_is_told_so(tmp_path):
    with pytest.raises(InputError, match="says of no licence card"):
        find_cards(tmp_path)
