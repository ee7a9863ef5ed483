"""URLs in a manifest: opened only where the user allowed the host."""

from __future__ import annotations

import fsspec
import pandas as pd
import pytest

from dermlab.core.errors import InputError
from dermlab.data.card import Card
from dermlab.data.dataset import Dataset
from dermlab.data.remote import ALLOWED_HOSTS, check_url, fetch


@pytest.fixture
def bucket():
    files = fsspec.filesystem("memory")
    files.pipe({"/clinic/a.jpg": b"first", "/clinic/b.jpg": b"second"})
    yield "memory://clinic"
    files.rm("/clinic", recursive=True)


def test_an_allowed_host_is_fetched_once(bucket, monkeypatch, tmp_path):
    monkeypatch.setenv(ALLOWED_HOSTS, "other.org, CLINIC")
    frame = pd.DataFrame({"image_id": ["x", "a", "b"], "path": ["x.jpg", f"{bucket}/a.jpg", f"{bucket}/b.jpg"]})
    Dataset.write(tmp_path / "set", frame, Card(name="remote"))
    paths = Dataset.open(tmp_path / "set").paths
    assert paths[0] == (tmp_path / "set" / "x.jpg").resolve()
    assert [path.read_bytes() for path in paths[1:]] == [b"first", b"second"]
    assert all(path.suffix == ".jpg" for path in paths)
    fsspec.filesystem("memory").pipe("/clinic/a.jpg", b"changed")
    assert Dataset.open(tmp_path / "set").paths[1].read_bytes() == b"first"


def test_a_host_that_nobody_allowed_is_refused_by_row(monkeypatch, tmp_path):
    monkeypatch.delenv(ALLOWED_HOSTS, raising=False)
    frame = pd.DataFrame({"image_id": ["x", "a"], "path": ["x.jpg", "https://evil.example/a.jpg"]})
    dataset = Dataset.write(tmp_path / "set", frame, Card(name="remote"))
    with pytest.raises(InputError, match=r"row 3, column 'path'.*host 'evil\.example' is not allowed.*DERMLAB_ALLOWED"):
        dataset.paths  # noqa: B018


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("file:///etc/passwd", "protocol 'file'"),
        ("local://clinic/a", "protocol 'local'"),
        ("simplecache::https://clinic/a.jpg", "chained"),
        ("https://clinic@evil.example/a.jpg", "host 'evil.example'"),
        ("https://evil.example/clinic/a.jpg", "host 'evil.example'"),
        ("https:///a.jpg", "host ''"),
    ],
)
def test_ways_round_the_list_are_closed(url, message):
    with pytest.raises(InputError, match=message):
        check_url(url, frozenset({"clinic"}))


def test_what_cannot_be_fetched_is_counted_and_stops_nothing(bucket, capsys):
    paths = fetch([f"{bucket}/b.jpg", f"{bucket}/nothing.jpg"], hosts=frozenset({"clinic"}))
    assert paths[0].read_bytes() == b"second"
    assert not paths[1].exists()
    assert " images could not be fetched" in capsys.readouterr().err


def test_a_package_that_a_protocol_needs_is_named(monkeypatch):
    def without(protocol, **options):
        raise ImportError("no such file system")  # as fsspec does, without the package's name

    monkeypatch.setattr(fsspec, "filesystem", without)
    with pytest.raises(InputError, match=r"'aiohttp', which is not installed: pip install 'dermlab\[remote\]'"):
        fetch(["https://clinic/a.jpg"], hosts=frozenset({"clinic"}))
    with pytest.raises(InputError, match="'s3fs', which is not installed: pip install s3fs"):
        fetch(["s3://clinic/a.jpg"], hosts=frozenset({"clinic"}))


def test_the_text_of_a_redirect_is_no_photo(monkeypatch):
    pytest.importorskip("aiohttp")
    import http.server
    import threading

    class Moved(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(302)
            self.send_header("Location", "http://evil.example/secret")
            self.send_header("Content-Length", "5")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(b"moved")

        do_HEAD = do_GET

        def log_message(self, *args):
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Moved) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        (path,) = fetch([f"http://127.0.0.1:{server.server_address[1]}/a.jpg"], hosts=frozenset({"127.0.0.1"}))
        server.shutdown()
    assert not path.exists()
