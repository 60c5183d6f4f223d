"""Writes a profile: the texts of its two files, which their reader has accepted."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from autocompress.core.files import write_atomically
from autocompress.errors import ProfileError
from autocompress.hardware.profile import PROFILE_FILE, TABLE_FILE, HardwareProfile
from autocompress.hardware.profile_reading import SCHEMA_VERSION, parse_profile
from autocompress.hardware.profile_seal import SEAL, seal_of
from autocompress.hardware.profile_sections import SECTIONS


def profile_texts(profile: HardwareProfile) -> dict[str, bytes]:
    """The contents of ``profile.toml`` and ``latency.csv``, by file name.

    Raises:
        ProfileError: the profile holds what no reader would accept.
    """
    import tomli_w

    table = profile.table.to_csv().encode()
    value: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "id": profile.id,
        "description": profile.description,
        "kind": profile.kind,
    }
    for section in SECTIONS:
        written = section.write(getattr(profile, section.attribute))
        if written is not None:
            value[section.name] = written
    value["table"] = {"sha256": hashlib.sha256(table).hexdigest(), "rows": len(profile.table)}
    try:
        value[SEAL] = {"sha256": seal_of(value)}
        text = tomli_w.dumps(value).encode()
    except (TypeError, ValueError) as error:  # a value that TOML does not have, a lone surrogate
        raise ProfileError(f"the profile {profile.id!r} cannot be written: {error}") from error
    parse_profile(text, where=f"the {PROFILE_FILE} of {profile.id!r}", table=profile.table)
    return {TABLE_FILE: table, PROFILE_FILE: text}


def write_profile(profile: HardwareProfile, folder: Path) -> None:
    """Write a profile's files; ``profile.toml`` comes last and seals the other.

    Raises:
        ProfileError: the profile holds what no reader would accept; nothing is written then.
        StorageError: the folder cannot be written.
    """
    for name, content in profile_texts(profile).items():
        write_atomically(folder / name, content)
