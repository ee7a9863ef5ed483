"""Encoders that are no network of ours: embedding services that are asked over HTTP, with the owner's consent.

They take PNG files of the prepared photos, made from pixels alone, so that no metadata can be in them.
"""

from __future__ import annotations

import base64
import http.client
import io
import json
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from pydantic import Field, field_validator

from dermlab.core.config import Config, read_yaml, validate
from dermlab.core.errors import DermlabError, InputError, first_line
from dermlab.core.fingerprint import hash_json
from dermlab.core.progress import note, warn
from dermlab.core.words import duration
from dermlab.models.encoders import EncoderIdentity
from dermlab.models.names import parse_name
from dermlab.models.preprocess import Preprocess

RETRIED = (408, 425, 429, 500, 502, 503, 504)
MAX_WAIT_SECONDS = 60.0


class Service(Protocol):
    """Something that turns prepared photos into vectors elsewhere."""

    identity: EncoderIdentity
    batch_size: int

    def announce(self, n_images: int) -> None:
        """Say what ``n_images`` will take, before the first is sent."""

    def embed(self, images: np.ndarray) -> np.ndarray:
        """Return the vectors (B, dim) float32 of prepared photos (B, H, W, 3) uint8."""


class EndpointConfig(Config):
    """An embedding service: the YAML file behind ``http:FILE.yaml``."""

    url: str = Field(description="takes POST {model, images: [base64 PNG]}, answers {embeddings: [[numbers]]}")
    allowed_host: str = Field(description="the url's host, written a second time: photos go nowhere else")
    photos_may_leave: bool = Field(False, description="you may send these photos to that host")
    model: str = Field(description="which model answers, with its version: features are kept under it")
    dim: int = Field(ge=1, description="length of a vector")
    size_px: int = Field(224, ge=1, le=8192, description="side of the square that is sent")
    fit: Literal["squash", "crop", "pad", "square"] = Field("squash", description="how a photo becomes a square")
    batch_size: int = Field(8, ge=1, description="photos a request")
    token_variable: str | None = Field(None, description="environment variable with the token, sent as Bearer")
    requests_per_minute: float | None = Field(None, gt=0, description="never ask more often")
    retries: int = Field(4, ge=0, le=10, description="after refusals that pass: 408, 425, 429, 5xx, broken lines")
    timeout_seconds: float = Field(60, gt=0, description="for one answer")
    price_per_1000: float | None = Field(None, ge=0, description="of a thousand photos, for the estimate")
    seconds_per_request: float | None = Field(None, gt=0, description="for the estimate")
    licence_card: str | None = Field(None, description="id of the licence card of the model")

    @field_validator("url")
    @classmethod
    def _is_web(cls, url: str) -> str:
        parts = urllib.parse.urlparse(url)
        local = parts.hostname in ("127.0.0.1", "localhost", "::1")
        if parts.scheme != "https" and not (parts.scheme == "http" and local):
            raise ValueError("must be https (http is for this machine only): photos are not sent in the clear")
        return url


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follow no redirection: photos would go to a host that nobody allowed."""

    def redirect_request(self, *args: object, **kwargs: object) -> None:
        """Refuse."""
        return None


class Endpoint:
    """An embedding service over HTTP."""

    def __init__(self, config: EndpointConfig, name: str, *, sleep: Callable[[float], None] = time.sleep) -> None:
        """Check host and consent; nothing is sent yet."""
        host = urllib.parse.urlparse(config.url).hostname
        if host != config.allowed_host:
            raise InputError(f"{name}: allowed_host is {config.allowed_host!r}, but the url leads to {host!r}")
        if not config.photos_may_leave:
            raise InputError(
                f"{name}: photos would leave this machine for {host}; set photos_may_leave: true in its YAML if "
                "you may send them there"
            )
        if config.token_variable is not None and not os.environ.get(config.token_variable):
            raise InputError(f"{name}: the environment variable {config.token_variable} holds no token")
        self.config, self.name, self.batch_size = config, name, config.batch_size
        self._sleep = sleep
        self._last = -float("inf")
        self._opener = urllib.request.build_opener(_NoRedirect())
        preprocess = Preprocess(config.size_px, fit=config.fit, mean=(0.0,) * 3, std=(1.0,) * 3)
        self.identity = EncoderIdentity(
            name=name,
            library="endpoint",
            architecture=config.model,
            arguments={"url": config.url},
            dim=config.dim,
            n_parameters=0,
            has_tokens=False,
            preprocess=preprocess,
            fingerprint=hash_json(["endpoint", config.url, config.model, config.dim]),
            licence_card=config.licence_card,
            lineage=(config.licence_card,) if config.licence_card is not None else (),
        )

    def announce(self, n_images: int) -> None:
        """Say how many requests, how long and how dear, before the first photo leaves."""
        config = self.config
        n_requests = -(-n_images // config.batch_size)
        pace = max(
            60 / config.requests_per_minute if config.requests_per_minute else 0, config.seconds_per_request or 0
        )
        told = [f"{n_images:,} photos leave for {config.allowed_host} in {n_requests:,} requests"]
        if pace:
            told.append(f"about {duration(pace * n_requests)}")
        if config.price_per_1000 is not None:
            told.append(f"price {n_images * config.price_per_1000 / 1000:,.2f}")
        note(f"{self.name}: {', '.join(told)}")

    def embed(self, images: np.ndarray) -> np.ndarray:
        """Return the vectors (B, dim) of photos (B, H, W, 3) uint8; refusals that pass are tried again.

        Raises:
            DermlabError: the service refuses, or answers something else than B finite vectors.
        """
        body = {"model": self.config.model, "images": [base64.b64encode(png(one)).decode() for one in images]}
        answer = self._post(json.dumps(body).encode())
        try:
            vectors = np.asarray(answer["embeddings"], np.float32)
        except (KeyError, TypeError, ValueError):
            raise DermlabError(f"{self.name}: the answer has no list of numbers under 'embeddings'") from None
        if vectors.shape != (len(images), self.config.dim) or not np.isfinite(vectors).all():
            raise DermlabError(
                f"{self.name}: answered {vectors.shape}, not {len(images)} finite vectors of {self.config.dim} numbers"
            )
        return vectors

    def _post(self, body: bytes) -> dict[str, object]:
        headers = {"Content-Type": "application/json", "User-Agent": "dermlab"}
        if self.config.token_variable is not None:
            headers["Authorization"] = f"Bearer {os.environ[self.config.token_variable]}"
        for attempt in range(self.config.retries + 1):
            self._keep_the_rate()
            request = urllib.request.Request(self.config.url, data=body, headers=headers, method="POST")
            wait = min(2.0**attempt, MAX_WAIT_SECONDS)
            try:
                with self._opener.open(request, timeout=self.config.timeout_seconds) as response:
                    return json.loads(response.read())
            except urllib.error.HTTPError as error:
                reason = f"HTTP {error.code}"
                if error.code not in RETRIED:
                    hint = "; look at its token" if error.code in (401, 403) else ""
                    raise DermlabError(f"{self.name}: {self.config.allowed_host} refused ({reason}){hint}") from None
                asked = error.headers.get("Retry-After", "")
                wait = min(float(asked), MAX_WAIT_SECONDS) if asked.isdigit() else wait
            except ValueError:
                raise DermlabError(f"{self.name}: the answer is not JSON") from None
            except (urllib.error.URLError, http.client.HTTPException, TimeoutError, OSError) as error:
                reason = first_line(error)
            if attempt < self.config.retries:
                warn(f"{self.name}: {reason}; again in {wait:.0f} s")
                self._sleep(wait)
        raise DermlabError(f"{self.name}: no answer after {self.config.retries + 1} requests ({reason})")

    def _keep_the_rate(self) -> None:
        if self.config.requests_per_minute is not None:
            due = self._last + 60 / self.config.requests_per_minute
            if due > time.monotonic():
                self._sleep(due - time.monotonic())
        self._last = time.monotonic()


def png(image: np.ndarray) -> bytes:
    """Return a photo (H, W, 3) uint8 as a PNG file that holds its pixels and nothing else."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG", compress_level=1)
    return file.getvalue()


def open_service(name: str, *, size_px: int | None = None, fit: str | None = None) -> Service:
    """Return the service behind ``http:FILE.yaml`` or ``savedmodel:FOLDER``.

    Args:
        name: of the encoder.
        size_px: another size than the file's.
        fit: another fit than the file's.

    Raises:
        InputError: the file is wrong, the host is not the allowed one, or nobody said that photos may leave.
    """
    parsed = parse_name(name)
    path = parsed.path
    assert path is not None
    if parsed.library == "savedmodel":
        from dermlab.models.savedmodel import SavedModel

        return SavedModel(path, name, size_px=size_px, fit=fit)
    fields = read_yaml(path)
    fields |= {key: value for key, value in (("size_px", size_px), ("fit", fit)) if value is not None}
    return Endpoint(validate(EndpointConfig, fields, source=str(Path(path))), name)
