"""Show, verify or prune the pixel and feature caches."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from dermlab.core import words
from dermlab.core.config import Config
from dermlab.core.errors import InputError

KINDS = ("pixels", "features")


class CacheConfig(Config):
    """Options of ``dermlab cache``."""

    verify: bool = Field(False, description="read every record against its checksum and drop what is damaged")
    prune: bool = Field(False, description="remove what --older-than or --max-size says")
    older_than: float | None = Field(None, ge=0, description="prune what was not used for this many days; 0 is all")
    max_size: float | None = Field(None, ge=0, description="prune the least recently used until this many GB are left")
    kind: Literal["all", "pixels", "features"] = Field("all", description="which caches")
    dry_run: bool = Field(False, description="only tell what --prune would remove")


@dataclass(frozen=True)
class StoreSummary:
    """One store: a recipe's pixels, or an encoder's features."""

    kind: str
    name: str
    folder: Path
    n_records: int
    n_failures: int
    n_shards: int
    size_bytes: int
    days_unused: float | None
    n_corrupt: int | None = None


@dataclass(frozen=True)
class CacheResult:
    """What lies in the cache, and what was removed."""

    root: Path
    stores: tuple[StoreSummary, ...]
    removed_bytes: int
    removed_shards: int
    dry_run: bool
    pruned: bool
    exit_status: int = 0

    def lines(self) -> list[str]:
        """Return what a person reads."""
        total = sum(store.size_bytes for store in self.stores)
        lines = [f"{self.root}: {bytes_text(total)} in {words.plural(len(self.stores), 'store')}"]
        width = max((len(store.name) for store in self.stores), default=0)
        for store in self.stores:
            used = "never used" if store.days_unused is None else _ago(store.days_unused)
            text = f"  {store.kind:<8}  {store.name:<{width}}  {words.plural(store.n_records, 'record'):>17}"
            text += f"  {bytes_text(store.size_bytes):>8}  {used}"
            if store.n_failures:
                text += f"  {store.n_failures:,} photos without an image"
            if store.n_corrupt is not None:
                damaged = f"{store.n_corrupt:,} damaged, dropped and made again when next asked for"
                text += f"  {damaged if store.n_corrupt else 'sound'}"
            lines.append(text)
        if self.pruned:
            verb = "would be removed" if self.dry_run else "removed"
            lines.append(f"{bytes_text(self.removed_bytes)} in {words.plural(self.removed_shards, 'shard')} {verb}")
        return lines

    def to_json(self) -> dict[str, Any]:
        """Return the same for ``--json``."""
        return asdict(self)


def run(config: CacheConfig) -> CacheResult:
    """Look at every store under the cache folder; prune and verify as asked."""
    from dermlab.core.folders import cache_root
    from dermlab.core.records import Pruned, prune, shard_files

    limited = config.older_than is not None or config.max_size is not None
    if config.prune and not limited:
        raise InputError("--prune needs --older-than DAYS or --max-size GB; --older-than 0 removes everything")
    if limited and not config.prune:
        raise InputError("--older-than and --max-size only say what --prune removes: add --prune")
    root = cache_root()
    kinds = KINDS if config.kind == "all" else (config.kind,)
    folders = [
        folder
        for kind in kinds
        if (root / kind).is_dir()
        for folder in sorted((root / kind).iterdir())
        if folder.is_dir() and shard_files(folder)
    ]
    pruned = Pruned(0, 0, 0)
    if config.prune:
        pruned = prune(
            folders,
            older_than_seconds=None if config.older_than is None else config.older_than * 86_400,
            max_bytes=None if config.max_size is None else int(config.max_size * 1e9),
            dry_run=config.dry_run,
        )
        folders = [folder for folder in folders if shard_files(folder)]
    tidy = (config.verify or config.prune) and not config.dry_run
    stores = tuple(_summary(folder, verify=config.verify, compact=tidy) for folder in folders)
    return CacheResult(
        root=root,
        stores=stores,
        removed_bytes=pruned.size_bytes,
        removed_shards=pruned.n_shards,
        dry_run=config.dry_run,
        pruned=config.prune,
        exit_status=int(any(store.n_corrupt for store in stores)),
    )


def _summary(folder: Path, *, verify: bool, compact: bool) -> StoreSummary:
    from dermlab.core.files import read_json
    from dermlab.core.records import META_FILE, RecordStore, shard_files

    with RecordStore(folder) as store:
        n_corrupt = store.verify().n_corrupt if verify else None
        if compact:
            store.compact()
        shards = shard_files(folder)
        last_used = max((shard.last_used for shard in shards), default=None)
        try:
            meta = read_json(folder / META_FILE)
        except InputError:
            meta = {}
        return StoreSummary(
            kind=folder.parent.name,
            name=_name(folder, meta if isinstance(meta, dict) else {}),
            folder=folder,
            n_records=len(store),
            n_failures=len(store.failures()),
            n_shards=len(shards),
            size_bytes=sum(shard.size_bytes for shard in shards),
            days_unused=None if last_used is None else max(0.0, (time.time() - last_used) / 86_400),
            n_corrupt=n_corrupt,
        )


def _name(folder: Path, meta: dict[str, Any]) -> str:
    recipe = meta.get("recipe")
    if isinstance(recipe, dict) and {"size_px", "fit"} <= recipe.keys():
        text = f"{recipe['size_px']} px {recipe['fit']}"
        if recipe.get("crop_fraction", 1) != 1:
            text += f" {recipe['crop_fraction']:.3g}"
        return f"{text}, {recipe.get('interpolation')}, {recipe.get('codec')}"
    encoder = meta.get("encoder", meta.get("name"))
    if isinstance(encoder, dict):
        encoder = encoder.get("name")
    return str(encoder or folder.name)


def _ago(days: float) -> str:
    if days < 1:
        return "used today"
    return f"used {words.plural(round(days), 'day')} ago"


def bytes_text(n: float) -> str:
    """Write a size for a person: ``1.2 GB``, thousands of bytes as disks count them."""
    for unit in ("B", "kB", "MB", "GB"):
        if n < 1000:
            return f"{n:.0f} {unit}" if unit == "B" or n >= 100 else f"{n:.1f} {unit}"
        n /= 1000
    return f"{n:,.1f} TB"
