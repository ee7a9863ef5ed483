"""Weights are read without running anybody's code, and whatever is wrong with a file is one clear line."""

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dermlab.core.errors import InputError, MissingWeightsError
from dermlab.models import weights


def state() -> dict[str, torch.Tensor]:
    return {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2, dtype=torch.bfloat16)}


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": s}, lambda s: {"epoch": 3, "model": s}])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_state_is_found_in_other_peoples_checkpoints(tmp_path, wrap, prefix):
    file = tmp_path / "w.pth"
    torch.save(wrap({prefix + key: tensor for key, tensor in state().items()}), file)
    read = weights.read_state(file)
    assert read.keys() == state().keys()
    assert torch.equal(read["a.weight"], state()["a.weight"])


def test_safetensors_are_read_whatever_the_file_is_called(tmp_path):
    file = tmp_path / "weights.bin"
    save_file(state(), file, {"architecture": "timm:resnet18"})
    assert torch.equal(weights.read_state(file)["a.bias"], state()["a.bias"])
    assert weights.read_metadata(file)["architecture"] == "timm:resnet18"


class Opens:
    """What a hostile pickle holds: it writes a file when it is loaded."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


@pytest.mark.parametrize("save", ["torch", "pickle"])
def test_a_pickle_that_wants_more_than_tensors_is_refused_and_not_run(tmp_path, save):
    file, trap = tmp_path / "evil.pth", tmp_path / "ran"
    if save == "torch":
        torch.save({"state_dict": state(), "extra": Opens(trap)}, file)
    else:
        file.write_bytes(pickle.dumps({"extra": Opens(trap)}))
    with pytest.raises(InputError, match=r"evil\.pth"):
        weights.read_state(file)
    assert not trap.exists()


def damaged(path: Path, kind: str) -> Path:
    if kind == "lfs":
        path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
    elif kind == "page":
        path.write_text("\n<!DOCTYPE html><html>Sign in</html>")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "cut safetensors":
        save_file(state(), path)
        path.write_bytes(path.read_bytes()[:-9])
    elif kind == "cut torch":
        torch.save({"a": torch.zeros(1000)}, path)
        path.write_bytes(path.read_bytes()[:-2000])
    elif kind == "text":
        path.write_text("hello")
    elif kind == "no tensors":
        torch.save([1, 2], path)
    elif kind == "odd entry":
        torch.save({"a": torch.zeros(1), "epoch": 3}, path)
    return path


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("lfs", "Git LFS pointer"),
        ("page", "web page"),
        ("empty", "is empty"),
        ("cut safetensors", "truncated"),
        ("cut torch", "truncated"),
        ("text", "w."),
        ("no tensors", "holds a list"),
        ("odd entry", "entry 'epoch' is a int"),
        ("missing", "cannot be read"),
    ],
)
def test_what_is_no_weights_file_is_said_to_be_so(tmp_path, kind, told):
    suffix = "safetensors" if kind == "cut safetensors" else "pth"
    with pytest.raises(InputError) as caught:
        weights.read_state(damaged(tmp_path / f"w.{suffix}", kind))
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_loading_is_strict_and_names_the_first_of_each_fault():
    network = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    wrong = dict(network.state_dict())
    wrong["0.weight"] = torch.zeros(2, 4)
    wrong["2.bias"] = wrong.pop("0.bias")
    with pytest.raises(InputError) as caught:
        weights.load_strictly(network, wrong, "my file")
    for part in ("my file", "0.bias", "2.bias", "0.weight is (2, 4), not (2, 3)"):
        assert part in str(caught.value)


def test_checkpoints_from_before_the_batch_counter_still_load():
    network = torch.nn.BatchNorm1d(2)
    old = {key: tensor for key, tensor in network.state_dict().items() if "num_batches" not in key}
    weights.load_strictly(network, old, "old")


def test_the_fingerprint_knows_every_byte_name_type_and_shape_and_no_order():
    first = weights.state_fingerprint(state())
    assert weights.state_fingerprint(dict(reversed(state().items()))) == first
    changed = state()
    changed["a.weight"][1, 2] += 1e-6
    renamed = {key.replace("a.", "b."): tensor for key, tensor in state().items()}
    reshaped = state() | {"a.weight": state()["a.weight"].reshape(3, 2)}
    retyped = state() | {"a.bias": state()["a.bias"].half()}
    others = {weights.state_fingerprint(s) for s in (changed, renamed, reshaped, retyped)}
    assert len(others | {first}) == 5


def test_offline_is_noticed_at_once_and_nothing_is_asked(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    weights.is_online.cache_clear()
    with pytest.raises(MissingWeightsError, match="no network"):
        weights.fetch_url("https://example.invalid/w-0123456789.pth", tmp_path / "w.pth")
    with pytest.raises(MissingWeightsError, match="no network"):
        weights.fetch_hub_folder("owner/name")
    weights.is_online.cache_clear()


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A web server on this machine with one file of weights."""
    import functools
    import http.server
    import threading

    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    monkeypatch.setattr(http.server.SimpleHTTPRequestHandler, "log_message", lambda *a: None)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        weights.is_online.cache_clear()
        yield folder, f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()
    weights.is_online.cache_clear()


def test_a_download_is_whole_and_its_hash_is_checked(server, tmp_path):
    import hashlib

    folder, address = server
    data = b"weights" * 300_000
    good, bad = f"m-{hashlib.sha256(data).hexdigest()[:8]}.pth", "m-00000000.pth"
    for name in (good, bad):
        (folder / name).write_bytes(data)
    fetched = weights.fetch_url(f"{address}/{good}", tmp_path / "cache" / good)
    assert fetched.read_bytes() == data
    with pytest.raises(MissingWeightsError, match="SHA-256"):
        weights.fetch_url(f"{address}/{bad}", tmp_path / "cache" / bad)
    with pytest.raises(MissingWeightsError, match="404"):
        weights.fetch_url(f"{address}/absent.pth", tmp_path / "cache" / "absent.pth")
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [good]


def test_a_download_that_breaks_off_is_not_kept(server, tmp_path, monkeypatch):
    import http.server

    folder, address = server
    (folder / "nameless.pth").write_bytes(b"weights" * 1000)
    handler = http.server.SimpleHTTPRequestHandler
    monkeypatch.setattr(handler, "copyfile", lambda self, source, out: out.write(source.read(1000)))
    with pytest.raises(MissingWeightsError, match="broke off after 1,000 of 7,000 bytes"):
        weights.fetch_url(f"{address}/nameless.pth", tmp_path / "nameless.pth")
    assert not (tmp_path / "nameless.pth").exists()


@pytest.mark.parametrize("start", [b"\xff" * 8, b"\x02" + b"\0" * 7 + b"[]"])
def test_a_header_that_is_none_has_no_metadata(tmp_path, start):
    path = tmp_path / "w.safetensors"
    path.write_bytes(start + b"{}" * 20)
    assert weights.read_metadata(path) == {}
    with pytest.raises(InputError, match="truncated or not a safetensors file"):
        weights.read_state(path)
