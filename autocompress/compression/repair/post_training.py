"""Repair of a whole simulated graph, without training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import torch
from torch import fx, nn

from autocompress.compression.calibration import InputBatch
from autocompress.compression.repair.bias_correction import correct_bias, output_means
from autocompress.compression.repair.descent import descend
from autocompress.compression.repair.gptq import codes_with_feedback
from autocompress.compression.repair.in_order import in_order
from autocompress.compression.repair.moments import moments_of
from autocompress.compression.repair.rows import CodeRows
from autocompress.compression.stored.symmetric import SymmetricCodes
from autocompress.compression.stored_layers import StoredLayer
from autocompress.graph.ops import Op

#: Layers with at least so many bits lose nothing worth repairing.
ENOUGH_BITS = 8
#: Inputs of one output above which moments and their factors take too much memory (0.8 GB).
_LONGEST = 4608

#: Bytes of the largest activation, over all examples, that are held.
_MOST_BYTES = 1 << 28


def affordable(batches: Sequence[InputBatch], ops: Sequence[Op]) -> list[InputBatch]:
    """As many of the batches, one at the least, as are repaired with at a time.

    The activations of all of them are held together.

    Args:
        batches: of inputs.
        ops: the operations that are run on them.
    """
    each = 4 * max(prod(op.shape[1:]) for op in ops)
    kept: list[InputBatch] = []
    held = 0
    for batch in batches:
        held += each * len(batch if isinstance(batch, torch.Tensor) else batch[0])
        if kept and held > _MOST_BYTES:
            break
        kept.append(batch)
    return kept


def best_codes(rows: CodeRows) -> torch.Tensor:
    """Errors fed back, then greedy descent."""
    return descend(rows, codes_with_feedback(rows))


def repair_quantized(
    simulated: fx.GraphModule,
    batches: Sequence[InputBatch],
    *,
    reference: fx.GraphModule,
    rounding: Callable[[CodeRows], torch.Tensor] = best_codes,
) -> list[str]:
    """Better codes and biases for the layers with few bits, in place.

    Layers are repaired in order of execution, each for the inputs that it has in the quantised
    graph as it is by then. Activation ranges are as they were: calibrate them again afterwards.

    Args:
        simulated: from :func:`autocompress.compression.simulation.simulate_quantization`.
        batches: calibration inputs.
        reference: the float graph that was simulated.
        rounding: chooses codes, such as
            :func:`autocompress.compression.repair.adaround.learned_rounding`.

    Returns:
        The layers that were repaired.
    """
    wanted = {
        name: module
        for name, module in simulated.named_modules()
        if isinstance(module, StoredLayer)
        and isinstance(module, nn.Conv2d | nn.Linear)
        and isinstance(module.form, SymmetricCodes)
        and module.weight_bits < ENOUGH_BITS
        and module.weight[0].numel() <= _LONGEST
    }
    if not wanted:
        return []
    means = output_means(reference, wanted, batches)
    repaired: list[str] = []

    def repair(name: str, inputs: Sequence[torch.Tensor]) -> None:
        layer = wanted[name]
        moments = moments_of(layer, inputs)
        rows = CodeRows.of(layer, moments)
        if rows is not None and name not in repaired:
            rows.write(layer, rounding(rows))
            correct_bias(layer, means[name], inputs)
            repaired.append(name)

    in_order(simulated, batches, wanted, repair)
    return repaired
