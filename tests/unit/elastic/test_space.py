"""The space of a captured model: which genes, under which conditions, and both translations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from autocompress.compression.registry import make_techniques
from autocompress.core.candidate import DISTILLATIONS, Candidate, LayerPolicy, Recipe
from autocompress.core.capabilities import FP32, Capabilities
from autocompress.elastic.space import ElasticSpace
from autocompress.errors import RequestError
from tests.unit.networks import (
    EVERYTHING,
    SPACES,
    BasicBlock,
    Perceptron,
    ResNet,
    example,
    space,
)

SEEDS = st.integers(0, 2**32 - 1)
PROPERTY = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.mark.parametrize("name", SPACES)
@PROPERTY
@given(seed=SEEDS)
def test_encode_inverts_decode(name: str, seed: int) -> None:
    found = space(name)
    genome = np.random.default_rng(seed).integers(0, found.sizes)
    candidate = found.decode(genome)
    assert np.array_equal(found.encode(candidate), found.canonical(genome))
    assert found.decode(found.canonical(genome)) == candidate


@pytest.mark.parametrize("name", SPACES)
@PROPERTY
@given(seed=SEEDS)
def test_every_candidate_fits_its_model(name: str, seed: int) -> None:
    found = space(name)
    candidate = found.decode(found.sample(np.random.default_rng(seed)))
    ops = found.graph.operations(candidate)
    assert ops[-1].shape == (1, 10)
    named = {(op.layer or "").removesuffix(".0").removesuffix(".1") for op in ops}
    for layer in candidate.layers:
        group = found.graph.group_of.get(layer)
        assert layer in named or any(
            op.layer == layer or (op.layer or "").startswith(f"{layer}.") for op in ops
        ) or (group is not None and len(group.producers) > 1)  # fmt: skip


def test_the_original_is_the_model_itself() -> None:
    for name in SPACES:
        found = space(name)
        original = found.decode(found.original)
        assert all(p == LayerPolicy() for p in original.layers.values())
        depths = {c.name: c.options[0] for c in found.choices if c.name.startswith("depth:")}
        assert {k: v for k, v in original.architecture.items() if k in depths} == depths


def test_genes_of_a_residual_network() -> None:
    names = {c.name: c for c in space("resnet").choices}
    assert names["depth:layer1"].options == (3, 2, 1, 0)
    assert names["depth:layer2"].options == (2, 1, 0)
    assert names["width:conv1"].options == (8, 4)
    assert names["width:conv1"].condition is None
    assert names["width:layer1.1.conv1"].condition is not None
    assert names["precision:fc"].options[0] == "fp32"
    assert "width:fc" not in names
    assert all(c.condition is None for c in names.values() if c.name.endswith(":layer2.0.conv1"))


@pytest.mark.parametrize(
    ("gene", "parent", "values"),
    [
        ("precision:layer1.0.conv1", "depth:layer1", (3, 2, 1)),
        ("rank:layer1.2.conv2", "depth:layer1", (3,)),
        ("width:layer2.1.conv1", "depth:layer2", (2, 1)),
    ],
)
def test_conditions(gene: str, parent: str, values: tuple[int, ...]) -> None:
    choice = next(c for c in space("resnet").choices if c.name == gene)
    assert choice.condition is not None
    assert (choice.condition.name, choice.condition.values) == (parent, values)


def test_conditions_of_conditions() -> None:
    names = {c.name: c for c in space("tiny_cnn").choices}
    branch = names["branch:stages.1.2.body"]
    assert branch.condition is not None
    assert (branch.condition.name, branch.condition.values) == ("depth:stages.1", (2,))
    kernel = names["kernel:stages.1.2.body.branches.separable.0"]
    assert kernel.condition is not None
    assert kernel.condition.name == "branch:stages.1.2.body"
    assert kernel.condition.values == ("separable",)


def test_a_width_reaches_every_layer_of_its_group() -> None:
    found = space("resnet")
    genome = found.original
    at = [c.name for c in found.choices].index("width:conv1")
    genome[at] = 1
    layers = found.decode(genome).layers
    assert {n for n, p in layers.items() if p.width == 4} == set(
        found.graph.groups["conv1"].producers
    )


class Lonely(nn.Module):
    """One residual block and hardly anything else."""

    def __init__(self) -> None:
        super().__init__()
        self.block = BasicBlock(3, 3)
        self.fc = nn.Linear(3, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.fc(self.block(x).mean((2, 3)))
        return out


def test_the_last_block_of_a_small_model_stays() -> None:
    """Its layers have genes that are always active: there is no depth gene to ask."""
    found = ElasticSpace.from_model(Lonely(), (example(),), capabilities=EVERYTHING)
    assert not [c for c in found.choices if c.name.startswith("depth:")]
    rng = np.random.default_rng(0)
    for _ in range(5):
        genome = found.sample(rng)
        assert found.active(genome).all()
        assert np.array_equal(found.encode(found.decode(genome)), genome)


class Fixed(nn.Module):
    """A channel count in the code."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.fc = nn.Linear(8 * 64, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.second(F.relu(self.first(x))))
        out: torch.Tensor = self.fc(y.view(-1, 8 * 64))
        return out


