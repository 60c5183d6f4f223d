"""How many blocks each stage keeps at the least, so that what is left is still a network."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from autocompress.core.candidate import Candidate
from autocompress.graph.capture_check import random_like
from autocompress.graph.model_graph import ModelGraph
from autocompress.graph.running import run
from autocompress.graph.selection import DEPTH, select


def least_depths(graph: ModelGraph) -> dict[str, int]:
    """For each stage 0, or 1 where all of it is needed too much.

    A stage keeps a block when hardly a layer would remain without it, or when the last layer would
    no longer learn anything of the inputs: a vision transformer that classifies by a token of its
    own, without a block, says the same of every image. Of several such stages, the later ones keep
    a block first.
    """
    least = {stage: _by_layers(graph, stage) for stage in graph.stages}
    for stage in reversed(graph.stages):
        if all(least.values()) or _reaches_the_end(graph, least):
            break
        least[stage] = 1
    return least


def _by_layers(graph: ModelGraph, stage: str) -> int:
    inside = {layer for block in graph.stages[stage] for layer in block.layers}
    return 0 if len(set(graph.layers) - inside) >= 2 else 1


def _reaches_the_end(graph: ModelGraph, depths: Mapping[str, int]) -> bool:
    """Whether what enters the last layer differs between different inputs.

    Not the output: a fresh classifier may be all zeros. Where the model cannot be asked, because it
    refuses random numbers, nothing is known against it.
    """
    candidate = Candidate(architecture={DEPTH + stage: n for stage, n in depths.items()})
    selection = select(graph, candidate)
    kept = {str(graph.nodes[name].target) for name in selection.nodes}
    layers = [name for name in graph.layers if name in kept]
    if not layers:
        return False
    seen: list[torch.Tensor] = []
    inputs = random_like([torch.cat([x, x]) for x in graph.example_inputs])
    hook = graph.submodule(layers[-1]).register_forward_pre_hook(
        lambda module, entering: seen.append(entering[0])
    )
    try:
        with torch.no_grad():
            run(graph, selection, graph.module, inputs)
    except Exception:  # whatever the user's operators raise
        return True
    finally:
        hook.remove()
    entering = seen[-1]
    return len(entering) != 2 or not torch.equal(entering[0], entering[1])
