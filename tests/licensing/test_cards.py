"""Cards are validated: a quote is short and has its place, terms are spelt out, and every name leads somewhere."""

from pathlib import Path

import pytest

from dermlab.core.errors import InputError
from dermlab.licensing import LicenceCard, card, card_for, cards, contamination, find_cards, read_card, write_card
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


def test_two_licences_of_one_thing_give_the_stricter_answers():
    given = {"id": "x", "kind": "model", "name": "x", "unverified": True}
    for licences in ({"licence": "MIT and CC BY-NC 4.0"}, {"licence": "MIT", "other_licences": ["CC-BY-NC-4.0"]}):
        one = LicenceCard.model_validate(given | licences)
        assert (one.commercial_use, one.derivatives, one.redistribution) == ("no", "yes", "conditions")
        assert len(one.licences) == 2
    strange = LicenceCard.model_validate(given | {"licence": "MIT", "other_licences": ["House terms"]})
    assert strange.commercial_use == "unknown"
    plain = LicenceCard.model_validate(given | {"licence": "terms of use and further terms"})
    assert plain.licences == ("terms of use and further terms",)


@pytest.mark.parametrize(
    ("written", "spdx"),
    [
        ("CC BY-NC", "CC-BY-NC-4.0"),
        ("cc0", "CC0-1.0"),
        ("Apache 2.0", "Apache-2.0"),
        ("MIT License", "MIT"),
        ("CC BY-SA 4.0 International", "CC-BY-SA-4.0"),
    ],
)
def test_licences_are_known_by_their_everyday_names(written, spdx):
    assert standard_terms(written) is not None
    assert standard_terms(written) == standard_terms(spdx)


def test_there_are_cards_enough_and_enough_of_them_were_read_at_their_source():
    for kind, n, n_read in (("model", 35, 15), ("dataset", 30, 10)):
        of_kind = [one for one in cards().values() if one.kind == kind]
        assert len(of_kind) >= n
        assert sum(not one.unverified for one in of_kind) >= n_read


@pytest.mark.parametrize("name", [one.id for one in cards().values() if one.kind == "model"])
def test_a_models_card_says_what_runs_it(name):
    one = cards()[name]
    assert one.framework in ("torch", "transformers", "open_clip", "tensorflow")
    assert one.fine_tunable is not None
    assert one.size_px
    assert one.fit in ("", "crop", "squash", "pad")
    for data in one.contamination:
        assert data in cards()


def test_every_2d_set_of_medmnist_has_its_card():
    import ast
    import importlib.util

    package = importlib.util.find_spec("medmnist")
    if package is None:
        pytest.skip("medmnist is not installed")
    text = (Path(package.origin).parent / "info.py").read_text()  # read, not imported: importing it brings torch
    (stated,) = (
        ast.literal_eval(node.value)
        for node in ast.parse(text).body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "INFO"
    )
    assert len(stated) >= 12
    for name, info in stated.items():
        if not name.endswith("3d"):
            assert standard_terms(info["license"]) == standard_terms(cards()[name].licence), name
            assert cards()[name].deployment == "not_clinical"


def test_evidence_is_dated_and_stands_somewhere_public():
    for one in cards().values():
        for item in one.evidence:
            assert item.seen.year >= 2026
            assert not item.address.startswith(("/", "~", "file:"))


KNOWN = [
    ("medsiglip", "pad-ufes-20", "was pretrained on PAD-UFES-20"),
    ("ham10000-classifier", "dermamnist", "HAM10000, which DermaMNIST is made from"),
    ("ham10000-classifier", "isic-2019", "HAM10000, which ISIC 2019 challenge is made from"),
    ("dermlip", "ham10000", "very probably hold HAM10000"),
    ("dermfm-zero", "daffodil", "13.6 %"),
    ("medsiglip", "ham10000", None),
    ("torchvision-imagenet", "pad-ufes-20", None),
    ("torchvision-imagenet", "nobody's photos", None),
]


@pytest.mark.parametrize(("model", "data", "told"), KNOWN)
def test_a_test_set_that_weights_know_is_found(model, data, told):
    found = contamination([model], data)
    assert (found is None) if told is None else told in found


def test_contamination_is_found_down_the_chain_and_in_circles():
    given = {"kind": "model", "licence": "MIT", "unverified": True}
    world = {
        name: LicenceCard.model_validate({"id": name, "name": name, "trained_on": made, **given})
        for name, made in {"ours": ["theirs"], "theirs": ["ours", "medsiglip"]}.items()
    }
    found = contamination(["ours"], "pad-ufes-20", world)
    assert found == "was pretrained on PAD-UFES-20 (ours ← theirs ← medsiglip ← pad-ufes-20)"
    assert contamination(["ours"], "scin", world) is None


def test_a_report_and_a_checkpoint_stand_for_their_run(tmp_path):
    import json

    run = tmp_path / "bake" / "runs" / "one"
    deep = run / "checkpoints" / "repeat0-fold0"
    deep.mkdir(parents=True)
    (run / "predictions.parquet.json").write_text(json.dumps({"lineage": {"cards": ["ham10000", "dinov2"]}}))
    (deep / "head.joblib").write_bytes(b"x")
    (tmp_path / "bake" / "report.html").write_text("<p>")
    (run / "metrics.json").write_text("{}")
    for path in (tmp_path / "bake", tmp_path / "bake/report.html", run / "metrics.json", deep, deep / "head.joblib"):
        assert find_cards(path)[0] == ["ham10000", "dinov2"], path
