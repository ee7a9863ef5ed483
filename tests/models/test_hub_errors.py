"""Whatever the hub answers is one sentence of its own, asked of a stand-in server on this machine."""

import hashlib
import http.server
import threading

import pytest

from dermlab.core.errors import InputError, MissingWeightsError
from dermlab.models import weights

ANSWERS = {
    "gated-401": (401, {"X-Error-Code": "GatedRepo"}, r"gated: accept its terms at http\S+/owner/gated-401 and put"),
    "gated-403": (403, {"X-Error-Code": "GatedRepo"}, "with the account whose token is in HF_TOKEN"),
    "absent": (404, {"X-Error-Code": "RepoNotFound"}, "knows no model owner/absent"),
    "no-entry": (404, {"X-Error-Code": "EntryNotFound"}, "has none of model.safetensors"),
    "no-revision": (404, {"X-Error-Code": "RevisionNotFound"}, "no such revision"),
    "bad-token": (401, {"X-Error-Message": "Invalid credentials in Authorization header"}, r"does not know the token"),
    "forbidden": (403, {}, r"may not read http\S+/owner/forbidden .403."),
}


@pytest.fixture
def hub(tmp_path, monkeypatch):
    class Stand(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            status, headers, _ = ANSWERS.get(self.path.split("/")[2] if self.path.count("/") > 1 else "", (200, {}, ""))
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_HEAD

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Stand) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        address = f"http://127.0.0.1:{running.server_address[1]}"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        template = address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        weights.is_online.cache_clear()
        yield address
        running.shutdown()
    weights.is_online.cache_clear()


@pytest.mark.parametrize("case", ANSWERS)
def test_each_answer_of_the_hub_has_its_own_sentence(hub, tmp_path, case):
    with pytest.raises(MissingWeightsError, match=ANSWERS[case][2]) as caught:
        weights.fetch_hub_file(f"owner/{case}", ["model.safetensors"])
    assert "\n" not in str(caught.value)


def test_a_file_is_held_against_the_hash_in_its_name(tmp_path):
    data = b"weights" * 1000
    digest = hashlib.sha256(data).hexdigest()
    blob = tmp_path / "blobs" / digest
    blob.parent.mkdir()
    blob.write_bytes(data)
    link = tmp_path / "model.safetensors"
    link.symlink_to(blob)
    assert weights.verify(link) == f"matches its SHA-256 ({digest[:12]}…)"
    blob.write_bytes(data[:-1])
    with pytest.raises(InputError, match="not the one published"):
        weights.verify(link)
    named = tmp_path / f"resnet-{digest[:8]}.pth"
    named.write_bytes(data)
    assert "matches" in weights.verify(named)
    plain = tmp_path / "mine.pth"
    plain.write_bytes(data)
    assert "no published SHA-256" in weights.verify(plain)
    plain.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(InputError, match="Git LFS pointer"):
        weights.verify(plain)


def test_a_download_that_the_client_found_too_short_says_so(hub, monkeypatch):
    def short(*args, **kwargs):
        raise OSError("Consistency check failed: file should be of size 10 but has size 3")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", short)
    with pytest.raises(MissingWeightsError, match="broke off or was changed on its way"):
        weights.fetch_hub_file("owner/short", ["model.safetensors"])


@pytest.mark.parametrize(("status", "told"), [(429, "too much was asked"), (503, "itself is out of order .503.")])
def test_answers_that_the_client_retries_have_sentences_too(hub, monkeypatch, status, told):
    from types import SimpleNamespace

    from huggingface_hub.errors import HfHubHTTPError

    def refused(*args, **kwargs):
        error = HfHubHTTPError.__new__(HfHubHTTPError)
        error.response = SimpleNamespace(status_code=status)
        raise error

    monkeypatch.setattr("huggingface_hub.hf_hub_download", refused)
    with pytest.raises(MissingWeightsError, match=told):
        weights.fetch_hub_file("owner/name", ["model.safetensors"])
