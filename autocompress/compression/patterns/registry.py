"""Patterns by the name that a policy gives them."""

from __future__ import annotations

import re

from autocompress.compression.patterns.base import Pattern
from autocompress.compression.patterns.block import Block
from autocompress.compression.patterns.n_of_m import NOfM
from autocompress.compression.patterns.unstructured import Unstructured
from autocompress.errors import RequestError

_N_OF_M = re.compile(r"([1-9]\d*):([1-9]\d*)")
_BLOCK = re.compile(r"block:([1-9]\d*)x([1-9]\d*)")


def make_pattern(name: str) -> Pattern:
    """The pattern of a name: "unstructured", such as "2:4", or such as "block:1x4".

    Raises:
        RequestError: it names no pattern.
    """
    if name == "unstructured":
        return Unstructured()
    if (found := _N_OF_M.fullmatch(name)) and int(found[1]) < int(found[2]):
        return NOfM(int(found[1]), int(found[2]))
    if (found := _BLOCK.fullmatch(name)) and found.groups() != ("1", "1"):
        return Block(int(found[1]), int(found[2]))
    raise RequestError(
        f"pattern is {name!r}; use 'unstructured', 'N:M' with N below M such as '2:4', or "
        "'block:RxC' such as 'block:1x4'"
    )
