"""Photos leave the building only where somebody said so, to one host, as bare pixels, and no faster than agreed."""

import base64
import http.server
import io
import json
import threading

import numpy as np
import pytest
from PIL import Image

from dermlab.core.errors import DermlabError, InputError
from dermlab.features import embed_paths
from dermlab.models import create_encoder
from dermlab.models.remote import Endpoint, EndpointConfig, png


@pytest.fixture
def service(monkeypatch, tmp_path):
    """A server that answers the mean colour of each image; ``plan`` holds the statuses it gives first."""
    seen, plan = [], []

    class Stand(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            seen.append((dict(self.headers), body))
            status = plan.pop(0) if plan else 200
            photos = [Image.open(io.BytesIO(base64.b64decode(one))) for one in json.loads(body)["images"]]
            means = [np.asarray(photo).reshape(-1, 3).mean(0).tolist() for photo in photos]
            self.send_response(status)
            if status == 302:
                self.send_header("Location", "http://127.0.0.1:9/")
            if status == 429:
                self.send_header("Retry-After", "7")
            self.end_headers()
            self.wfile.write(json.dumps({"embeddings": means}).encode())

        def log_message(self, *args):
            pass

    monkeypatch.setenv("DERMLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Stand) as running:
        threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}/embed", seen, plan
        running.shutdown()


def config(url: str, **fields) -> EndpointConfig:
    known = {"url": url, "allowed_host": "127.0.0.1", "photos_may_leave": True, "model": "mean-1", "dim": 3}
    return EndpointConfig(**known | {"size_px": 8} | fields)


def photos(n: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, 8, 8, 3), dtype=np.uint8)


def test_a_data_sets_features_come_from_the_endpoint_in_batches_and_are_kept(service, tmp_path):
    url, seen, _ = service
    paths = []
    for i, pixels in enumerate(photos(5)):
        exif = Image.Exif()
        exif[0x010E] = "Jane Doe"
        paths.append(tmp_path / f"{i}.jpg")
        Image.fromarray(pixels).resize((20, 16)).save(paths[-1], exif=exif)
    text = (
        f"url: {url}\nallowed_host: 127.0.0.1\nphotos_may_leave: true\nmodel: mean-1\ndim: 3\nsize_px: 8\nbatch_size: 2"
    )
    (tmp_path / "mean.yaml").write_text(text)
    features = embed_paths(paths, f"http:{tmp_path / 'mean.yaml'}")
    assert len(seen) == 3
    assert features.values.shape == (5, 3)
    assert features.encoder["architecture"] == "mean-1"
    for _, body in seen:
        for one in json.loads(body)["images"]:
            file = base64.b64decode(one)
            assert b"Jane" not in file
            assert Image.open(io.BytesIO(file)).info == {}
    again = embed_paths(paths, f"http:{tmp_path / 'mean.yaml'}")
    assert len(seen) == 3
    assert np.array_equal(again.values, features.values)


def test_nothing_leaves_without_consent_to_another_host_or_in_the_clear(service):
    url, seen, _ = service
    with pytest.raises(InputError, match="photos_may_leave: true"):
        Endpoint(config(url, photos_may_leave=False), "e")
    with pytest.raises(InputError, match=r"leads to '127.0.0.1'"):
        Endpoint(config(url, allowed_host="clinic.example"), "e")
    with pytest.raises(ValueError, match="must be https"):
        config("http://elsewhere.example/embed", allowed_host="elsewhere.example")
    assert seen == []


def test_refusals_that_pass_are_tried_again_after_longer_and_longer(service):
    url, seen, plan = service
    plan.extend([503, 500, 429])
    waits: list[float] = []
    vectors = Endpoint(config(url), "e", sleep=waits.append).embed(photos(2))
    np.testing.assert_allclose(vectors, photos(2).reshape(2, -1, 3).mean(1), rtol=1e-6)
    assert waits == [1.0, 2.0, 7.0]  # doubled, then what the service asked for
    plan.extend([503] * 3)
    with pytest.raises(DermlabError, match=r"no answer after 3 requests .HTTP 503."):
        Endpoint(config(url, retries=2), "e", sleep=waits.append).embed(photos(1))
    assert len(seen) == 7


@pytest.mark.parametrize(
    ("status", "told"), [(401, "look at its token"), (302, "refused .HTTP 302."), (400, "HTTP 400")]
)
def test_refusals_that_stay_end_it_at_once_and_no_redirection_is_followed(service, status, told):
    url, seen, plan = service
    plan.append(status)
    with pytest.raises(DermlabError, match=told):
        Endpoint(config(url), "e", sleep=lambda _: pytest.fail("waited")).embed(photos(1))
    assert len(seen) == 1


def test_the_rate_is_kept_and_the_token_sent(service, monkeypatch):
    url, seen, _ = service
    with pytest.raises(InputError, match="EMBED_TOKEN holds no token"):
        Endpoint(config(url, token_variable="EMBED_TOKEN"), "e")
    monkeypatch.setenv("EMBED_TOKEN", "secret")
    waits: list[float] = []
    endpoint = Endpoint(config(url, token_variable="EMBED_TOKEN", requests_per_minute=6), "e", sleep=waits.append)
    for _ in range(2):
        endpoint.embed(photos(1))
    assert waits == [pytest.approx(10, abs=1)]
    assert seen[0][0]["Authorization"] == "Bearer secret"


def test_what_it_will_take_is_told_before_the_first_photo(service, capsys):
    url, seen, _ = service
    Endpoint(config(url, requests_per_minute=60, price_per_1000=2, batch_size=10), "e").announce(12_000)
    told = capsys.readouterr().err
    assert "12,000 photos leave for 127.0.0.1 in 1,200 requests, about 20 min, price 24.00" in " ".join(told.split())
    assert seen == []


def test_an_answer_of_another_shape_is_refused(service):
    url, _, _ = service
    with pytest.raises(DermlabError, match=r"answered \(1, 3\), not 1 finite vectors of 4"):
        Endpoint(config(url, dim=4), "e").embed(photos(1))


def test_a_png_holds_pixels_and_nothing_else_and_an_endpoint_is_no_network(tmp_path):
    image = photos(1)[0]
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(png(image)))), image)
    (tmp_path / "e.yaml").write_text("")
    with pytest.raises(InputError, match="no network of ours"):
        create_encoder(f"http:{tmp_path / 'e.yaml'}")
    with pytest.raises(InputError, match="no such file"):
        create_encoder("http:absent.yaml")
