"""Vectorised prices are the exact ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from autocompress.compression.registry import make_techniques
from autocompress.core.space import Genome
from autocompress.elastic.drawing import draw
from autocompress.elastic.registry import load_space
from autocompress.elastic.space import ElasticSpace
from autocompress.hardware.predictor import LatencyPredictor
from autocompress.hardware.pricing import CandidatePricer
from autocompress.hardware.profile import RuntimeSpec
from autocompress.hardware.profiles import load_profile
from autocompress.hardware.table import LatencyRow
from autocompress.measurement.kernels import KernelSignature
from tests.unit.hardware.helpers import TinySpace, profile, row, table_kernels

SPACE = TinySpace()
ROWS = [row(k) for k in table_kernels(6)]


def pricer() -> CandidatePricer:
    return CandidatePricer(SPACE, LatencyPredictor(profile(ROWS)), operations=SPACE.operations)


def test_every_metric_of_many_genomes() -> None:
    found = pricer()
    genomes = SPACE.random(600)
    columns = found.arrays(genomes)
    for i in range(0, len(genomes), 3):
        for name, value in found.exact(genomes[i]).items():
            assert columns[name][i] == pytest.approx(value, rel=1e-9, abs=1e-12), name


@pytest.mark.parametrize("lowering", ["plain", "openvino-cpu"])
def test_kernels_of_other_runtimes(lowering: str) -> None:
    board = profile(runtime=RuntimeSpec(lowering=lowering))
    found = CandidatePricer(SPACE, LatencyPredictor(board), operations=SPACE.operations)
    genomes = SPACE.random(200, seed=4)
    columns = found.arrays(genomes)
    for i in range(0, len(genomes), 4):
        for name, value in found.exact(genomes[i]).items():
            assert columns[name][i] == pytest.approx(value, rel=1e-9, abs=1e-12), name


def test_what_was_learnt_answers_for_new_genomes() -> None:
    found = pricer()
    found.arrays(SPACE.random(1500))
    before = found.lowerings
    genomes = SPACE.random(300, seed=9)
    columns = found.arrays(genomes)
    assert found.lowerings - before < 60
    for i, genome in enumerate(genomes):
        assert columns["latency_ms"][i] == pytest.approx(found.exact(genome)["latency_ms"])


def test_rows_are_dictionaries() -> None:
    found = pricer()
    genomes = list(SPACE.random(5))
    rows = found(genomes)
    assert len(rows) == 5
    assert rows[0] == pytest.approx(found.exact(genomes[0]))
    assert {"latency_ms", "size_bytes", "peak_memory_bytes", "macs", "parameters"} <= set(rows[0])
    assert found([]) == []


def test_prices_follow_the_table() -> None:
    predictor = LatencyPredictor(profile())
    found = CandidatePricer(SPACE, predictor, operations=SPACE.operations)
    genome = SPACE.original[None]
    before = found.arrays(genome)
    kernels = [k for k in found.kernels([SPACE.original]) if not k.is_view]
    predictor.profile.table.add([slow(k) for k in kernels])
    predictor._prices.clear()
    found.refresh()
    after = found.arrays(genome)
    assert after["latency_coverage"][0] == 1.0 > before["latency_coverage"][0]
    assert after["latency_ms"][0] > before["latency_ms"][0]


def slow(kernel: KernelSignature) -> LatencyRow:
    return LatencyRow(kernel, 1e3, 1e3, 1e3, 1e3, 1, "2026-01-01", "test")


def test_each_gene_moves_what_it_should() -> None:
    found = pricer()
    original = SPACE.original
    base = found([original])[0]

    def changed(**options: int) -> dict[str, float]:
        genome: Genome = original.copy()
        for i, choice in enumerate(SPACE.choices):
            genome[i] = options.get(choice.name.replace(":", "_"), genome[i])
        return found([genome])[0]

    narrow = changed(width_0=1)
    assert narrow["macs"] < base["macs"]
    assert narrow["parameters"] < base["parameters"]
    assert narrow["latency_ms"] < base["latency_ms"]
    assert changed(skip=1)["latency_ms"] < base["latency_ms"]
    assert changed(rank=2)["parameters"] < base["parameters"]
    eight, four = changed(bits_4=1), changed(bits_4=2)
    assert four["size_bytes"] < eight["size_bytes"] < base["size_bytes"]
    assert eight["latency_ms"] == four["latency_ms"] != base["latency_ms"]


def test_the_product_space_without_being_told_how() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 64, 10),
    )
    space = ElasticSpace.from_model(model, (torch.randn(1, 1, 8, 8),))
    found = CandidatePricer(space, LatencyPredictor(profile(ROWS)))
    rng = np.random.default_rng(1)
    genomes = np.stack([space.sample(rng) for _ in range(60)])
    columns = found.arrays(genomes)
    for i in range(0, 60, 6):
        for name, value in found.exact(genomes[i]).items():
            assert columns[name][i] == pytest.approx(value, rel=1e-9, abs=1e-12), name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "data", "held"),
    [
        ("resnet", {"input_shape": (3, 32, 32)}, ["*:stages.[12].*"]),
        ("mobile_cnn", {"input_shape": (3, 32, 32)}, ["*:stages.[1-4].*", "kernel:*", "width:*"]),
        ("vit", {"input_shape": (3, 16, 16)}, []),
        ("text_encoder", {"input_shape": (16,), "vocabulary": 100}, []),
        ("tiny_cnn", {"input_shape": (1, 8, 8)}, []),
    ],
)
def test_every_named_space(name: str, data: dict[str, Any], held: list[str]) -> None:
    """Resizing and low rank both put operations before a layer that are not always there."""
    board = load_profile("amd_epyc_zen5_avx512")
    techniques = make_techniques(["pruning", "low_rank", "quantization"])
    space = load_space(
        name, num_classes=10, techniques=techniques, capabilities=board.capabilities, held=held,
        **data,
    )  # fmt: skip
    found = CandidatePricer(space, LatencyPredictor(board))
    rng = np.random.default_rng(0)
    genomes = [draw(space, rng) for _ in range(60)] + [space.sample(rng) for _ in range(60)]
    for genome, priced in zip(genomes, found(genomes), strict=True):
        assert priced == pytest.approx(found.exact(genome), rel=1e-9, abs=1e-12)


def test_a_few_at_a_time_of_a_space_with_depths_and_branches() -> None:
    """What a small batch has in common must not be mistaken for what the space fixes."""
    space = load_space("tiny_cnn", input_shape=(1, 8, 8), num_classes=10)
    found = CandidatePricer(space, LatencyPredictor(profile()))
    rng = np.random.default_rng(0)
    for count in (1, 2, 3, 5) * 4:
        genomes = [space.sample(rng) for _ in range(count)]
        for genome, priced in zip(genomes, found(genomes), strict=True):
            assert priced == pytest.approx(found.exact(genome), rel=1e-9)
