"""Kernel signatures: their text, what is left out of it, and what they count."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autocompress.errors import ProfileError
from autocompress.measurement.kernels import KernelSignature, TensorType
from autocompress.runtimes.base import KernelNode, TensorSpec

CONV = (
    "nchwc:Conv|f32[1,16,8,8];c:f32[32,16,3,3];c:f32[32]|f32[1,32,4,4]|"
    'activation="Relu";pads=[1,1,1,1];strides=[2,2]'
)

shapes = st.lists(st.integers(1, 512), max_size=4).map(tuple)
tensors = st.builds(
    TensorType,
    st.sampled_from(["float32", "uint8", "int8", "int32", "int64"]),
    shapes,
    st.booleans(),
    st.lists(st.integers(-9, 9), max_size=3).map(tuple),
)
names = st.from_regex(r"[A-Za-z]{1,8}", fullmatch=True)
values = st.one_of(
    st.integers(-9, 9), names, st.lists(st.integers(-9, 9), min_size=1, max_size=4).map(tuple)
)
signatures = st.builds(
    KernelSignature,
    st.sampled_from(["Conv", "nchwc:Conv", "ms:QLinearConv"]),
    st.lists(st.one_of(tensors, st.none()), min_size=1, max_size=4).map(tuple),
    st.lists(tensors, min_size=1, max_size=2).map(tuple),
    st.dictionaries(names, values, max_size=3).map(lambda d: tuple(sorted(d.items()))),
)


@given(signatures)
def test_the_key_says_everything(signature: KernelSignature) -> None:
    assert KernelSignature.parse(signature.key) == signature


@pytest.mark.parametrize(
    "key",
    [
        "",
        "Conv",
        "Conv|||",
        "Conv|f32[1]|f32[x]|",
        "|f32[1]|f32[1]|",
        "A|f32[1]|f32[1]|b=",
        "A|-|-|",
    ],
)
def test_what_is_no_key(key: str) -> None:
    with pytest.raises(ProfileError, match=r"signature|canonical"):
        KernelSignature.parse(key)


def test_counts() -> None:
    conv = KernelSignature.parse(CONV)
    assert conv.macs == 32 * 4 * 4 * 16 * 9
    assert conv.weight_bytes == 4 * (32 * 16 * 9 + 32)
    assert conv.activation_bytes == 4 * (16 * 64 + 32 * 16)
    assert conv.largest_activation_bytes == 4 * 16 * 64
    assert not conv.is_view


def test_linear_counts() -> None:
    key = "Gemm|f32[1,64];c:f32[10,64];c:f32[10]|f32[1,10]|transB=1"
    assert KernelSignature.parse(key).macs == 640


def test_families_ignore_sizes_only() -> None:
    small = KernelSignature.parse(CONV)
    large = KernelSignature.parse(CONV.replace("32", "64").replace("f64", "f32"))
    other = KernelSignature.parse(CONV.replace("3,3]", "1,1]"))
    assert small.family == large.family != other.family


def test_defaults_do_not_make_a_difference() -> None:
    x = TensorSpec("x", "float32", (1, 4, 4, 4))

    def node(**attributes: int | str | tuple[int, ...]) -> KernelNode:
        return KernelNode("", "Conv", (x, None), (x,), tuple(sorted(attributes.items())))

    plain = KernelSignature.of(node())
    assert plain == KernelSignature.of(
        node(group=1, auto_pad="NOTSET", dilations=(1, 1), pads=(0, 0, 0, 0), strides=(1, 1))
    )
    assert plain != KernelSignature.of(node(strides=(2, 2)))
    assert plain.inputs == plain.outputs


def test_views_move_nothing() -> None:
    assert KernelSignature.parse("Flatten|u8[1,4,1,1]|u8[1,4]|").is_view
