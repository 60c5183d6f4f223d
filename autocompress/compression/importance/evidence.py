"""What data say about a model's channels: activations, gradients, curvature."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import torch
from torch import nn

from autocompress.errors import DataError, RequestError
from autocompress.graph.hutchinson import hessian_diagonals

Batch: TypeAlias = tuple[torch.Tensor, torch.Tensor]
Loss: TypeAlias = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
#: What a reader receives is looked at, and may be replaced.
_Look: TypeAlias = Callable[[str, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Sample:
    """A few batches, and the loss that is to stay low on them.

    Attributes:
        batches: inputs and targets as the task has them.
        loss: ``(outputs, targets)`` to a scalar, a mean over the examples.
        seed: of random probes.
    """

    batches: Sequence[Batch]
    loss: Loss
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.batches:
            raise DataError("criteria that look at data need at least one batch")


@dataclass(frozen=True, eq=False)
class Activations:
    """What a layer receives, by its input channels.

    Attributes:
        magnitude: mean ``|x|``, shape ``(channels,)``.
        nonzero: share of values that are not zero, shape ``(channels,)``.
    """

    magnitude: torch.Tensor
    nonzero: torch.Tensor


class Evidence:
    """What a sample says about the layers that read channels.

    Each part is gathered when it is first asked for, and kept.

    Args:
        module: left as it is, run in evaluation mode.
        readers: names of the convolutions and linear layers to look at.
        sample: the data.
    """

    def __init__(self, module: nn.Module, readers: Sequence[str], sample: Sample) -> None:
        self.module = module
        self.sample = sample
        self._layers = {name: module.get_submodule(name) for name in readers}

    @cached_property
    def activations(self) -> Mapping[str, Activations]:
        """By reader; readers that do not run are missing."""
        sums: dict[str, tuple[torch.Tensor, torch.Tensor, int]] = {}

        def look(name: str, x: torch.Tensor) -> torch.Tensor:
            values = _channels_last(self._layers[name], x.detach()).abs()
            rows = values.reshape(-1, values.shape[-1])
            magnitude, nonzero, count = sums.get(name, (0.0, 0.0, 0))
            sums[name] = (
                magnitude + rows.double().sum(0),
                nonzero + (rows != 0).double().sum(0),
                count + len(rows),
            )
            return x

        with torch.no_grad(), self._looking(look):
            for inputs, _ in self.sample.batches:
                self.module(inputs)
        return {
            name: Activations((magnitude / count).float(), (nonzero / count).float())
            for name, (magnitude, nonzero, count) in sums.items()
        }

    @cached_property
    def gate_gradients(self) -> Mapping[str, torch.Tensor]:
        """By reader, derivatives of each example's loss to gates on the channels it reads.

        Shape ``(examples, channels)``. A layer that sees an example as several rows (windows,
        tokens) has them summed; the rows of an example are taken to lie side by side. A layer whose
        rows are not the examples' has one entry a batch.

        Raises:
            RequestError: the loss has no gradient.
        """
        found: dict[str, list[torch.Tensor]] = {}
        for inputs, targets in self.sample.batches:
            for name, rows in self._gates(inputs, targets).items():
                found.setdefault(name, []).append(rows)
        joined = {name: torch.cat(rows) for name, rows in found.items()}
        shortest = min((len(rows) for rows in joined.values()), default=0)
        whole = sum(len(inputs) for inputs, _ in self.sample.batches)
        if shortest == whole:
            return joined
        return {name: _by_batch(rows) for name, rows in found.items()}

    @cached_property
    def traces(self) -> Mapping[str, torch.Tensor]:
        """By reader, the trace of the loss's Hessian to the weights that read each channel.

        Shape ``(channels,)``; Hutchinson's estimator with one Rademacher probe a batch (Yao et al.
        2020, PyHessian, arXiv:1912.07145). Grouped convolutions are left out.

        Raises:
            RequestError: the loss has no second derivatives, as where an operator of the model has
                none.
        """
        weights = {
            name: layer.weight
            for name, layer in self._layers.items()
            if isinstance(layer.weight, nn.Parameter) and getattr(layer, "groups", 1) == 1
        }
        generator = torch.Generator().manual_seed(self.sample.seed)
        totals: dict[str, torch.Tensor] = {}
        with self._evaluating(), _requiring(list(weights.values())):
            for inputs, targets in self.sample.batches:
                found = self._diagonals(list(weights.values()), generator, inputs, targets)
                for name, weight in zip(weights, found, strict=True):
                    if weight is not None:
                        diagonal = weight.transpose(0, 1).flatten(1).sum(1)
                        totals[name] = totals.get(name, 0.0) + diagonal / len(self.sample.batches)
        return totals

    # -- how it is gathered ---------------------------------------------------------------------

    def _gates(self, inputs: torch.Tensor, targets: torch.Tensor) -> dict[str, torch.Tensor]:
        gates: list[tuple[str, torch.Tensor]] = []

        def look(name: str, x: torch.Tensor) -> torch.Tensor:
            axis = 1 if isinstance(self._layers[name], nn.Conv2d) else x.dim() - 1
            shape = [n if i in (0, axis) else 1 for i, n in enumerate(x.shape)]
            gate = x.new_ones(shape).requires_grad_()
            gates.append((name, gate))
            return x * gate

        try:
            with torch.enable_grad(), self._looking(look):
                loss = self.sample.loss(self.module(inputs).float(), targets)
                gradients = torch.autograd.grad(loss, [g for _, g in gates], allow_unused=True)
        except RuntimeError as error:
            first = str(error).strip().partition("\n")[0]
            raise RequestError(
                f"this model's loss has no gradient ({first}); use a criterion that needs none"
            ) from error
        found: dict[str, torch.Tensor] = {}
        for (name, gate), gradient in zip(gates, gradients, strict=True):
            value = torch.zeros_like(gate) if gradient is None else gradient
            rows = _channels_last(self._layers[name], value * len(inputs))
            rows = rows.reshape(rows.shape[0], -1, rows.shape[-1]).sum(1)
            pieces = len(inputs) if len(rows) % len(inputs) == 0 else 1
            rows = rows.reshape(pieces, -1, rows.shape[-1]).sum(1)
            found[name] = found[name] + rows if name in found else rows
        return found

    def _diagonals(
        self,
        weights: Sequence[torch.Tensor],
        generator: torch.Generator,
        inputs: torch.Tensor,
        targets: torch.Tensor,
    ) -> Sequence[torch.Tensor | None]:
        try:
            with torch.enable_grad():
                loss = self.sample.loss(self.module(inputs).float(), targets)
            return next(hessian_diagonals(loss, weights, generator))
        except RuntimeError as error:
            first = str(error).strip().partition("\n")[0]
            raise RequestError(
                f"this model's loss has no second derivatives ({first}); use a criterion that "
                "needs none"
            ) from error

    @contextmanager
    def _looking(self, look: _Look) -> Iterator[None]:
        """Show ``look`` what each reader receives, in evaluation mode."""

        def hook(name: str) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...]]:
            return lambda _, arguments: (look(name, arguments[0]), *arguments[1:])

        handles = [
            layer.register_forward_pre_hook(hook(name)) for name, layer in self._layers.items()
        ]
        try:
            with self._evaluating():
                yield
        finally:
            for handle in handles:
                handle.remove()

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        before = self.module.training
        self.module.eval()
        try:
            yield
        finally:
            self.module.train(before)


@contextmanager
def _requiring(parameters: Sequence[torch.Tensor]) -> Iterator[None]:
    """Let gradients flow to the parameters, whether or not they are frozen."""
    before = [parameter.requires_grad for parameter in parameters]
    for parameter in parameters:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter, was in zip(parameters, before, strict=True):
            parameter.requires_grad_(was)


def _channels_last(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """What a layer receives, with its channels as the last axis."""
    return x.movedim(1, -1) if isinstance(layer, nn.Conv2d) else x


def _by_batch(rows: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.stack([found.sum(0) for found in rows])
