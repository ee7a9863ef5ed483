"""A run on its way to the Hub: what goes, what never goes, what stands against it, and what the Hub answers."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

import dermlab
from dermlab.cli import main
from dermlab.core.errors import DermlabError, InputError
from dermlab.core.files import read_json, write_json
from dermlab.report.push import package, send


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
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr("huggingface_hub.hf_api.constants.ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_a_token_of_nobody")
    yield handler
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def runs(clinic: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    out = tmp_path_factory.mktemp("push")
    for head in ("linear", "knn"):
        fields = {"encoder": "histogram", "head": {"kind": head}, "split": "main", "n_boot": 100}
        dermlab.probe(clinic, out=out / head, **fields)
    return {"linear": out / "linear", "knn": out / "knn"}


def licensed(run: Path, folder: Path, cards: list[str]) -> Path:
    """Return a copy of a run that stands on public cards."""
    import shutil

    copy = Path(shutil.copytree(run, folder))
    sidecar = read_json(copy / "predictions.parquet.json")
    sidecar["lineage"] |= {"cards": cards, "data_card": {"name": "own", "licence": "MIT"}}
    write_json(copy / "predictions.parquet.json", sidecar)
    return copy


def text_of(content: Path | bytes) -> str:
    return content.decode() if isinstance(content, bytes) else content.read_bytes().decode("latin-1")


def test_only_what_is_named_goes_and_nothing_names_a_patient(runs: dict[str, Path], tmp_path: Path) -> None:
    from dermlab.data.dataset import Dataset

    run = licensed(runs["linear"], tmp_path / "run", ["efficientnet-lite0"])
    metrics = read_json(run / "metrics.json")
    data = Dataset.open(read_json_config(run))
    ids = {str(value) for value in [*data.image_ids, *data.groups()] if not str(value).isdigit()}
    assert len(ids) > 100
    first = sorted(ids)[0]
    metrics["warnings"].append(f"2 photos cannot be read (the first: /home/anna/{first}.jpg) and {first} is odd")
    write_json(run / "metrics.json", metrics)
    contents = package(run)
    place = "checkpoints/repeat0-fold0"
    assert set(contents.files) == {
        *("README.md", "metrics.json", "config.json"),
        *(f"{place}/{name}" for name in ("model.json", "head.json", "head.safetensors")),
        *({"preprocess.json"} & set(contents.files)),
    }
    for name, content in contents.files.items():
        text = text_of(content).replace("\\_", "_")
        assert not [one for one in ids if one in text], name
        assert str(data.folder) not in text
        assert "anna" not in text
    assert "[id] is odd" in text_of(contents.files["metrics.json"])
    assert read_json_bytes(contents.files["config.json"])["id2label"]["0"] == metrics["classes"][0]


def read_json_config(run: Path) -> str:
    return yaml.safe_load((run / "config.yaml").read_text())["config"]["data"]


def read_json_bytes(content: Path | bytes) -> Any:
    return json.loads(text_of(content))


def test_a_run_goes_in_one_commit_to_a_private_repository(
    runs: dict[str, Path], tmp_path: Path, hub: type[Hub], capsys: pytest.CaptureFixture[str]
) -> None:
    run = licensed(runs["linear"], tmp_path / "run", ["efficientnet-lite0"])
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
    assert sent["README.md"] == package(run).files["README.md"]


def test_a_dry_run_sends_nothing_and_tells_the_terms(
    runs: dict[str, Path], tmp_path: Path, hub: type[Hub], capsys: pytest.CaptureFixture[str]
) -> None:
    run = licensed(runs["linear"], tmp_path / "run", ["efficientnet-lite0"])
    assert main(["push", str(run), "me/model", "--dry_run"]) == 0
    told = capsys.readouterr().out
    assert "for commercial use: viable with conditions" in told
    assert "condition: ImageNet-1k" in told
    assert "head.safetensors" in told
    assert hub.asked == []


@pytest.mark.parametrize(
    ("cards", "waiver", "named"),
    [
        (["convnextv2-fcmae"], "licence", "blocked for commercial use"),
        (["derm-ssl-dino"], "licence", "unknown for commercial use"),
    ],
)
def test_what_may_not_be_shipped_is_not_pushed_until_that_is_waived_and_told(
    runs: dict[str, Path],
    tmp_path: Path,
    hub: type[Hub],
    cards: list[str],
    waiver: str,
    named: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = licensed(runs["linear"], tmp_path / "run", cards)
    assert main(["push", str(run), "me/model"]) == 2
    error = capsys.readouterr().err
    assert named in error
    assert f"--waive {waiver}" in error
    assert hub.asked == []
    contents = package(run, ("licence", "redistribution"))
    assert not contents.refusals
    assert "waived before it was pushed: licence" in text_of(contents.files["README.md"])


def test_a_head_that_keeps_every_training_photo_stays(runs: dict[str, Path], tmp_path: Path) -> None:
    run = licensed(runs["knn"], tmp_path / "run", [])
    assert set(package(run).refusals) == {"vectors"}
    assert package(run, ("vectors",)).refusals == {}


def test_weights_that_may_not_be_passed_on_stay(runs: dict[str, Path], tmp_path: Path) -> None:
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


def test_what_is_no_model_is_one_line(runs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no model"):
        package(tmp_path)
    with pytest.raises(InputError, match="is not one of licence, redistribution, vectors"):
        package(runs["linear"], ("all",))
    write_json(tmp_path / "bakeoff.json", {"candidates": [{"winner": True, "run": "runs/best"}]})
    with pytest.raises(InputError, match=r"push its winner: .*runs/best"):
        package(tmp_path)


@pytest.mark.parametrize(
    ("status", "named"),
    [(401, "HF_TOKEN"), (403, "may not write to me/model"), (404, "knows no me/model"), (500, "out of order")],
)
def test_each_refusal_of_the_hub_is_one_line(
    runs: dict[str, Path], tmp_path: Path, hub: type[Hub], status: int, named: str
) -> None:
    contents = package(licensed(runs["linear"], tmp_path / "run", ["efficientnet-lite0"]))
    hub.refuses = status
    with pytest.raises(DermlabError, match=named) as caught:
        send(contents, "me/model")
    assert "\n" not in str(caught.value)


def test_without_a_network_it_says_so(
    runs: dict[str, Path], tmp_path: Path, hub: type[Hub], monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = package(licensed(runs["linear"], tmp_path / "run", ["efficientnet-lite0"]))
    monkeypatch.setattr("huggingface_hub.hf_api.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(DermlabError, match="cannot be reached; nothing was sent"):
        send(contents, "me/model")
    with pytest.raises(InputError, match="OWNER/NAME"):
        send(contents, "no such/name/at all")
