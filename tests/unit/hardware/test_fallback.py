"""Estimates of kernels that were never measured."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from autocompress.hardware.fallback import BLIND_ERROR, KIND_ERROR, Fallback
from autocompress.measurement.kernels import KernelSignature
from tests.unit.hardware.helpers import formula_us, row, table_kernels

KERNELS = table_kernels(16)


def test_unseen_shapes_of_a_known_family_are_close() -> None:
    order = np.random.default_rng(0).permutation(len(KERNELS))
    unseen = [KERNELS[i] for i in order[:40]]
    fallback = Fallback(row(KERNELS[i]) for i in order[40:])
    errors = [abs(fallback.guess(k).hot_us / formula_us(k) - 1) for k in unseen]
    assert np.median(errors) < 0.1


def test_the_less_is_known_the_wider() -> None:
    known = KERNELS[0]
    alike = [row(k) for k in KERNELS if k.family == known.family]
    within = Fallback(alike).guess(known) if len(alike) >= 6 else None
    blind = Fallback([]).guess(known)
    assert blind.error == BLIND_ERROR
    assert blind.hot_us > 0
    if within is not None:
        assert KIND_ERROR <= within.error < blind.error


@pytest.mark.parametrize("key", ["Nope|f32[1]|f32[1]|", "Add|f32[1];f32[1]|f32[1]|"])
def test_it_always_answers(key: str) -> None:
    guess = Fallback([row(k) for k in KERNELS]).guess(KernelSignature.parse(key))
    assert guess.hot_us > 0
    assert guess.ctx_us > 0
    assert 0 < guess.error <= BLIND_ERROR


def test_an_unknown_operator_is_priced_by_what_the_device_reaches_with_others() -> None:
    rows = [row(k) for k in KERNELS]
    product = KernelSignature.parse("MatMul|f32[1,64,192];c:f32[192,192]|f32[1,64,192]|")
    fast = [replace(one, hot_us=one.hot_us / 10, ctx_us=one.ctx_us / 10) for one in rows]
    assert Fallback(fast).guess(product).hot_us < Fallback(rows).guess(product).hot_us
    assert Fallback(rows).guess(product).hot_us <= Fallback([]).guess(product).hot_us
    heads = KernelSignature.parse("MatMul|f32[1,6,64,32];f32[1,6,32,64]|f32[1,6,64,64]|")
    fewer = KernelSignature.parse("MatMul|f32[1,3,64,32];f32[1,3,32,64]|f32[1,3,64,64]|")
    assert Fallback(rows).guess(fewer).hot_us < Fallback(rows).guess(heads).hot_us
