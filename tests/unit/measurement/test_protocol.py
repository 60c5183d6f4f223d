"""Timing protocols are values."""

from __future__ import annotations

import json
from typing import Any

import pytest

from autocompress.errors import RequestError
from autocompress.measurement.protocol import PRESETS, PUBLISH, SEARCH, TimingProtocol


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_round_trip(name: str) -> None:
    protocol = PRESETS[name]
    assert protocol.name == name
    assert TimingProtocol.from_json(json.loads(json.dumps(protocol.to_json()))) == protocol


def test_presets_keep_what_calm_figures_need() -> None:
    assert min(p.batch_us for p in PRESETS.values()) >= 150
    assert min(p.passes for p in PRESETS.values()) >= 3
    assert PUBLISH.min_seconds > SEARCH.min_seconds


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"clock": "sun"}, "clock is 'sun'"),
        ({"quantile": 1.5}, "quantile is 1.5"),
        ({"passes": 0}, "passes is 0"),
        ({"min_seconds": -1.0}, "min_seconds is -1.0"),
    ],
    ids=lambda value: str(value),
)
def test_nonsense_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        TimingProtocol("x", **wrong)


def test_unknown_keys_are_refused() -> None:
    with pytest.raises(RequestError, match="timing protocol"):
        TimingProtocol.from_json({"name": "x", "colour": 1})


def test_another_clock() -> None:
    assert SEARCH.with_clock("wall").clock == "wall"
