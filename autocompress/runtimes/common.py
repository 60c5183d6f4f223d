"""What runtimes share beside their protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from autocompress.errors import RequestError
from autocompress.runtimes.base import Array, TensorSpec


def fingerprint_of(name: str, version: str, options: Mapping[str, str]) -> str:
    """A runtime's name, version and options in one line."""
    listed = ",".join(f"{key}={value}" for key, value in sorted(options.items()))
    return f"{name}/{version}/{listed}"


def feeds(
    specs: Sequence[TensorSpec], inputs: Mapping[str, Array] | Sequence[Array]
) -> dict[str, Array]:
    """Arrays by the names of a model's inputs, in their order.

    Raises:
        RequestError: too few or too many are given, or one of another name.
    """
    if len(inputs) != len(specs):
        raise RequestError(f"the model takes {len(specs)} inputs and {len(inputs)} were given")
    if not isinstance(inputs, Mapping):
        return {spec.name: array for spec, array in zip(specs, inputs, strict=True)}
    unknown = sorted(set(inputs) - {spec.name for spec in specs})
    if unknown:
        names = ", ".join(spec.name for spec in specs)
        raise RequestError(f"the model has no input {unknown[0]!r}; its inputs are {names}")
    return {spec.name: inputs[spec.name] for spec in specs}
