"""The built-in space `mobile_cnn` keeps the contract that every space keeps."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch

from autocompress.compression.registry import make_techniques
from autocompress.core.candidate import Candidate
from autocompress.elastic.corners import smallest
from autocompress.elastic.model import ElasticModel
from autocompress.elastic.registry import load_space
from autocompress.elastic.space import ElasticSpace
from autocompress.errors import RequestError
from autocompress.search_spaces.mobile_cnn import KERNELS, halvings
from autocompress.testing.spaces import SpaceContract
from tests.unit.networks import EVERYTHING, randomise


@functools.cache
def small() -> ElasticSpace:
    made = load_space(
        "mobile_cnn", input_shape=(3, 32, 32), num_classes=10,
        techniques=make_techniques(None), capabilities=EVERYTHING,
    )  # fmt: skip
    randomise(made.graph.module)
    return made


class TestMobileCNN(SpaceContract):
    samples = 2
    exports = 1
    knobs = 2

    @pytest.fixture
    def space(self) -> ElasticSpace:
        return small()


def _macs(space: ElasticSpace, candidate: Candidate) -> int:
    return sum(op.macs for op in space.graph.operations(candidate))


def test_its_choices() -> None:
    """A kernel and a branch for each of 21 blocks, a depth for each run of residual ones."""
    choices = {c.name: c.options for c in small().choices if c.kind == "architecture"}
    kernels = [options for name, options in choices.items() if name.startswith("kernel:")]
    assert kernels == [KERNELS] * 21
    branches = [options for name, options in choices.items() if name.startswith("branch:")]
    assert branches == [("squeeze", "none")] * 21
    depths = {n: o for n, o in choices.items() if n.startswith("depth:")}
    assert depths.pop("depth:entry") == (1, 0)
    assert depths == {f"depth:stages.{i}": (3, 2, 1, 0) for i in range(5)}


def test_without_excitation_its_layers_are_gone() -> None:
    space = small()
    full = space.decode(space.original)
    plain = Candidate(
        architecture={
            name: "none" if name.startswith("branch:") else value
            for name, value in full.architecture.items()
        }
    )
    layers = {op.layer for op in space.graph.operations(plain)}
    assert not any("excitation" in str(layer) for layer in layers)
    assert _macs(space, plain) < _macs(space, full)
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    elastic = ElasticModel(space.graph).eval()
    with torch.no_grad():
        first, second = elastic.configure(full)(x), elastic.configure(plain)(x)
    assert float((first - second).abs().max()) > 1e-3


def test_the_smallest_is_a_fiftieth_of_the_largest() -> None:
    space = small()
    assert _macs(space, smallest(space)) < _macs(space, space.decode(space.original)) / 50


@pytest.mark.parametrize(
    ("size", "times"), [(32, 3), (48, 3), (64, 4), (96, 4), (128, 5), (160, 5), (224, 5)]
)
def test_halvings_leave_four_pixels(size: int, times: int) -> None:
    assert halvings(size) == times
    assert size >> times >= 4


@pytest.mark.parametrize("shape", [(1, 33, 50), (3, 96, 96), (4, 224, 224)], ids=str)
def test_inputs_it_is_made_for(shape: tuple[int, int, int]) -> None:
    space = load_space(
        "mobile_cnn", input_shape=shape, num_classes=3, techniques=make_techniques(["pruning"])
    )
    ops = space.graph.operations(smallest(space))
    assert ops[0].shape == (1, *shape)
    assert ops[-1].shape == (1, 3)
    full = space.graph.operations(Candidate())
    (last,) = (op for op in full if op.layer == "head.0")
    assert min(last.shape[2:]) >= 4


@pytest.mark.parametrize("shape", [(64,), (3, 31, 32), (3, 224, 225), (3, 4, 4, 4)], ids=str)
def test_inputs_it_is_not_made_for(shape: Any) -> None:
    with pytest.raises(RequestError) as caught:
        load_space("mobile_cnn", input_shape=shape, num_classes=7)
    assert str(shape) in str(caught.value)
