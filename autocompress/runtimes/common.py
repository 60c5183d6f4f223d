"""What runtimes share beside their protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from autocompress.errors import RequestError
from autocompress.runtimes.base import Array, TensorSpec

#: An example that is longer than this along any axis is not believed.
_LONGEST = 1 << 16


def fingerprint_of(name: str, version: str, options: Mapping[str, str]) -> str:
    """A runtime's name, version and options in one line."""
    listed = ",".join(f"{key}={value}" for key, value in sorted(options.items()))
    return f"{name}/{version}/{listed}"


def example_key(name: str) -> str:
    """Under which key a file's metadata hold the shape of an example of an input: "1,64"."""
    return f"example_shape:{name}"


def example_shape(metadata: Mapping[str, str], spec: TensorSpec) -> tuple[int, ...]:
    """The shape of an example of an input, as a file tells it; empty where it does not.

    What does not fit the input is taken for none: the metadata of a file are anybody's.
    """
    parts = metadata.get(example_key(spec.name), "").split(",")
    if len(parts) != len(spec.shape) or not all(part.isdecimal() for part in parts):
        return ()
    shape = tuple(int(part) for part in parts)
    fits = all(0 < n <= _LONGEST and d in (None, n) for n, d in zip(shape, spec.shape, strict=True))
    return shape if fits else ()


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
