"""Measurements hold a figure or an error."""

from __future__ import annotations

import json
import math

from autocompress.core.measurement import Estimate, Measurement


def test_a_failed_measurement_has_no_figure() -> None:
    failed = Measurement(error="the session could not be created")
    assert not failed.ok
    assert math.isnan(failed.value)
    assert math.isnan(failed.low)
    assert math.isnan(failed.high)


def test_json_holds_everything() -> None:
    measured = Measurement(
        1.5, "ms", 1.4, 1.7, runs=30, protocol={"warmup": 3}, environment={"threads": 1}
    )
    assert measured.ok
    value = json.loads(json.dumps(measured.to_json()))
    assert Measurement(**value) == measured


def test_an_estimate_is_measured_by_default() -> None:
    assert Estimate(1.0, 0.9, 1.1).coverage == 1.0
