"""What a setting does where it strikes: to a layer's output, and to its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from autocompress.compression.activation_quantizer import ActivationQuantizer
from autocompress.compression.parts import Part
from autocompress.compression.pruning import WIDTH
from autocompress.core.candidate import Candidate
from autocompress.elastic.model import ElasticModel
from autocompress.evaluation.sensitivity.settings import Setting
from autocompress.graph.selection import DEPTH


@dataclass(frozen=True, eq=False)
class Compressed:
    """A layer under a setting, alone.

    Attributes:
        whole: what it was.
        parts: what it consists of then.
        activation_bits: of its input.
    """

    whole: Part
    parts: tuple[Part, ...]
    activation_bits: int

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """The layer's output; the range of an input in integers is that of ``x``."""
        if self.activation_bits <= 8:
            quantizer = ActivationQuantizer(self.activation_bits)
            quantizer.set_range(*(float(v) for v in torch.aminmax(x)))
            x = quantizer(x)
        for part in self.parts:
            x = part(x)
        return x

    @property
    def weight(self) -> torch.Tensor:
        """The weight that the parts amount to, in the shape of the layer's own."""
        if len(self.parts) == 1:
            return self.parts[0].weight
        if self.whole.kind == "embedding":
            table = self.parts[0].weight
            for part in self.parts[1:]:
                table = part(table)
            return table
        shape, dilation = self.whole.weight.shape, self.whole.dilation
        # one impulse for each weight of an output, as far apart as the kernel reads
        x = torch.eye(shape[1:].numel()).reshape(-1, *shape[1:])
        if self.whole.kind == "conv":
            spread = x.new_zeros(
                (*x.shape[:2], *(d * (k - 1) + 1 for d, k in zip(dilation, shape[2:], strict=True)))
            )
            spread[:, :, :: dilation[0], :: dilation[1]] = x
            x = spread
        for part in self.parts:
            x = replace(part, bias=None, stride=(1, 1), padding=(0, 0))(x)
        return x.flatten(1).T.reshape(shape)


class Perturbations:
    """Finds what settings do, layer by layer, on the weights of an elastic model.

    Args:
        elastic: the weights.
        original: the candidate that leaves the model as it is.

    Attributes:
        original: by layer, what it is in the original.
    """

    def __init__(self, elastic: ElasticModel, original: Candidate) -> None:
        self.elastic = elastic
        self.graph = elastic.graph
        elastic.configure(original)
        self.original = {name: layer.sliced() for name, layer in elastic.layers.items()}
        self._latest: tuple[Setting, Compressed] | None = None

    def compressed(self, setting: Setting) -> Compressed | None:
        """The setting's layer under it; None when it is not about the inside of one layer."""
        if len(setting.layers) != 1 or setting.kind + ":" in (WIDTH, DEPTH):
            return None
        if self._latest is not None and self._latest[0] is setting:
            return self._latest[1]
        (name,) = setting.layers
        policy = setting.candidate.policy(name)
        parts = [self.original[name]]
        with torch.no_grad():
            for technique in self.elastic.techniques:
                transform = technique.simulate(self.graph.layers[name], policy, parts)
                parts = parts if transform is None else transform(parts)
        found = Compressed(self.original[name], tuple(parts), policy.activation_bits)
        self._latest = setting, found
        return found

    def removed(self, setting: Setting) -> Mapping[str, tuple[torch.Tensor, torch.Tensor]]:
        """For a width: by module, masks of the kept output and of the kept input channels."""
        group = self.graph.groups[setting.target]
        width = setting.candidate.policy(group.name).width or group.channels
        found: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        for member in group.members:
            part = self.original.get(member.module)
            if part is None:
                continue
            outs, ins = found.setdefault(
                member.module,
                (torch.ones(part.weight.shape[0]), torch.ones(part.weight.shape[1] * part.groups)),
            )
            mask = ins if member.role == "in" else outs
            mask[torch.from_numpy(member.indices[width:].ravel())] = 0.0
        return found

    def weight_changes(self, setting: Setting) -> dict[str, torch.Tensor]:
        """By layer, the setting's weight minus the original's; empty where that says nothing."""
        with torch.no_grad():
            if setting.kind + ":" == WIDTH:
                return {
                    name: self._without(name, *masks)
                    for name, masks in self.removed(setting).items()
                }
            if setting.kind + ":" == DEPTH:
                return {name: -self.original[name].weight for name in setting.layers}
            found = self.compressed(setting)
            if found is None:
                return {}
            (name,) = setting.layers
            return {name: found.weight - self.original[name].weight}

    def _without(self, name: str, outs: torch.Tensor, ins: torch.Tensor) -> torch.Tensor:
        """The part of a weight that goes with the channels that go, negative."""
        part = self.original[name]
        kept = outs.reshape(-1, *[1] * (part.weight.dim() - 1))
        if part.groups == 1:
            kept = kept * ins.reshape(1, -1, *[1] * (part.weight.dim() - 2))
        return part.weight * (kept - 1.0)
