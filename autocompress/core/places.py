"""Where autocompress keeps files of its own."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """The user's cache: ``$AUTOCOMPRESS_CACHE``, or ``autocompress`` in the user's cache folder.

    It may not exist yet; everything in it can be deleted at any time.
    """
    if chosen := os.environ.get("AUTOCOMPRESS_CACHE"):
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "autocompress"


def profiles_folder() -> Path:
    """Device profiles of the user's own: ``$AUTOCOMPRESS_PROFILES``, or the user's data folder.

    That is ``$XDG_DATA_HOME/autocompress/profiles``, by default below ``~/.local/share``. Unlike
    the cache it holds what cannot be made anew. It may not exist yet.
    """
    if chosen := os.environ.get("AUTOCOMPRESS_PROFILES"):
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_DATA_HOME")
    root = Path(base) if base else Path.home() / ".local" / "share"
    return root / "autocompress" / "profiles"
