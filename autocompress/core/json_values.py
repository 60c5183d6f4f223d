"""Values as JSON can hold them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any


def finite(value: Any) -> Any:
    """``value`` as plain JSON values: null for numbers that are not finite, text for the rest.

    Numbers of numpy and torch become Python's.
    """
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return [finite(item) for item in value]
    if hasattr(value, "tolist"):  # an array, a tensor or one of their numbers
        return finite(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value)
