"""Low rank of a trained ResNet-20 on real images: errors by form, and promised multiplications."""

from __future__ import annotations

import importlib.util
from itertools import islice
from math import prod
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from autocompress.compression.low_rank import LowRank
from autocompress.compression.low_rank.svd import output_basis
from autocompress.compression.low_rank.whitened import response_basis
from autocompress.compression.repair.moments import InputMoments, input_moments
from autocompress.core.candidate import Candidate, LayerPolicy
from autocompress.elastic.model import ElasticModel
from autocompress.elastic.observing import observe_inputs
from autocompress.elastic.realise import realise
from autocompress.evaluation.accuracy import evaluate_model
from autocompress.evaluation.data import Data
from autocompress.evaluation.task import Task
from autocompress.graph.inspect import inspect_model

pytestmark = [pytest.mark.shared_data, pytest.mark.slow]


@pytest.fixture(scope="module")
def data(shared_data: Path) -> Data:
    if not (shared_data / "cifar10").is_dir():
        pytest.skip(f"no CIFAR-10 in {shared_data}")
    return Data.load(f"cifar10:{shared_data / 'cifar10'}")


@pytest.fixture(scope="module")
def elastic(data: Data, shared_data: Path) -> ElasticModel:
    folder = shared_data.parent / "models"
    source, weights = folder / "resnet20.py", folder / "cifar10_resnet20.pt"
    if not (source.is_file() and weights.is_file()):
        pytest.skip(f"no trained ResNet-20 in {folder}")
    spec = importlib.util.spec_from_file_location("trained_resnet20", source)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = module.ResNet20()
    model.load_state_dict(torch.load(weights, weights_only=True))
    made = ElasticModel(
        inspect_model(model.eval(), (data.example(1)[0],)), [LowRank(["whitened", "tucker"])]
    ).eval()
    observe_inputs(made, Candidate(), (x for x, _ in data.calibration.batches(64)))
    return made


@pytest.fixture(scope="module")
def held(data: Data, elastic: ElasticModel) -> dict[str, InputMoments]:
    """Moments on test images, of which the factorisation has seen none."""
    model = realise(elastic, Candidate())
    batches = [x for x, _ in islice(data.test.batches(128), 3)]
    return input_moments(model, list(elastic.graph.layers), batches, dtype=torch.float32)


def test_whitened_beats_plain_at_every_rank_of_every_layer(
    elastic: ElasticModel, held: dict[str, InputMoments]
) -> None:
    elastic.configure(Candidate())
    for name in elastic.graph.layers:
        part = elastic.layers[name].sliced()
        assert part.inputs is not None
        weight = part.weight.detach().flatten(1).double()
        second = held[name].second[0].double()
        side = min(weight.shape)
        for rank in sorted({max(1, round(side * eighth / 8)) for eighth in range(1, 8)}):
            lost = []
            for basis in (
                output_basis(part.weight, rank),
                response_basis(part.weight, part.inputs(), rank),
            ):
                projector = torch.eye(len(weight)).double() - (basis @ basis.T).double()
                missing = projector @ weight
                lost.append(float(((missing @ second) * missing).sum()))
            assert lost[1] < lost[0], (name, rank)


@pytest.mark.parametrize("share", [0.5, 0.375])
def test_and_keeps_more_accuracy(elastic: ElasticModel, data: Data, share: float) -> None:
    test = data.test.subset(600, seed=0)
    found = {}
    for form in ("svd", "whitened"):
        layers = {
            name: LayerPolicy(rank=round(share * layer.out_channels), factorization=form)
            for name, layer in elastic.graph.layers.items()
            if layer.kind == "conv"
        }
        model = realise(elastic, Candidate(layers=layers))
        found[form] = evaluate_model(model, test, Task())
    assert found["whitened"] > found["svd"] + 0.05


def test_tucker_at_half_the_channels_realises_what_it_promises(elastic: ElasticModel) -> None:
    layers = {
        name: LayerPolicy(
            rank=layer.out_channels // 2,
            input_rank=layer.in_channels // 2,
            factorization="tucker",
        )
        for name, layer in elastic.graph.layers.items()
        if layer.kernel == (3, 3) and layer.in_channels >= 16
    }
    promised = 0
    for name, layer in elastic.graph.layers.items():
        if name not in layers:
            promised += layer.macs
            continue
        before, after = prod(layer.input_shape[2:]), prod(layer.output_shape[2:])
        out, into = layer.out_channels, layer.in_channels
        promised += before * into * into // 2 + after * (out // 2 * into // 2 * 9 + out * out // 2)
    candidate = Candidate(layers=layers)
    assert sum(op.macs for op in elastic.graph.operations(candidate)) == promised
    model = realise(elastic, candidate)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(elastic.graph.example_inputs[0])
    assert counter.get_total_flops() // 2 == promised
    assert promised < 0.4 * sum(layer.macs for layer in elastic.graph.layers.values())
