"""Images named by a URL: fetched by fsspec, only from hosts that the user allowed, into the cache folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from dermlab.core.errors import DermlabError, InputError, MissingExtraError, first_line
from dermlab.core.files import write_bytes
from dermlab.core.fingerprint import hash_bytes
from dermlab.core.folders import cache_root
from dermlab.core.progress import progress, warn

ALLOWED_HOSTS = "DERMLAB_ALLOWED_HOSTS"
MAX_BYTES = 512 << 20
THREADS = 8

# Protocols that reach another machine and take one host or bucket. "file", "zip" or a chain "a::b" would be a way out
# of the data set folder.
_PROTOCOLS = frozenset({"http", "https", "s3", "gs", "gcs", "az", "abfs", "abfss", "sftp", "ftp", "hf", "memory"})

# What fsspec needs for a protocol; it does not always say so itself.
_PACKAGES = {"http": "aiohttp", "https": "aiohttp", "s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "sftp": "paramiko"}
_PACKAGES |= {"az": "adlfs", "abfs": "adlfs", "abfss": "adlfs", "hf": "huggingface_hub"}


def allowed_hosts() -> frozenset[str]:
    """Return the hosts (or buckets) that ``DERMLAB_ALLOWED_HOSTS`` names, separated by commas."""
    return frozenset(host.strip().lower() for host in os.environ.get(ALLOWED_HOSTS, "").split(",") if host.strip())


def check_url(url: str, hosts: frozenset[str]) -> None:
    """Raise :class:`InputError` unless ``url`` has a known protocol and a host that the user allowed."""
    if "::" in url:
        raise InputError(f"{url!r}: chained addresses are not opened")
    parts = urlsplit(url)
    if parts.scheme.lower() not in _PROTOCOLS:
        raise InputError(
            f"{url!r}: protocol {parts.scheme!r} is not opened; a local file is a path relative to the folder"
        )
    host = (parts.hostname or "").lower()
    if host not in hosts:
        raise InputError(
            f"{url!r}: host {host!r} is not allowed; to allow it set {ALLOWED_HOSTS}={','.join([*sorted(hosts), host])}"
        )


def fetch(
    urls: Sequence[str],
    *,
    hosts: frozenset[str] | None = None,
    source: str | Path = "",
    rows: Sequence[int] | None = None,
) -> list[Path]:
    """Fetch every URL that is not in the cache folder yet and return the copies' paths, in order.

    A redirect is not followed: it could lead to a host that nobody allowed. What cannot be fetched is counted in one
    warning, and its path names a file that does not exist.

    Args:
        urls: addresses.
        hosts: allowed hosts or buckets; None takes ``DERMLAB_ALLOWED_HOSTS``.
        source: file that names the URLs, for error messages.
        rows: row of each URL in that file.

    Raises:
        InputError: where a URL's host is not allowed; nothing is fetched then.
    """
    hosts = allowed_hosts() if hosts is None else frozenset(host.lower() for host in hosts)
    for k, url in enumerate(urls):
        try:
            check_url(url, hosts)
        except InputError as error:
            raise InputError.at(source, str(error), row=None if rows is None else int(rows[k]), column="path") from None
    folder = cache_root() / "remote"
    paths = [folder / (hash_bytes(url.encode()) + PurePosixPath(urlsplit(url).path).suffix[:10]) for url in urls]
    wanted = {path: url for path, url in zip(paths, urls, strict=True) if not path.exists()}
    if not wanted:
        return paths
    failures: list[str] = []

    def get(item: tuple[Path, str]) -> None:
        path, url = item
        try:
            write_bytes(path, _read(url))
        except DermlabError:
            raise
        except Exception as error:
            failures.append(f"{url}: {first_line(error)}")

    with ThreadPoolExecutor(THREADS) as pool, progress("fetching images", len(wanted)) as advance:
        for _ in pool.map(get, wanted.items()):
            advance(1)
    if failures:
        warn(f"{len(failures):,} of {len(wanted):,} images could not be fetched; the first: {failures[0]}")
    return paths


def _read(url: str) -> bytes:
    import fsspec

    protocol = urlsplit(url).scheme.lower()
    try:
        options: dict[str, Any] = {}
        if protocol in ("http", "https"):
            options = {"allow_redirects": False, "client_kwargs": {"raise_for_status": _refuse_redirect}}
        with fsspec.filesystem(protocol, **options).open(url, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except ImportError as error:
        package = error.name or _PACKAGES.get(protocol, protocol)
        extra = "remote" if protocol in ("http", "https") else None
        raise MissingExtraError(f"opening {protocol}:// paths", package, extra) from None
    if len(data) > MAX_BYTES:
        raise ValueError(f"more than {MAX_BYTES >> 20} MB")
    return data


async def _refuse_redirect(response: Any) -> None:
    """Raise where an answer sends the caller elsewhere: its text would be kept as the photo."""
    if 300 <= response.status < 400:
        raise ValueError(f"HTTP {response.status}: the photo lies elsewhere; name that address in the manifest")
