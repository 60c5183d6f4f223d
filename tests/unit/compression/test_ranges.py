"""Methods that choose a range: what each keeps and what it leaves out."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autocompress.compression.activation_quantizer import ActivationQuantizer
from autocompress.compression.ranges.base import Range
from autocompress.compression.ranges.registry import RANGE_METHODS, range_method
from autocompress.errors import RequestError


def chosen(name: str, values: torch.Tensor) -> Range:
    ordered = values.double().flatten().sort().values
    low, high = min(0.0, float(ordered[0])), max(0.0, float(ordered[-1]))
    return range_method(name).choose(ordered, low, high)


def squared_error(values: torch.Tensor, found: Range) -> float:
    quantizer = ActivationQuantizer()
    quantizer.set_range(found.low, found.high)
    return float((quantizer(values.float()) - values).pow(2).mean())


@pytest.mark.parametrize("name", RANGE_METHODS)
@given(values=st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=50))
@settings(max_examples=60, deadline=None)
def test_a_range_holds_zero_and_nothing_that_was_not_seen(name: str, values: list[float]) -> None:
    found = chosen(name, torch.tensor(values, dtype=torch.float64))
    assert min(0.0, *values) <= found.low <= 0.0 <= found.high <= max(0.0, *values)


@pytest.mark.parametrize("name", RANGE_METHODS)
def test_no_method_clips_what_is_spread_evenly(name: str) -> None:
    found = chosen(name, torch.linspace(-2.0, 3.0, 50_001))
    assert found.high == pytest.approx(3.0, rel=0.05)
    assert found.low == pytest.approx(-2.0, rel=0.05)


@pytest.mark.parametrize("name", ["percentile", "mse", "entropy"])
def test_an_outlier_is_left_out(name: str) -> None:
    torch.manual_seed(0)
    values = torch.randn(100_000)
    values[3] = 60.0
    found = chosen(name, values)
    assert found.high < 30.0
    assert squared_error(values[values < 60], found) < 0.3 * squared_error(
        values[values < 60], chosen("minmax", values)
    )


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("one_sided", [False, True])
def test_mse_has_the_least_error_of_all(seed: int, one_sided: bool) -> None:
    torch.manual_seed(seed)
    values = torch.randn(8192).pow(3)
    values = torch.relu(values) if one_sided else values
    errors = {name: squared_error(values, chosen(name, values)) for name in RANGE_METHODS}
    assert errors["mse"] <= 1.01 * min(errors.values())


def test_entropy_of_a_relu_looks_at_what_is_not_zero() -> None:
    torch.manual_seed(0)
    found = chosen("entropy", torch.relu(torch.randn(100_000) - 1.0))
    assert found.high > 1.5  # most values are zero, and say nothing about the others


def test_an_unknown_method() -> None:
    with pytest.raises(RequestError, match="'best'; use one of percentile, minmax, mse, entropy"):
        range_method("best")
