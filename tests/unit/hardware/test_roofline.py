"""Prices from peaks and bandwidths."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autocompress.errors import ProfileError
from autocompress.hardware.roofline import FAMILIES, Roofline, family_of, form_of, work_of
from autocompress.measurement.kernels import KernelSignature

CONV = "plain:Conv|f32[1,16,8,8];c:f32[32,16,3,3];c:f32[32]|f32[1,32,8,8]|pads=[1,1,1,1]"
INTEGER = "plain:Conv|u8[1,16,8,8];c:i8[32,16,1,1]|u8[1,32,8,8]|"
DEPTHWISE = "ms:QLinearConv|u8[1,16,8,8];c:i8[16,1,3,3]|u8[1,16,8,8]|group=16"
LINEAR = "plain:Gemm|f32[1,64];c:f32[10,64]|f32[1,10]|"
MATMUL = "plain:MatMul|f32[1,4,16];f32[1,16,8]|f32[1,4,8]|"
POOL = "plain:MaxPool|u8[1,16,8,8]|u8[1,16,4,4]|kernel_shape=[2,2];strides=[2,2]"
GLOBAL = "plain:GlobalAveragePool|f32[1,16,8,8]|f32[1,16]|"


def toml() -> dict[str, Any]:
    """Every figure a different one: 100 MMAC/s float, 400 int8, caches of 1 kB and 1 MB."""
    return {
        "macs_per_s": {"f32": 1e8, "i8": 4e8},
        "efficiency": dict(zip(FAMILIES, (0.5, 0.4, 0.1, 0.25, 0.01), strict=True)),
        "error": dict(zip(FAMILIES, (1.0, 1.1, 1.2, 1.3, 1.4), strict=True)),
        "dram_bytes_per_s": 1e6,
        "caches": [
            {"name": "L1", "size_bytes": 1_000, "bytes_per_s": 1e9},
            {"name": "L2", "size_bytes": 1_000_000, "bytes_per_s": 1e8},
        ],
        "weight_bytes_per_s": 0.0,
        "kernel_us": 2.0,
        "thread_share": 0.5,
    }


def kernel(key: str) -> KernelSignature:
    return KernelSignature.parse(key)


@pytest.mark.parametrize(
    ("key", "family", "form", "work"),
    [
        pytest.param(CONV, "conv3x3", "f32", 32 * 64 * 16 * 9, id="conv"),
        pytest.param(INTEGER, "conv1x1", "i8", 32 * 64 * 16, id="integer"),
        pytest.param(DEPTHWISE, "depthwise", "i8", 16 * 64 * 9, id="depthwise"),
        pytest.param(LINEAR, "linear", "f32", 640, id="linear"),
        pytest.param(MATMUL, "linear", "f32", 4 * 8 * 16, id="matmul"),
        pytest.param(POOL, "elementwise", "i8", 16 * 64, id="pool"),
        pytest.param(GLOBAL, "elementwise", "f32", 16 * 64, id="global-pool"),
    ],
)
def test_what_a_kernel_is(key: str, family: str, form: str, work: int) -> None:
    found = kernel(key)
    assert (family_of(found), form_of(found), work_of(found)) == (family, form, work)


def test_compute_bound() -> None:
    us, error = Roofline.from_toml(toml()).price(kernel(CONV))
    assert us == pytest.approx(2.0 + 1e6 * 294_912 / (1e8 * 0.5))
    assert error == 1.0


def test_memory_bound_by_the_smallest_memory_that_holds_it() -> None:
    value = toml() | {"macs_per_s": {"f32": 1e15}}
    moved = 4 * (64 + 10 + 640)  # 2,856 bytes: L2
    us, _ = Roofline.from_toml(value).price(kernel(LINEAR))
    assert us == pytest.approx(2.0 + 1e6 * moved / 1e8)
    value["caches"] = value["caches"][:1]
    us, _ = Roofline.from_toml(value).price(kernel(LINEAR))
    assert us == pytest.approx(2.0 + 1e6 * moved / 1e6)
    value["weight_bytes_per_s"] = 2e6
    us, _ = Roofline.from_toml(value).price(kernel(LINEAR))
    assert us == pytest.approx(2.0 + 1e6 * (4 * 74 / 1e6 + 4 * 640 / 2e6))


def test_threads_share_the_work() -> None:
    roofline = Roofline.from_toml(toml())
    one, two = (roofline.price(kernel(CONV), threads=n)[0] - 2.0 for n in (1, 2))
    assert one / two == pytest.approx(1.5)


def test_a_form_without_a_peak_is_computed_as_float() -> None:
    value = toml() | {"macs_per_s": {"f32": 1e8}}
    us, _ = Roofline.from_toml(value).price(kernel(INTEGER))
    assert us == pytest.approx(2.0 + 1e6 * 32_768 / (1e8 * 0.4))


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 40), st.sampled_from(["f32", "i8"]))
def test_more_channels_are_never_cheaper(inputs: int, outputs: int, size: int, form: str) -> None:
    roofline = Roofline.from_toml(toml())
    data = "u8" if form == "i8" else form

    def price(i: int, o: int) -> float:
        tensors = f"{data}[1,{i},{size},{size}];c:{form}[{o},{i},1,1]|{data}[1,{o},{size},{size}]"
        return roofline.price(kernel(f"plain:Conv|{tensors}|"))[0]

    assert price(inputs + 1, outputs) >= price(inputs, outputs)
    assert price(inputs, outputs + 1) >= price(inputs, outputs)


def test_to_toml_is_the_inverse() -> None:
    roofline = Roofline.from_toml(toml())
    assert roofline.to_toml() == toml()
    assert Roofline.from_toml(roofline.to_toml()) == roofline


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        pytest.param(["speed"], 1.0, r"\[roofline\] has 'speed'.*it may have caches", id="unknown"),
        pytest.param(["dram_bytes_per_s"], 0, "dram_bytes_per_s is 0; .* above 0", id="zero"),
        pytest.param(["dram_bytes_per_s"], "1 GB", "is '1 GB'; .* number", id="text"),
        pytest.param(["kernel_us"], -1.0, "kernel_us is -1.0", id="negative"),
        pytest.param(["kernel_us"], float("nan"), "kernel_us is nan", id="nan"),
        pytest.param(["kernel_us"], True, "kernel_us is True", id="bool"),
        pytest.param(
            ["efficiency", "linear"], 1.5, "linear is 1.5; .* at most 1", id="beyond-peak"
        ),
        pytest.param(["efficiency", "linear"], None, "lacks 'linear'", id="missing-family"),
        pytest.param(["macs_per_s", "f64"], 1.0, r"macs_per_s\] has 'f64'", id="unknown-form"),
        pytest.param(["error"], 1.0, r"\[roofline.error\] is 1.0; it must be a table", id="table"),
        pytest.param(["caches", 0, "size_bytes"], 2_000_000, "must grow in size", id="order"),
        pytest.param(["caches", 0, "bytes_per_s"], 1e7, "must not grow in speed", id="speed"),
        pytest.param(["caches", 1, "size_bytes"], 1.5, "a whole number", id="fraction"),
        pytest.param(["caches"], {}, "a list of tables", id="list"),
    ],
)
def test_refused(path: list[Any], value: Any, message: str) -> None:
    wrong = copy.deepcopy(toml())
    place: Any = wrong
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(ProfileError, match=message):
        Roofline.from_toml(wrong)
