"""A run on its way to the Hub: what goes, what never goes, what stands against it, and what the Hub answers."""

from __future__ import annotations

import base64
import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from dermlab.cli import main
from dermlab.core.errors import DermlabError, InputError
from dermlab.core.files import read_json, write_json
from dermlab.data.dataset import Dataset
from dermlab.report.push import Package, package, send


class Hub(BaseHTTPRequestHandler):
    """The few endpoints of the Hub that a push asks: make a repository, check the card, upload modes, commit."""

    refuses: int | None = None
    asked: list[tuple[str, Any]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        lines = [json.loads(line) for line in body.splitlines() if line.strip()]
        type(self).asked.append((self.path, lines))
        if type(self).refuses:
            self.answer(type(self).refuses or 500, {"error": "no"})
        elif self.path == "/api/repos/create":
            self.answer(200, {"url": f"{self.server_name}/me/model"})
        elif self.path == "/api/validate-yaml":
            self.answer(200, {"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            files = [{"path": one["path"], "uploadMode": "regular", "shouldIgnore": False} for one in lines[0]["files"]]
            self.answer(200, {"files": files})
        elif "/commit/" in self.path:
            self.answer(200, {"success": True, "commitUrl": f"{self.server_name}/me/model/commit/1", "commitOid": "1"})
        else:
            self.answer(404, {"error": self.path})

    def do_GET(self) -> None:
        self.answer(type(self).refuses or 404, {"error": self.path})

    @property
    def server_name(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def answer(self, status: int, content: Any) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    """A Hub of our own; nothing reaches the network."""
    from huggingface_hub import constants

    handler = type("OneHub", (Hub,), {"asked": [], "refuses": None})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    monkeypatch.setattr("huggingface_hub.hf_api.constants.ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_a_token_of_nobody")
    yield handler
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def run(histogram_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that stands on public cards."""
    return licensed(histogram_run, tmp_path_factory.mktemp("push") / "run", ["efficientnet-lite0"])


@pytest.fixture(scope="module")
def contents(run: Path) -> Package:
    return package(run)


def licensed(run: Path, folder: Path, cards: list[str], **told: Any) -> Path:
    """Return a copy of a run whose sidecar tells of these cards, and what else is given."""
    copy = Path(shutil.copytree(run, folder))
    sidecar = read_json(copy / "predictions.parquet.json") | told
    sidecar["lineage"] |= {"cards": cards, "data_card": {"name": "own", "licence": "MIT"}}
    write_json(copy / "predictions.parquet.json", sidecar)
    return copy


def download(contents: Package, folder: Path) -> Path:
    """Write what was pushed as a person gets it who downloads the repository."""
    for name, content in contents.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.read_bytes())
    return folder


def text_of(content: Path | bytes) -> str:
    return content.decode() if isinstance(content, bytes) else content.read_bytes().decode("latin-1")


def test_only_what_is_named_goes_and_nothing_names_a_patient(histogram_run: Path, clinic: Path, tmp_path: Path) -> None:
    run = licensed(histogram_run, tmp_path / "run", ["efficientnet-lite0"])
    data = Dataset.open(clinic)
    ids = {str(value) for value in [*data.image_ids, *data.groups()] if not str(value).isdigit()}
    assert len(ids) > 100
    parts = data.read_split("main").set_index("image_id")["split"]
    tested, fitted, other = (parts.index[parts == part][0] for part in ("test", "train", "train"))
    metrics = read_json(run / "metrics.json")
    metrics["warnings"] += [
        f"2 photos cannot be read (the first: /home/anna/{tested}.jpg) and {tested} is odd",
        f"own: 1 photo has two labels (for one, {fitted} MEL and {other} NEV).",
        f"{fitted} was seen twice",
    ]
    write_json(run / "metrics.json", metrics)
    contents = package(run)
    place = "checkpoints/repeat0-fold0"
    assert set(contents.files) == {
        *("README.md", "metrics.json", "config.json", "preprocess.json"),
        *(f"{place}/{name}" for name in ("model.json", "head.json", "head.safetensors")),
    }
    for name, content in contents.files.items():
        text = text_of(content).replace("\\_", "_")
        assert not [one for one in ids if one in text], name
        assert str(data.folder) not in text
        assert "anna" not in text
    told = text_of(contents.files["metrics.json"])
    assert "[id] is odd" in told
    assert "own: 1 photo has two labels." in told
    assert "[id] was seen twice" in told
    assert json.loads(text_of(contents.files["config.json"]))["id2label"]["0"] == metrics["classes"][0]


def test_a_run_goes_in_one_commit_to_a_private_repository(
    run: Path, contents: Package, hub: type[Hub], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["push", str(run), "me/model", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["address"].endswith("/me/model")
    paths = [path for path, _ in hub.asked]
    assert paths.count("/api/models/me/model/commit/main") == 1
    made = next(lines[0] for path, lines in hub.asked if path == "/api/repos/create")
    assert made.get("private") is True or made.get("visibility") == "private"
    lines = next(lines for path, lines in hub.asked if "/commit/" in path)
    sent = {
        line["value"]["path"]: base64.b64decode(line["value"]["content"]) for line in lines if line["key"] == "file"
    }
    assert set(sent) == set(told["files"])
    assert sent["README.md"].decode().startswith("---\nlibrary_name: dermlab\n")
    assert sent["README.md"] == contents.files["README.md"]


def test_a_dry_run_sends_nothing_and_tells_the_terms(
    run: Path, hub: type[Hub], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["push", str(run), "me/model", "--dry_run"]) == 0
    told = capsys.readouterr().out
    assert "for commercial use: viable with conditions" in told
    assert "condition: ImageNet-1k" in told
    assert "head.safetensors" in told
    assert hub.asked == []
    assert main(["push", str(run), "model", "--dry_run"]) == 2
    assert "write OWNER/NAME" in capsys.readouterr().err


def test_what_may_not_be_shipped_is_not_pushed_until_that_is_waived_and_told(
    histogram_run: Path, tmp_path: Path, hub: type[Hub], capsys: pytest.CaptureFixture[str]
) -> None:
    run = licensed(histogram_run, tmp_path / "blocked", ["convnextv2-fcmae"])
    assert main(["push", str(run), "me/model"]) == 2
    error = capsys.readouterr().err
    assert "blocked for commercial use" in error
    assert "--waive licence" in error
    assert hub.asked == []
    contents = package(run, ("licence", "redistribution"))
    assert not contents.refusals
    assert "waived before it was pushed: licence" in text_of(contents.files["README.md"])
    run = licensed(histogram_run, tmp_path / "unknown", ["derm-ssl-dino"])
    assert "unknown for commercial use" in package(run).refusals["licence"]


def test_a_head_that_keeps_every_training_photo_stays(histogram_run: Path, tmp_path: Path) -> None:
    from dermlab.adapt.config import HeadConfig
    from dermlab.adapt.heads import make_head
    from dermlab.adapt.saving import save_head

    run = licensed(histogram_run, tmp_path / "run", [])
    random = np.random.default_rng(0)
    head = make_head(HeadConfig(kind="knn", k=(1,)), seed=0, n_embedding=4)
    head.fit(random.normal(size=(12, 4)).astype(np.float32), np.array(["a", "b"] * 6))
    save_head(head, run / "checkpoints" / "repeat0-fold0")
    assert set(package(run).refusals) == {"vectors"}
    assert package(run, ("vectors",)).refusals == {}


def test_weights_that_may_not_be_passed_on_stay(tmp_path: Path) -> None:
    card = {"id": "w", "kind": "model", "name": "w", "licence": "MIT", "redistribution": "no", "trained_on": []}
    card["evidence"] = [{"quote": "a", "address": "b", "seen": "2026-01-01"}]
    encoder = tmp_path / "encoder"
    encoder.mkdir()
    (encoder / "card.yaml").write_text(yaml.safe_dump(card))
    write_json(encoder / "config.json", {"architecture": "x"})
    preprocess = {"size_px": 32, "fit": "crop", "interpolation": "bicubic", "mean": [0.5] * 3, "std": [0.5] * 3}
    write_json(encoder / "preprocess.json", preprocess)
    (encoder / "model.safetensors").write_bytes(b"weights")
    found = package(encoder)
    assert set(found.refusals) == {"redistribution"}
    assert set(found.files) == {"README.md", "card.yaml", "config.json", "model.safetensors", "preprocess.json"}


def test_what_is_no_model_is_one_line(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no model"):
        package(tmp_path)
    with pytest.raises(InputError, match="is not one of licence, redistribution, vectors"):
        package(run, ("all",))
    write_json(tmp_path / "bakeoff.json", {"candidates": [{"winner": True, "run": "runs/best"}]})
    with pytest.raises(InputError, match=r"push its winner: .*runs/best"):
        package(tmp_path)


def test_each_refusal_of_the_hub_is_one_line(contents: Package, hub: type[Hub]) -> None:
    told = {401: "HF_TOKEN", 403: "may not write to me/model", 404: "knows no me/model", 500: "out of order"}
    for status, named in told.items():
        hub.refuses = status
        with pytest.raises(DermlabError, match=named) as caught:
            send(contents, "me/model")
        assert "\n" not in str(caught.value)


def test_without_a_network_it_says_so(contents: Package, hub: type[Hub], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.hf_api.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(DermlabError, match="cannot be reached; nothing was sent"):
        send(contents, "me/model")
    with pytest.raises(InputError, match="OWNER/NAME"):
        send(contents, "no such/name/at all")


def test_what_was_pushed_predicts_as_before_and_says_what_it_cannot_tell(
    histogram_run: Path, clinic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    costs = [[0 if row == column else 1 for column in range(5)] for row in range(5)]
    run = licensed(histogram_run, tmp_path / "run", [], decision="cost", cost_matrix=costs)
    pushed = download(package(run), tmp_path / "pushed")
    tables = {}
    for name, folder in (("here", run), ("there", pushed)):
        out = tmp_path / f"{name}.parquet"
        assert main(["predict", str(folder), str(clinic), "--out", str(out)]) == 0
        tables[name] = pd.read_parquet(out).set_index("image_id")
    told = capsys.readouterr().out
    assert told.count("does not say which photos it was trained on") == 1
    assert "seen_in_training" not in tables["there"]
    fresh = tables["here"].index[~tables["here"]["seen_in_training"]]
    columns = [name for name in tables["here"] if name.startswith("p:")]
    np.testing.assert_array_equal(tables["there"].loc[fresh, columns], tables["here"].loc[fresh, columns])
    sidecars = [read_json(tmp_path / f"{name}.parquet.json") for name in ("here", "there")]
    assert sidecars[0]["cost_matrix"] == sidecars[1]["cost_matrix"] == costs


def test_a_frozen_encoder_that_was_made_here_goes_along(
    encoder_run: Path, own_encoder: Path, clinic: Path, tmp_path: Path
) -> None:
    contents = package(encoder_run, ("licence",))
    assert "encoder/model.safetensors" in contents.files
    assert "HAM10000: no commercial use" in " ".join(contents.waived)
    assert not [name for name, content in contents.files.items() if str(own_encoder.parent) in text_of(content)]
    pushed = download(contents, tmp_path / "pushed")
    model = read_json(pushed / "checkpoints" / "repeat0-fold0" / "model.json")
    assert model["encoder"]["licence_card"] == yaml.safe_load((own_encoder / "card.yaml").read_text())["id"]
    out = tmp_path / "table.parquet"
    assert main(["predict", str(pushed), str(clinic), "--out", str(out)]) == 0
    own = pd.read_parquet(encoder_run / "predictions.parquet").query("split == 'test'").set_index("image_id")
    found = pd.read_parquet(out).set_index("image_id").loc[own.index]
    columns = [name for name in own if name.startswith("p:")]
    np.testing.assert_allclose(found[columns], own[columns], atol=1e-5)


@pytest.mark.parametrize(
    "text", ["photo IMG_001.jpg", r"photo IMG\_001\_crop.png", "patient Jane Doe left", "at p/17 x", "IMG_001"]
)
def test_an_id_goes_also_where_it_is_part_of_a_name(text: str) -> None:
    from dermlab.report.push import _public, _without

    hidden = frozenset({"IMG_001", "Jane Doe", "p/17", "612345"})
    assert "[id]" in _without(text, hidden)
    assert not any(name in _without(text, hidden).replace("\\", "") for name in hidden)
    assert _public({"IMG_001": 1}, hidden) == {"[id]": 1}
    assert _without("top-1 0.612345 of 40", hidden) == "top-1 0.612345 of 40"
