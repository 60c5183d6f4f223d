"""The table of docs/spaces.md says what the built-in spaces hold."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from autocompress.elastic.corners import smallest
from autocompress.elastic.registry import list_spaces, load_space

_TEXT = (Path(__file__).resolve().parents[2] / "docs" / "spaces.md").read_text()
_ROWS = [
    tuple(cell.strip(" `") for cell in line.strip("|").split("|"))
    for line in _TEXT.splitlines()
    if re.match(r"\| `\w+` \| \d+(x| ids)", line)
]


def test_every_built_in_space_is_there() -> None:
    assert {row[0] for row in _ROWS} == set(list_spaces())


@pytest.mark.parametrize("row", _ROWS, ids=lambda row: f"{row[0]}-{row[1]}")
def test_its_figures(row: tuple[str, ...]) -> None:
    name, shape, *figures = row
    if " ids of " in shape:
        length, vocabulary = map(int, shape.split(" ids of "))
        space = load_space(name, input_shape=[length], num_classes=2, vocabulary=vocabulary)
    else:
        space = load_space(name, input_shape=[int(n) for n in shape.split("x")], num_classes=10)
    macs = [
        sum(op.macs for op in space.graph.operations(candidate)) / 1e6
        for candidate in (space.decode(space.original), smallest(space))
    ]
    found = [
        f"{macs[0]:.1f} M",
        f"{macs[1]:.2f} M",
        str(len(space.graph.layers)),
        f"10^{math.log10(space.architectures):.1f}",
        f"10^{math.log10(space.count()):.1f}",
    ]
    assert figures == found
