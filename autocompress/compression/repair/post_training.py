"""Repair of a whole simulated graph, without training."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import fx, nn

from autocompress.compression.calibration import InputBatch
from autocompress.compression.repair.bias_correction import correct_bias
from autocompress.compression.repair.gptq import round_with_feedback
from autocompress.compression.repair.moments import input_moments
from autocompress.compression.simulation import recalibrate
from autocompress.compression.stored.symmetric import SymmetricCodes
from autocompress.compression.stored_layers import StoredLayer

#: Layers with at least so many bits lose nothing worth repairing.
ENOUGH_BITS = 8
#: Inputs of one output above which second moments take too much memory (0.7 GB at this number).
_LONGEST = 9216


def repair_quantized(
    simulated: fx.GraphModule,
    batches: Sequence[InputBatch],
    *,
    calibration: str = "percentile",
) -> list[str]:
    """Better codes and biases for the layers with few bits, in place.

    Each layer is repaired for the inputs that it has in the quantised graph. Activation ranges are
    calibrated again at the end.

    Args:
        simulated: from :func:`autocompress.compression.simulation.simulate_quantization`.
        batches: calibration inputs.
        calibration: "percentile" or "minmax".

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
    moments = input_moments(simulated, wanted, batches)
    for name, layer in wanted.items():
        if name not in moments:
            continue
        original = layer.weight.detach().clone()
        round_with_feedback(layer, moments[name])
        with torch.no_grad():
            correct_bias(layer, original, moments[name])
    recalibrate(simulated, batches, calibration=calibration)
    return sorted(moments)
