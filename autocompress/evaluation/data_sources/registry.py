"""From ``"digits"`` or ``"cifar10:DIR"`` to the source that reads it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from autocompress.errors import DataError
from autocompress.evaluation.data_sources import digits, images, mnist, parquet, text
from autocompress.evaluation.data_sources.base import Loaded

__all__ = ["SOURCES", "Loaded", "Source", "load"]


@dataclass(frozen=True, slots=True)
class Source:
    """A way to read data.

    Attributes:
        usage: how it is asked for, such as ``"cifar10:DIR"``.
        description: one line for a person.
        read: from the text after the colon to the data.
    """

    usage: str
    description: str
    read: Callable[[str], Loaded]


SOURCES: Mapping[str, Source] = {
    "digits": Source("digits", "1,797 handwritten digits, 8x8 grey, bundled", digits.read),
    "cifar10": Source(
        "cifar10:DIR", "CIFAR-10 as train.parquet and test.parquet", parquet.read_cifar10
    ),
    "parquet": Source(
        "parquet:DIR", "train.parquet [val, test], columns image and label", parquet.read
    ),
    "mnist": Source("mnist:DIR", "MNIST as the four IDX files, .gz or not", mnist.read),
    "sst2": Source(
        "sst2:DIR[@LENGTH]", "SST-2 as train.parquet, dev.parquet, test.parquet", text.read_sst2
    ),
    "text": Source(
        "text:DIR[@LENGTH]",
        "train.parquet [val, test], columns text and label; LENGTH tokens each",
        text.read,
    ),
    "images": Source(
        "images:DIR[@SIZE]", "train/CLASS/*.png [val/, test/]; SIZE resizes and crops", images.read
    ),
}


def load(spec: str) -> Loaded:
    """Read what ``spec`` names.

    Raises:
        DataError: no such source, or what it reads is missing or broken.
    """
    name, _, place = spec.partition(":")
    source = SOURCES.get(name)
    if source is None:
        known = ", ".join(s.usage for s in SOURCES.values())
        raise DataError(f"unknown data {spec!r}; use one of: {known}")
    if place and ":" not in source.usage:
        raise DataError(
            f"data {name!r} takes no folder, {place!r} was given; write {source.usage!r}"
        )
    return source.read(place)
