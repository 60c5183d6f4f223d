"""Networks that estimates are held against: exported by the product, never fitted to.

Torchvision's families (Apache-2.0 and BSD-3 code, random weights) at several resolutions and
widths, and candidates of the product's own spaces, each in float, in integers, mixed and with
4-bit weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from autocompress.compression.quantization import simulate_quantization
from autocompress.core.candidate import Candidate, LayerPolicy
from autocompress.core.capabilities import CPU_PRECISIONS, Capabilities, Precision
from autocompress.elastic.model import ElasticModel
from autocompress.elastic.realise import realise
from autocompress.elastic.registry import load_space
from autocompress.elastic.space import ElasticSpace
from autocompress.export.onnx_export import export_onnx
from autocompress.graph.folding import fold_batch_norm
from autocompress.measurement.networks import Network
from benchmarks.pricing import ResNet20

FORMS = ("fp32", "int8", "mixed", "w4a8")
#: Family, and the resolutions it is taken at.
FAMILIES: dict[str, tuple[int, ...]] = {
    "resnet18": (64, 112),
    "mobilenet_v2": (64, 96, 128),
    "mobilenet_v3_small": (96, 160),
    "squeezenet1_1": (64, 128),
    "mnasnet0_5": (96, 160),
    "regnet_y_400mf": (64, 96),
    "efficientnet_b0": (64,),
    "densenet121": (64,),
}
#: Larger networks that the formula's memory terms are fitted to; in none of the sets above.
FITTED: dict[str, tuple[int, ...]] = {
    "resnet34": (64,),
    "mobilenet_v3_large": (96,),
    "regnet_x_400mf": (64,),
    "densenet169": (64,),
}
_STEP = Capabilities(channel_step=16)


def torchvision_networks(
    folder: Path, families: Mapping[str, tuple[int, ...]], forms: Sequence[str], seed: int
) -> Iterator[Network]:
    """Each family at each resolution in each form, half of them narrower than the original.

    Every network is written to ``folder`` as ``<name>.onnx``.
    """
    import torchvision

    rng = np.random.default_rng(seed)
    for family, resolutions in families.items():
        for pixels in resolutions:
            torch.manual_seed(seed)
            model = torchvision.models.get_model(family, weights=None).eval()
            example = torch.randn(1, 3, pixels, pixels)
            space = ElasticSpace.from_model(model, (example,), capabilities=_STEP)
            elastic = ElasticModel(space.graph, space.techniques)
            for number, form in enumerate(forms):
                narrow = number % 2 == 1
                candidate = _candidate(space, form, narrow=narrow, rng=rng)
                name = f"{family}-{pixels}-{form}{'-narrow' if narrow else ''}"
                yield _exported(name, space, elastic, candidate, example, folder)


def space_networks(
    folder: Path,
    count: int,
    seed: int,
    *,
    suffix: str = "",
    precisions: tuple[Precision, ...] = CPU_PRECISIONS,
) -> Iterator[Network]:
    """Random candidates of the product's own space and of a user's ResNet-20.

    In the precisions that the runtime has: nothing else would be searched for it.
    """
    offered = replace(_STEP, precisions=precisions)
    torch.manual_seed(seed)
    digits, cifar = torch.randn(1, 1, 8, 8), torch.randn(1, 3, 32, 32)
    named = load_space("tiny_cnn", input_shape=(1, 8, 8), num_classes=10, capabilities=offered)
    model = ElasticSpace.from_model(ResNet20(), (cifar,), capabilities=offered)
    rng = np.random.default_rng(seed)
    for name, space, example in (("tiny_cnn", named, digits), ("resnet20", model, cifar)):
        elastic = ElasticModel(space.graph, space.techniques)
        for number in range(count):
            candidate = space.decode(space.sample(rng))
            yield _exported(f"{name}-{number}{suffix}", space, elastic, candidate, example, folder)


def _candidate(
    space: ElasticSpace, form: str, *, narrow: bool, rng: np.random.Generator
) -> Candidate:
    """The original architecture in one form; narrow ones keep a random share of channels."""
    original = space.decode(space.original)
    widths: dict[str, int | None] = {}
    if narrow:
        genome = space.original.copy()
        for gene, choice in enumerate(space.choices):
            if choice.name.startswith("width:"):
                genome[gene] = rng.integers(len(choice.options))
        decoded = space.decode(space.canonical(genome))
        widths = {name: policy.width for name, policy in decoded.layers.items()}
    single = [name for name, layer in space.graph.layers.items() if layer.calls == 1]
    bits = {"fp32": (32, 32), "int8": (8, 8), "w4a8": (4, 8), "mixed": (8, 8)}[form]
    layers: dict[str, LayerPolicy] = {}
    for name in space.graph.layers:
        weight, activation = bits
        if name not in single or (form == "mixed" and rng.random() < 0.5):
            weight, activation = 32, 32
        layers[name] = LayerPolicy(
            weight_bits=weight, activation_bits=activation, width=widths.get(name)
        )
    return Candidate(architecture=original.architecture, layers=layers)


def _exported(
    name: str,
    space: ElasticSpace,
    elastic: ElasticModel,
    candidate: Candidate,
    example: torch.Tensor,
    folder: Path,
) -> Network:
    network = Network(name, space.graph.operations(candidate))
    model: nn.Module = fold_batch_norm(realise(elastic, candidate)).eval()
    if any(op.is_integer_layer for op in network.ops):
        inputs = torch.randn(2, *example.shape[1:])
        model = simulate_quantization(model, network.ops, [inputs])  # type: ignore[arg-type]
    export_onnx(model, network.ops, (example,), folder / f"{name}.onnx")  # type: ignore[arg-type]
    return network
