"""What enters the layers of an elastic model, for techniques that weigh weights by it."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

import torch

from autocompress.compression.calibration import InputBatch
from autocompress.compression.repair.moments import input_moments
from autocompress.core.candidate import Candidate
from autocompress.elastic.model import ElasticModel
from autocompress.elastic.realise import realise

#: Inputs of one output above which second moments are not kept (21 MB at this number).
LONGEST = 2304
#: Bytes of second moments at the most; the layers with the fewest inputs come first.
MOST_BYTES = 256 << 20
#: Batches looked at, and patches of each at the most; a linear layer has one an example.
BATCHES = 4
PATCHES = 1 << 11


def observe_inputs(
    elastic: ElasticModel, candidate: Candidate, batches: Iterable[InputBatch]
) -> list[str]:
    """Give layers the second moments of their inputs, where a technique looks at them.

    They belong to the weights as they are now: call it again after training them. Layers that are
    not observed keep none, and techniques do without.

    Args:
        elastic: whose layers are given them.
        candidate: runs on the batches; layers that it leaves out are not observed.
        batches: of inputs; the first few are looked at, none where no technique asks.

    Returns:
        The layers that were observed.
    """
    for layer in elastic.layers.values():
        layer.moments = None
    wanted = _wanted(elastic)
    if not wanted:
        return []
    model = realise(elastic, candidate)
    found = input_moments(
        model, wanted, islice(batches, BATCHES), patches_each=PATCHES, dtype=torch.float32
    )
    for name, moments in found.items():
        elastic.layers[name].moments = moments.second[0]
    return sorted(found)


def _wanted(elastic: ElasticModel) -> list[str]:
    """Names of the layers that some technique looks at, as far as the memory goes."""
    lengths = {
        name: elastic.layers[name].weight[0].numel()
        for name, layer in elastic.graph.layers.items()
        if layer.groups == 1
        and any(technique.looks_at_inputs(layer) for technique in elastic.techniques)
    }
    left, kept = MOST_BYTES, []
    for name in sorted(lengths, key=lambda name: (lengths[name], name)):
        left -= 4 * lengths[name] ** 2
        if lengths[name] > LONGEST or left < 0:
            break
        kept.append(name)
    return kept
