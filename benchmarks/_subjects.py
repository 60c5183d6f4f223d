"""Networks whose every candidate is looked at: named spaces, and families of torchvision.

Weights and statistics are random and hide no mistake (see :func:`benchmarks._zoo_model.disturbed`),
queries and keys larger than usual: attention that is nearly even over all positions would hide what
becomes of them. Layers know the second moments of inputs other than those that are compared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torchvision
from torch import nn

from autocompress.core.capabilities import CPU_PRECISIONS, Capabilities, Precision
from autocompress.elastic.batch_norm import reestimate_batch_norm
from autocompress.elastic.model import ElasticModel
from autocompress.elastic.observing import observe_inputs
from autocompress.elastic.registry import load_space
from autocompress.elastic.space import ElasticSpace
from benchmarks._zoo_model import disturbed

#: Every deployed form, and zeros on top.
CAPABILITIES = Capabilities(
    precisions=(
        *CPU_PRECISIONS,
        Precision(16, 32, fast=False),
        Precision(8, 32, fast=False),
        Precision(2, 32, fast=False),
    ),
    channel_step=4,
    rank_step=4,
    stores_packed=True,
)


CLASSES = 10
#: Pixels of a named space's images, and of torchvision's.
PIXELS, MODEL_PIXELS = 32, 64
#: Token ids, and the longest row of them.
VOCABULARY, LENGTH = 300, 24
#: Batch sizes and lengths of rows of tokens that are compared.
ROWS = ((8, LENGTH), (3, 7), (1, 1), (2, 16))
#: Images that layers' inputs are observed on, and images that are compared.
OBSERVED, COMPARED = 64, 2
#: How much larger queries and keys are made; of named spaces, and of rewritten packed attention.
SHARPER, _SCORING = 4.0, ("query", "key", ".q", ".k")

#: How much larger the weights of networks without norms are made: nothing brings narrow and sparse
#: ones back to size, and biases would be all that is left.
LOUDER = 2.0

Batches = Sequence[torch.Tensor]


@dataclass(frozen=True)
class Subject:
    """A space with shared weights.

    Attributes:
        name: of the space or model.
        space: all techniques, with every deployed form.
        elastic: its shared weights.
        seen: inputs that statistics are taken from.
        batches: other inputs, that candidates are compared on.
    """

    name: str
    space: ElasticSpace
    elastic: ElasticModel
    seen: torch.Tensor
    batches: Batches


def _small_transformer() -> nn.Module:
    """Torchvision's vision transformer, of the size of its smallest published relatives."""
    made: nn.Module = torchvision.models.VisionTransformer(
        image_size=MODEL_PIXELS, patch_size=16, num_layers=6, num_heads=6, hidden_dim=192,
        mlp_dim=768, num_classes=CLASSES,
    )  # fmt: skip
    return made


def _published(name: str) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        made: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=CLASSES)
        return made

    return make


#: Named spaces.
SPACES = ("text_encoder", "vit", "tiny_cnn", "resnet", "mobile_cnn")
#: Families of torchvision that differ most: convolutions in a row whose outputs are concatenated in
#: pairs; inverted residuals with excitation; attention; residual; all earlier outputs concatenated.
FAMILIES: Mapping[str, Callable[[], nn.Module]] = {
    "squeezenet1_1": _published("squeezenet1_1"),
    "mobilenet_v3_small": _published("mobilenet_v3_small"),
    "VisionTransformer": _small_transformer,
    "resnet18": _published("resnet18"),
    "densenet121": _published("densenet121"),
}


def named(name: str, seed: int) -> Subject:
    """A named space; of texts, with rows of several lengths, some of them padded."""
    generator = torch.Generator().manual_seed(seed)
    about: dict[str, Any] = {"input_shape": (3, PIXELS, PIXELS)}
    if name == "text_encoder":
        about = {"input_shape": (LENGTH,), "vocabulary": VOCABULARY}
        seen = _rows(OBSERVED, LENGTH, generator)
        batches: Batches = [_rows(*size, generator) for size in ROWS]
    else:
        seen, batches = _images(PIXELS, generator)
    space = load_space(
        name, num_classes=CLASSES, capabilities=CAPABILITIES, seed=seed, **about
    )  # fmt: skip
    disturbed(space.graph.module, seen, generator)
    return _subject(name, space, seen, batches, generator)


def of_torchvision(name: str, seed: int) -> Subject:
    """The space of a model of :data:`FAMILIES`."""
    generator = torch.Generator().manual_seed(seed)
    seen, batches = _images(MODEL_PIXELS, generator)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = disturbed(FAMILIES[name](), seen, generator)
    space = ElasticSpace.from_model(model, (seen[:1],), capabilities=CAPABILITIES)
    return _subject(name, space, seen, batches, generator)


def _subject(
    name: str, space: ElasticSpace, seen: torch.Tensor, batches: Batches, generator: torch.Generator
) -> Subject:
    modules = [type(module) for module in space.graph.module.modules()]
    normed = any(issubclass(kind, (nn.BatchNorm2d, nn.LayerNorm)) for kind in modules)
    with torch.no_grad():
        for name_of_layer in space.graph.layers:
            weight = space.graph.submodule(name_of_layer).get_parameter("weight")
            if name_of_layer.endswith(_SCORING):
                weight.mul_(SHARPER)
            elif not normed:
                weight.mul_(LOUDER)
    elastic = ElasticModel(space.graph, space.techniques).eval()
    for layer in elastic.layers.values():
        for learned in layer.shrinking.values():
            nn.init.normal_(learned, 0, 0.05, generator=generator)
    # the captured graph runs all branches at once, whose statistics are no candidate's
    reestimate_batch_norm(elastic.configure(space.decode(space.original)), [seen])
    observe_inputs(elastic, space.decode(space.original), [seen])
    return Subject(name, space, elastic, seen, batches)


def _images(pixels: int, generator: torch.Generator) -> tuple[torch.Tensor, Batches]:
    """Images to observe, and others to compare.

    They differ at every scale. Of noise alone a deep random network averages all away, until what
    the padding does at the borders, which is the same for every image, outweighs it.
    """
    count = OBSERVED + COMPARED
    images = torch.randn(count, 3, pixels, pixels, generator=generator)
    for side in (1, 2, 4, 8):
        coarse = torch.randn(count, 3, side, side, generator=generator)
        images = images + nn.functional.interpolate(coarse, pixels, mode="nearest")
    return images[:OBSERVED], [images[OBSERVED:]]


def _rows(count: int, length: int, generator: torch.Generator) -> torch.Tensor:
    """Rows of ids; each but the first ends in padding, of another length."""
    ids = torch.randint(1, VOCABULARY, (count, length), generator=generator)
    for i, row in enumerate(ids):
        row[length - i % length :] = 0
    return ids
