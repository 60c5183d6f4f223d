"""What JSON cannot hold becomes what it can."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np

from autocompress.core.json_values import finite


def test_plain_values_stay() -> None:
    value = {"a": [1, 2.5, True, None, "x"], "b": {"c": []}}
    assert finite(value) == value


def test_the_rest_becomes_plain() -> None:
    value = {1: (math.nan, math.inf, np.float32(0.5), np.int64(3)), "p": Path("x"), "a": np.eye(2)}
    found = finite(value)
    assert found == {
        "1": [None, None, 0.5, 3],
        "p": "x",
        "a": [[1.0, 0.0], [0.0, 1.0]],
    }
    json.dumps(found, allow_nan=False)
