"""Each form of factorisation: as near as it can be, in the shapes that are priced."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from autocompress.compression.low_rank import LowRank
from autocompress.compression.low_rank.registry import FORMS
from autocompress.compression.low_rank.svd import output_basis
from autocompress.compression.low_rank.tucker import channel_bases
from autocompress.compression.parts import Part
from autocompress.core.candidate import FACTORIZATIONS, LayerPolicy
from autocompress.errors import RequestError
from autocompress.graph.factors import LayerShape, entering, factors, macs
from autocompress.graph.layers import pair
from autocompress.graph.model_graph import Layer

CONVS = {
    "padded": nn.Conv2d(12, 16, 3, padding=1),
    "strided": nn.Conv2d(12, 16, 3, stride=2, padding=1),
    "strides that differ": nn.Conv2d(12, 16, (3, 5), stride=(2, 1), padding=(0, 2)),
    "dilated": nn.Conv2d(12, 16, 3, padding=2, dilation=2, bias=False),
    "wide": nn.Conv2d(12, 16, 5, padding=1),
    "pointwise": nn.Conv2d(12, 16, 1, stride=2),
    "linear": nn.Linear(12, 16),
}


def weight_of(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def layer_of(module: nn.Conv2d | nn.Linear, x: torch.Tensor | None = None) -> Layer:
    if isinstance(module, nn.Linear):
        return Layer(
            "layer", "linear", module.in_features, module.out_features, (), (), 1, 0, 0, ()
        )  # fmt: skip
    shape = () if x is None else (1, *x.shape[1:])
    return Layer(
        "layer", "conv", module.in_channels, module.out_channels, pair(module.kernel_size),
        pair(module.stride), module.groups, 0, 0, (), input_shape=shape,
    )  # fmt: skip


def part_of(module: nn.Conv2d | nn.Linear) -> Part:
    shape = LayerShape.of(module)
    bias = None if module.bias is None else module.bias.detach()
    return Part(
        "linear" if isinstance(module, nn.Linear) else "conv", module.weight.detach(), bias,
        shape.stride, shape.padding, shape.dilation, shape.groups,
    )  # fmt: skip


def run(parts: list[Part], x: torch.Tensor) -> torch.Tensor:
    for part in parts:
        x = part(x)
    return x


def product(parts: list[Part], weight: torch.Tensor) -> torch.Tensor:
    """The one weight that the parts multiply out to: their answer to every unit impulse."""
    units = torch.eye(weight[0].numel()).reshape(-1, *weight.shape[1:])
    answers = run([Part(p.kind, p.weight, groups=p.groups) for p in parts], units)
    return answers.flatten(1).T.reshape(weight.shape)


def planted(form: str, rank: int) -> torch.Tensor:
    """A weight ``(16, 12, 3, 3)`` of exactly this rank."""
    if form == "tucker":
        core = weight_of(rank, rank, 3, 3)
        return torch.einsum("pjhw,op,ij->oihw", core, weight_of(16, rank), weight_of(12, rank))
    if form == "cp":
        places = weight_of(3, 3, rank, seed=1)
        return torch.einsum("or,ir,hwr->oihw", weight_of(16, rank), weight_of(12, rank), places)
    if form == "spatial":
        return torch.einsum("rih,orw->oihw", weight_of(rank, 12, 3), weight_of(16, rank, 3))
    return torch.einsum("or,rihw->oihw", weight_of(16, rank), weight_of(rank, 12, 3, 3))


def test_every_form_has_a_policy() -> None:
    assert tuple(FORMS) == FACTORIZATIONS


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("conv", CONVS.values(), ids=CONVS)
def test_stride_padding_dilation_and_bias(form: str, conv: nn.Conv2d | nn.Linear) -> None:
    """The parts in a row are the layer with the weight that they multiply out to."""
    x = weight_of(2, 12) if isinstance(conv, nn.Linear) else weight_of(2, 12, 11, 11)
    layer, part = layer_of(conv, x), part_of(conv)
    policy = LayerPolicy(rank=4, factorization=form)
    if min(LayerShape.of(conv).kernel) == 1 and form in ("tucker", "cp", "spatial"):
        with pytest.raises(RequestError, match="needs a larger kernel; use 'svd' or 'whitened'"):
            LowRank().simulate(layer, policy, [part])
        return
    parts = LowRank().realise(layer, policy, [part])
    shapes = factors(layer, LayerShape.of(conv), policy)
    assert shapes is not None
    assert [tuple(p.weight.shape) for p in parts] == [s.weight for s in shapes]
    assert [p.bias for p in parts[:-1]] == [None] * (len(parts) - 1)
    assert parts[-1].bias is part.bias
    expected = part.with_weight(product(parts, part.weight))(x)
    assert run(parts, x).shape == part(x).shape
    assert torch.allclose(run(parts, x), expected, atol=1e-4)
    if not isinstance(conv, nn.Linear):
        done, positions = 0, x[:1]
        for p in parts:
            positions = p(positions)
            done += p.weight.numel() * positions.shape[-1] * positions.shape[-2]
        assert macs(shapes, entering(layer, LayerShape.of(conv))) == done


@pytest.mark.parametrize("form", FORMS)
def test_a_layer_of_low_rank_loses_nothing(form: str) -> None:
    conv = nn.Conv2d(12, 16, 3, padding=1)
    with torch.no_grad():
        conv.weight.copy_(planted(form, 3))
    policy = LayerPolicy(rank=4 if form == "cp" else 3, factorization=form)
    parts = LowRank().realise(layer_of(conv), policy, [part_of(conv)])
    weight = conv.weight.detach()
    error = (product(parts, weight) - weight).norm() / weight.norm()
    assert float(error) < (0.02 if form == "cp" else 1e-5)


@pytest.mark.parametrize("shape", [(12, 20), (20, 12), (16, 6, 3, 3), (8, 4, 1, 1)], ids=str)
@pytest.mark.parametrize("rank", [1, 3])
def test_plain_svd_leaves_the_tail_of_the_singular_values(
    shape: tuple[int, ...], rank: int
) -> None:
    """Eckart and Young 1936: no matrix of this rank is nearer."""
    weight = weight_of(*shape).flatten(1)
    basis = output_basis(weight, rank)
    error = torch.linalg.norm(basis @ basis.T @ weight - weight)
    tail = torch.linalg.svdvals(weight.double())[rank:]
    assert float(error) == pytest.approx(float(tail.pow(2).sum().sqrt()), rel=1e-4, abs=1e-5)


def test_refinement_improves_on_the_unfoldings_own_bases() -> None:
    weight = weight_of(24, 20, 3, 3)
    whole = weight.flatten(2)
    first = [torch.linalg.svd(weight.transpose(0, axis).flatten(1))[0][:, :6] for axis in (0, 1)]

    def kept(out: torch.Tensor, into: torch.Tensor) -> float:
        return float(torch.einsum("ois,op,ij->pjs", whole, out, into).pow(2).sum())

    assert kept(*channel_bases(weight, (6, 6))) > 1.01 * kept(first[0], first[1])


def test_tucker_at_half_the_channels_needs_what_it_promises() -> None:
    """1x1 to half, 3x3 between halves, 1x1 back: 1/4 + 2 x 1/18 of the layer."""
    conv = nn.Conv2d(64, 64, 3, padding=1)
    layer = layer_of(conv, torch.empty(1, 64, 8, 8))
    shapes = factors(layer, LayerShape.of(conv), LayerPolicy(rank=32, factorization="tucker"))
    assert shapes is not None
    assert macs(shapes, (8, 8)) == 64 * (64 * 32 + 32 * 32 * 9 + 32 * 64)


@pytest.mark.parametrize("rank", [1, 2, 4, 8, 12])
def test_whitened_has_the_nearest_outputs_of_its_rank(rank: int) -> None:
    """The optimum in closed form: the tail of the outputs' singular values."""
    x = weight_of(500, 24) @ weight_of(24, 24, seed=1) * torch.logspace(-2, 1, 24)
    weight = weight_of(16, 24, seed=2)
    part = Part("linear", weight, inputs=lambda: x.T @ x / len(x))
    layer = layer_of(nn.Linear(24, 16))
    errors = {}
    for form in ("svd", "whitened"):
        policy = LayerPolicy(rank=min(rank, 9), factorization=form)
        parts = LowRank().realise(layer, policy, [part])
        errors[form] = float((run(parts, x) - x @ weight.T).norm())
    tail = torch.linalg.svdvals((x @ weight.T).double())[min(rank, 9) :]
    assert errors["whitened"] == pytest.approx(float(tail.pow(2).sum().sqrt()), rel=1e-3)
    assert errors["whitened"] < errors["svd"]


def test_whitened_without_inputs_is_plain() -> None:
    layer, part = layer_of(nn.Linear(24, 16)), Part("linear", weight_of(16, 24))
    plain, whitened = (
        LowRank().realise(layer, LayerPolicy(rank=4, factorization=form), [part])
        for form in ("svd", "whitened")
    )
    assert all(torch.equal(a.weight, b.weight) for a, b in zip(plain, whitened, strict=True))
