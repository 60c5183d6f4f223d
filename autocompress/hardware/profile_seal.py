"""The seal of a profile: one hash over everything its ``profile.toml`` says."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

SEAL = "seal"


def seal_of(value: Mapping[str, Any]) -> str:
    """SHA-256 of the parsed file without its seal.

    Comments and layout do not count; every key and value does, and with ``table.sha256`` every
    byte of the latency table. It shows accidents, not malice: who changes a file can seal it anew.

    Raises:
        TypeError: a value is none that JSON has, such as a date.
    """
    content = {key: item for key, item in value.items() if key != SEAL}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
