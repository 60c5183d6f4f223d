"""Scales moved between layers so that codes are spent where they tell something.

:func:`equalise_ranges` looks at weights alone (Nagel et al. 2019, arXiv:1906.04721);
:func:`smooth_activations` at what the activations are on examples, too (Xiao et al. 2023,
SmoothQuant, arXiv:2211.10438, there between a layer norm and the linear layers behind it).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import fx, nn

from autocompress.compression.calibration import InputBatch, run_over
from autocompress.compression.repair.scale_pairs import ScalePair, move_scale, read_columns

#: Factors further from 1 would only move the trouble elsewhere.
_LARGEST = 1e3
_TINY = 1e-8


def equalise_ranges(
    module: fx.GraphModule, pairs: Sequence[ScalePair], *, sweeps: int = 10
) -> None:
    """Give both sides of each pair weights of the same range in every channel, in place.

    ``s = sqrt(max|W_out| max|W_in|) / max|W_in|``; several sweeps, since layers are in two pairs.

    Args:
        module: a realised float graph, batch norm folded; its function stays.
        pairs: of :func:`autocompress.compression.repair.scale_pairs.scale_pairs`.
        sweeps: over all pairs.
    """
    for _ in range(sweeps):
        for pair in pairs:
            source = module.get_submodule(pair.source)
            if isinstance(source, nn.Conv2d | nn.Linear):
                given = source.weight.detach().abs().flatten(1).amax(1)
                read = _weight_peaks(module, pair)
                alive = (given > 0) & (read > 0)  # a dead channel has no range to share
                scale = torch.where(alive, (given / read.clamp_min(_TINY)).sqrt(), 1.0)
                move_scale(module, pair, _bounded(scale))


def smooth_activations(
    module: fx.GraphModule,
    pairs: Sequence[ScalePair],
    batches: Iterable[InputBatch],
    *,
    strength: float = 0.5,
) -> None:
    """Make the channels of each pair's activations more alike, in place.

    ``s = max|x|^a / max|W|^(1 - a)`` a channel, divided by its mean over the channels.

    Args:
        module: a realised float graph, batch norm folded; its function stays.
        pairs: of :func:`autocompress.compression.repair.scale_pairs.scale_pairs`.
        batches: calibration inputs.
        strength: ``a``, in [0, 1]: how much of the activations' differences the weights take on.
    """
    peaks = _activation_peaks(module, pairs, batches)
    for pair in pairs:
        seen = peaks[pair.tensor].clamp_min(_TINY)
        read = _weight_peaks(module, pair).clamp_min(_TINY)
        scale = seen.pow(strength) / read.pow(1 - strength)
        move_scale(module, pair, _bounded(scale / scale.log().mean().exp()))


def _activation_peaks(
    module: fx.GraphModule, pairs: Sequence[ScalePair], batches: Iterable[InputBatch]
) -> dict[str, torch.Tensor]:
    """Largest magnitude of each channel of the tensors between pairs, by node."""
    areas = {pair.tensor: pair.area for pair in pairs}
    peaks: dict[str, torch.Tensor] = {}

    def see(node: fx.Node, inputs: list[Any], value: Any) -> None:
        if node.name in areas:
            found = _channel_peaks(value, areas[node.name])
            peaks[node.name] = torch.maximum(peaks.get(node.name, found), found)

    run_over(module, batches, see)
    return peaks


def _weight_peaks(module: fx.GraphModule, pair: ScalePair) -> torch.Tensor:
    """Largest magnitude of the weights that read each channel, shape ``(channels,)``."""
    peaks = [c.abs().transpose(0, 1).flatten(1).amax(1) for c in read_columns(module, pair)]
    return torch.stack(peaks).amax(0)


def _bounded(scale: torch.Tensor) -> torch.Tensor:
    return scale.clamp(1 / _LARGEST, _LARGEST)


def _channel_peaks(value: torch.Tensor, area: int) -> torch.Tensor:
    magnitude = value.detach().abs()
    if magnitude.dim() == 4:
        return magnitude.amax((0, 2, 3))
    return magnitude.reshape(-1, magnitude.shape[-1]).amax(0).reshape(-1, area).amax(1)
