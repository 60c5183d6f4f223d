"""Choices that a search leaves as the original has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import get_args

from autocompress.core.space import Choice, ChoiceKind
from autocompress.errors import RequestError


def parse_held(held: Sequence[str]) -> tuple[str, ...]:
    """The patterns, without repetitions.

    Raises:
        RequestError: it is no sequence of texts.
    """
    if isinstance(held, str) or not all(isinstance(pattern, str) for pattern in held):
        raise RequestError(
            f"held is {held!r}; give a list of choices, such as ['architecture', 'width:*']"
        )
    return tuple(dict.fromkeys(held))


def hold(
    choices: Sequence[Choice], patterns: Sequence[str], *, inherited: Sequence[str] = ()
) -> tuple[Choice, ...]:
    """The choices, of which those that a pattern names have option 0 left alone.

    Args:
        choices: of one space.
        patterns: a kind of choice ("architecture", "compression" or "recipe"), the name of a
            choice, or a pattern of names with ``*`` and ``?``, such as ``"depth:*"``.
        inherited: further patterns, held before in a space that may have had other choices; they
            may name nothing.

    Raises:
        RequestError: a pattern names nothing; kinds may, since not every space has all of them.
    """
    kinds = get_args(ChoiceKind)
    for pattern in patterns:
        known = pattern in kinds or pattern in inherited
        if not known and not any(fnmatchcase(c.name, pattern) for c in choices):
            there = sorted({c.name.partition(":")[0] + ":*" for c in choices})
            raise RequestError(
                f"no choice is called {pattern!r}; hold some of {', '.join((*kinds, *there))}, or "
                "one by its full name"
            )
    every = (*patterns, *inherited)
    return tuple(
        replace(choice, options=choice.options[:1])
        if choice.kind in every or any(fnmatchcase(choice.name, p) for p in every)
        else choice
        for choice in choices
    )
