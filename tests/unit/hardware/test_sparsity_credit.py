"""Zeros cost less time where a profile says so, as much as it says, and nowhere else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from autocompress.compression.registry import make_techniques
from autocompress.core.capabilities import FP32, W8A8, Capabilities
from autocompress.core.space import Genome
from autocompress.elastic.space import ElasticSpace
from autocompress.errors import RequestError
from autocompress.graph.ops import LAYER_KINDS, Op
from autocompress.graph.precision import quantized_tensors
from autocompress.hardware.predictor import LatencyPredictor
from autocompress.hardware.pricing import CandidatePricer
from autocompress.hardware.profile import HardwareProfile, RuntimeSpec
from autocompress.hardware.profiles import load_profile
from autocompress.hardware.roofline import work_of
from autocompress.hardware.sparsity_credit import SparsityCredit, pattern_and_share
from tests.unit.hardware.helpers import profile, row

SUPPORTED = Capabilities(
    precisions=(FP32, W8A8),
    sparsity_patterns=("2:4", "1:4", "block:1x4"),
    sparsity_pays=True,
)
GAINS = replace(SUPPORTED, sparsity_speedup={"2:4": 1.6, "block:1x4@0.7": 2.0})
LOWERINGS = ["onnxruntime-cpu", "openvino-cpu", "plain"]


def space(capabilities: Capabilities = SUPPORTED) -> ElasticSpace:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(),
        nn.MaxPool2d(2), nn.Conv2d(32, 32, 1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 64),
        nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip
    techniques = make_techniques(["quantization", "sparsity"])
    return ElasticSpace.from_model(
        model, (torch.randn(1, 3, 8, 8),), techniques=techniques, capabilities=capabilities
    )


def board(lowering: str, capabilities: Capabilities) -> HardwareProfile:
    """With a row for every kernel of the space."""
    found = profile(runtime=RuntimeSpec(lowering=lowering), capabilities=capabilities)
    predictor, of = LatencyPredictor(found), space()
    rng = np.random.default_rng(0)
    kernels = {
        kernel.key: kernel
        for _ in range(40)
        for kernel in predictor.missing(of.graph.operations(of.decode(of.sample(rng))))
    }
    found.table.add([row(kernel) for kernel in kernels.values()])
    return found


def with_zeros(of: ElasticSpace, value: object) -> Genome:
    genome = of.original
    for i, choice in enumerate(of.choices):
        if choice.name.startswith("sparsity:") and value in choice.options:
            genome[i] = choice.options.index(value)
    return genome


def layer_us(predictor: LatencyPredictor, ops: tuple[Op, ...]) -> float:
    """Microseconds of the kernels that multiply by weights."""
    found = predictor.lower_by_op(ops, quantized_tensors(ops))
    return sum(predictor.price(k).hot_us for _, k in found if k.weight is not None)


@pytest.mark.parametrize("lowering", LOWERINGS)
@pytest.mark.parametrize(
    ("value", "factor"), [("2:4", 1.6), ("block:1x4@0.7", 2.0), ("1:4", 1.0), (0.7, 1.0)]
)
def test_a_measured_profile_credits_what_it_names(
    lowering: str, value: object, factor: float
) -> None:
    of = space()
    genome = with_zeros(of, value)
    ops = of.graph.operations(of.decode(genome))
    gains = LatencyPredictor(board(lowering, GAINS))
    none = LatencyPredictor(board(lowering, SUPPORTED))
    sparse = [op for op in ops if op.sparsity]
    assert {op.pattern for op in sparse} == {
        str(value).partition("@")[0] if isinstance(value, str) else "unstructured"
    }
    dense = [op for op in ops if op.kind in LAYER_KINDS and not op.sparsity]
    kernels = none.lower_by_op(ops, quantized_tensors(ops))
    kept = sum(
        none.price(k).hot_us
        for name, k in kernels
        if k.weight is not None and name in {op.name for op in dense}
    )
    before, after = layer_us(none, ops), layer_us(gains, ops)
    assert after == pytest.approx((before - kept) / factor + kept)
    if factor == 1.0:
        assert gains.estimate(ops).value == none.estimate(ops).value
    else:
        assert gains.estimate(ops).value < none.estimate(ops).value
        assert sum(gains.by_op(ops).values()) < sum(none.by_op(ops).values())
    original = of.graph.operations(of.decode(of.original))
    assert gains.estimate(original).value == none.estimate(original).value


@pytest.mark.parametrize("lowering", LOWERINGS)
@pytest.mark.parametrize("capabilities", [GAINS, SUPPORTED], ids=["gains", "does not"])
def test_vectorised_prices_are_the_exact_ones(lowering: str, capabilities: Capabilities) -> None:
    of = space()
    found = CandidatePricer(of, LatencyPredictor(board(lowering, capabilities)))
    rng = np.random.default_rng(1)
    genomes = np.stack([of.sample(rng) for _ in range(300)])
    columns = found.arrays(genomes)
    for i in range(0, len(genomes), 3):
        for name, value in found.exact(genomes[i]).items():
            assert columns[name][i] == pytest.approx(value, rel=1e-9, abs=1e-12), name
    plain = with_zeros(of, 0.0)
    times = found.arrays(np.stack([plain, with_zeros(of, "2:4"), with_zeros(of, "1:4")]))
    first, credited, other = times["latency_ms"]
    assert first == other
    assert (credited < first) == (capabilities is GAINS)


def test_without_credit_zeros_are_no_forms_of_their_own() -> None:
    of = space()
    genomes = np.stack([of.sample(np.random.default_rng(i)) for i in range(200)])
    counts = []
    for capabilities in (SUPPORTED, GAINS):
        found = CandidatePricer(of, LatencyPredictor(board("plain", capabilities)))
        found.arrays(genomes)
        counts.append(sum(len(slot.ops) for slot in found._slots.slots.values()))
    assert counts[0] < counts[1]


def test_kernels_to_measure_are_dense_ones() -> None:
    of = space()
    found = CandidatePricer(of, LatencyPredictor(profile(capabilities=GAINS)))
    genome = with_zeros(of, "2:4")
    assert all(kernel.speedup == 1.0 for kernel in found.kernels([genome]))
    assert found.kernels([genome]) == found.kernels([of.original])
    ops = of.graph.operations(of.decode(genome))
    assert all(kernel.speedup == 1.0 for kernel in found.predictor.missing(ops))


def test_a_data_sheet_credits_multiplications_and_no_memory() -> None:
    known = load_profile("raspberry_pi_4")
    assert known.roofline is not None
    of = space()
    ops = of.graph.operations(of.decode(with_zeros(of, "2:4")))
    predictor = LatencyPredictor(replace(known, capabilities=GAINS))
    seen = set()
    for _, kernel in predictor.lower_by_op(ops, quantized_tensors(ops)):
        if kernel.speedup == 1.0:
            continue
        dense, sparse = (
            known.roofline.price(k)[0] - known.roofline.kernel_us for k in (kernel.dense, kernel)
        )
        slow = replace(known.roofline, dram_bytes_per_s=1.0, caches=())
        assert slow.price(kernel) == slow.price(kernel.dense)  # it waits for memory
        assert dense / 1.6 - 1e-9 <= sparse <= dense
        seen.add(work_of(kernel) > 0)
    assert seen == {True}


@pytest.mark.parametrize(
    ("name", "expected"),
    [("2:4", ("2:4", 0.5)), ("block:1x4@0.70", ("block:1x4", 0.7)),
     ("unstructured@0.85", ("unstructured", 0.85))],
)  # fmt: skip
def test_keys(name: str, expected: tuple[str, float]) -> None:
    assert pattern_and_share(name) == expected


def test_a_share_is_that_of_the_key_however_it_is_written() -> None:
    op = Op("l", "linear", ("x",), (1, 4), sparsity=0.7, pattern="block:1x4")
    assert SparsityCredit({"block:1x4@0.70": 2.0}).factor(op) == 2.0
    assert SparsityCredit({"block:1x4@0.7": 2.0}).factor(replace(op, sparsity=0.5)) == 1.0


@pytest.mark.parametrize("name", ["4:2", "block:1x4", "unstructured", "2:4@0.5", "block:1x4@2"])
def test_keys_that_say_too_little_or_too_much(name: str) -> None:
    with pytest.raises(RequestError):
        pattern_and_share(name)
