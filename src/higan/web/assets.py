"""HTML, CSS and ES modules that come with a package: read once when the application is made, served from memory.

Nothing in an address ever becomes a path on the disk.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files

__all__ = ["Asset", "load_assets"]

_TYPES: Mapping[str, str] = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".json": "application/json",
    ".webmanifest": "application/manifest+json",
}


@dataclass(frozen=True, slots=True)
class Asset:
    """One file: its bytes, media type, and a tag by which browsers recognise that it has not changed."""

    content: bytes
    media_type: str
    etag: str


def load_assets(package: str) -> dict[str, Asset]:
    """The files of a package (its folder, not below) whose endings pages use, by name.

    Args:
        package: such as ``higan.studio.page``.
    """
    found = {}
    for entry in files(package).iterdir():
        media_type = _TYPES.get("." + entry.name.rpartition(".")[2])
        if media_type is not None and entry.is_file():
            content = entry.read_bytes()
            found[entry.name] = Asset(content, media_type, f'"{hashlib.sha256(content).hexdigest()[:16]}"')
    return found