def test_no_width_gene_where_narrowing_breaks_the_model() -> None:
    found = ElasticSpace.from_model(Fixed(), (example(),), capabilities=EVERYTHING)
    widths = [c.name for c in found.choices if c.name.startswith("width:")]
    assert widths == ["width:first"]
    assert any(s.name == "second" and "fewer channels" in s.reason for s in found.graph.skipped)


@pytest.mark.parametrize(
    ("candidate", "shown"),
    [
        (Candidate(architecture={"depth:layer1": 7}), r"'depth:layer1' is 7.*\(3, 2, 1, 0\)"),
        (Candidate(architecture={"depth:elsewhere": 1}), "no choice or layer 'depth:elsewhere'"),
        (Candidate(layers={"elsewhere": LayerPolicy()}), "no choice or layer 'elsewhere'"),
        (Candidate(layers={"fc": LayerPolicy(weight_bits=5)}), "no option of 'precision:fc'"),
        (Candidate(layers={"conv1": LayerPolicy(width=5)}), "no option of 'width:conv1'"),
    ],
    ids=["depth", "stage", "layer", "bits", "width"],
)
def test_what_belongs_to_no_space(candidate: Candidate, shown: str) -> None:
    with pytest.raises(RequestError, match=shown):
        space("resnet").encode(candidate)


def test_another_device_offers_other_genes() -> None:
    full = space("tiny_cnn")
    plain = full.specialised(
        make_techniques(["pruning", "quantization"]), Capabilities(precisions=(FP32,))
    )
    kinds = {c.name.partition(":")[0] for c in plain.choices}
    assert kinds == {"depth", "branch", "kernel", "width"}
    assert plain.name == full.name
    assert plain.graph is full.graph
    assert {c.name.partition(":")[0] for c in full.choices} == kinds | {
        "rank", "sparsity", "precision", "codebook"
    }  # fmt: skip


def test_what_is_held_stays_held_under_techniques_without_it() -> None:
    full = ElasticSpace.from_model(ResNet(widths=(4, 8)), (example(),), held=["width:*"])
    bits = full.specialised(make_techniques(["quantization"]), EVERYTHING, ["architecture"])
    assert bits.held == ("width:*", "architecture")
    assert {c.name.partition(":")[0] for c in bits.choices if len(c.options) > 1} == {"precision"}
    again = bits.specialised(full.techniques, full.capabilities)
    widths = [c for c in again.choices if c.name.startswith("width:")]
    assert widths
    assert all(len(c.options) == 1 for c in widths)
    with pytest.raises(RequestError, match=r"no choice is called 'rank:\*'"):
        full.specialised(make_techniques(["quantization"]), EVERYTHING, ["rank:*"])


def test_its_name() -> None:
    model = ResNet(widths=(4, 8))
    named: Any = ElasticSpace.from_model(model, (example(),), techniques=[])
    assert named.name == "ResNet"
    assert [c.kind for c in named.choices] == ["architecture"] * len(named.choices)


def test_build_is_a_plain_model() -> None:
    found = space("mobilenet")
    candidate = found.decode(found.sample(np.random.default_rng(8)))
    built = found.build(candidate)
    assert built(example(16)).shape == (2, 10)
    full = sum(p.numel() for p in found.graph.module.parameters())
    assert sum(p.numel() for p in built.parameters()) < full


def test_recipe_genes_are_offered_on_request_and_belong_to_no_layer() -> None:
    usual = space("resnet")
    assert not any(c.kind == "recipe" for c in usual.choices)
    named = usual.specialised(make_techniques(["pruning", "distillation"]), EVERYTHING)
    genes = {c.name: c for c in named.choices if c.kind == "recipe"}
    assert list(genes) == [
        "recipe:distillation", "recipe:distillation_weight", "recipe:temperature",
        "recipe:feature_weight",
    ]  # fmt: skip
    assert genes["recipe:distillation"].options == DISTILLATIONS
    assert genes["recipe:distillation"].condition is None
    assert named.decode(named.original).recipe == usual.decode(usual.original).recipe == Recipe()


@PROPERTY
@given(seed=SEEDS)
def test_recipes_are_encoded_and_decoded(seed: int) -> None:
    found = space("resnet").specialised(make_techniques(["pruning", "distillation"]), EVERYTHING)
    genome = found.sample(np.random.default_rng(seed))
    candidate = found.decode(genome)
    assert np.array_equal(found.encode(candidate), genome)
    for choice in found.choices:
        if choice.kind == "recipe":
            field = choice.name.removeprefix("recipe:")
            assert getattr(candidate.recipe, field) == found.value(genome, choice.name)
    plain = Candidate(candidate.architecture, candidate.layers)
    assert found.graph.operations(plain) == found.graph.operations(candidate)


def test_a_recipe_that_is_not_offered() -> None:
    found = space("resnet").specialised(make_techniques(["distillation"]), EVERYTHING)
    stranger = Candidate(recipe=Recipe(temperature=5.5))
    with pytest.raises(RequestError, match="no option of 'recipe:temperature' gives Recipe"):
        found.encode(stranger)


def test_kinds_are_offered_where_they_have_what_they_read() -> None:
    (image,) = (example(4)[:1],)
    flat = ElasticSpace.from_model(
        Perceptron(), (image,), techniques=make_techniques(["distillation"])
    )
    kinds = next(c.options for c in flat.choices if c.name == "recipe:distillation")
    assert set(DISTILLATIONS) - set(kinds) == {"attention"}
