"""Packed sizes that are estimated from shared weights, against files that really were packed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from autocompress.core.capabilities import Capabilities, with_storage_forms
from autocompress.core.space import Genome
from autocompress.elastic.model import ElasticModel
from autocompress.elastic.packed_size import PackedSizes
from autocompress.elastic.registry import load_space
from autocompress.elastic.space import ElasticSpace
from autocompress.evaluation.data import Data
from autocompress.evaluation.evaluator import CandidateEvaluator, Effort
from autocompress.evaluation.task import Task
from autocompress.export.onnx_export import export_onnx
from autocompress.export.packing.container import pack
from autocompress.hardware import CandidatePricer, LatencyPredictor, load_profile

DEVICE = Capabilities(
    precisions=with_storage_forms(Capabilities().precisions), channel_step=8, rank_step=8,
    stores_packed=True,
)  # fmt: skip


@pytest.fixture(scope="module")
def data() -> Data:
    return Data.load("digits")


@pytest.fixture(scope="module")
def space(data: Data) -> ElasticSpace:
    return load_space(
        "tiny_cnn", input_shape=data.input_shape, num_classes=10, capabilities=DEVICE, seed=0
    )


@pytest.fixture(scope="module")
def elastic(space: ElasticSpace) -> ElasticModel:
    torch.manual_seed(0)
    return ElasticModel(space.graph, space.techniques)


def test_near_what_is_packed(
    space: ElasticSpace, elastic: ElasticModel, data: Data, tmp_path: Path
) -> None:
    evaluator = CandidateEvaluator(elastic, data, Task(), effort=Effort(), statistics=64)
    sizes, rng, pairs = PackedSizes(elastic), np.random.default_rng(0), []
    for genome in (space.original, *(space.sample(rng) for _ in range(3))):
        candidate = space.decode(genome)
        prepared = evaluator.prepare(candidate, steps=0, seed=0)
        export_onnx(prepared.model, prepared.ops, (data.example()[0],), tmp_path / "m.onnx")
        packed = pack(tmp_path / "m.onnx", tmp_path / "m.acz").stat().st_size
        ops = space.graph.operations(candidate)
        pairs.append((packed, sizes(None) + sum(sizes(op) for op in ops)))
    real, expected = np.array(pairs).T
    assert np.abs(expected / real - 1).max() < 0.2
    assert (np.argsort(real) == np.argsort(expected)).all()


def test_smaller_forms_take_fewer_bytes(space: ElasticSpace, elastic: ElasticModel) -> None:
    sizes = PackedSizes(elastic)
    taken = []
    for bits, activations in ((32, 32), (8, 8), (6, 8), (4, 8), (3, 8), (2, 8)):
        genome: Genome = space.original.copy()
        for i, choice in enumerate(space.choices):
            names = [str(option) for option in choice.options]
            wanted = "fp32" if bits == 32 else f"w{bits}a{activations}"
            if choice.name.startswith("precision:") and wanted in names:
                genome[i] = names.index(wanted)
        taken.append(sum(sizes(op) for op in space.graph.operations(space.decode(genome))))
    assert taken == sorted(taken, reverse=True)
    assert taken[0] > 3 * taken[1] > 3 * taken[-1]


def test_priced_alike_one_by_one_and_many_at_once(
    space: ElasticSpace, elastic: ElasticModel
) -> None:
    predictor = LatencyPredictor(load_profile("amd_epyc_zen5_avx512"))
    pricer = CandidatePricer(space, predictor, packed=PackedSizes(elastic))
    rng = np.random.default_rng(1)
    genomes = [space.sample(rng) for _ in range(12)]
    many = pricer.arrays(np.stack(genomes))["packed_bytes"]
    assert many == pytest.approx([pricer.exact(genome)["packed_bytes"] for genome in genomes])
    assert "packed_bytes" not in CandidatePricer(space, predictor).exact(genomes[0])


def test_storage_forms_follow_what_the_device_computes() -> None:
    names = [p.name for p in with_storage_forms(Capabilities().precisions)]
    assert names[-3:] == ["w6a8", "w5a8", "w3a8"]
    again = with_storage_forms(with_storage_forms(Capabilities().precisions))
    assert [p.name for p in again] == names
    floats = Capabilities().precisions[:1]
    assert with_storage_forms(floats) == floats
