from __future__ import annotations

import pytest

from autocompress.core.held import hold, parse_held
from autocompress.core.space import Choice
from autocompress.errors import RequestError

CHOICES = (
    Choice("depth:stage", (3, 2, 1), "architecture"),
    Choice("kernel:a", (5, 3), "architecture"),
    Choice("width:a", (16, 8)),
    Choice("width:b", (32, 16)),
    Choice("recipe:weight", (0.5, 1.0), "recipe"),
)


@pytest.mark.parametrize(
    ("patterns", "still"),
    [
        ((), []),
        (("architecture",), ["depth:stage", "kernel:a"]),
        (("width:*",), ["width:a", "width:b"]),
        (("width:b", "recipe"), ["width:b", "recipe:weight"]),
        (("*:?",), ["kernel:a", "width:a", "width:b"]),
    ],
    ids=["nothing", "kind", "pattern", "name and kind", "characters"],
)
def test_what_is_held_keeps_its_first_option(patterns: tuple[str, ...], still: list[str]) -> None:
    found = hold(CHOICES, patterns)
    assert [c.name for c in found] == [c.name for c in CHOICES]
    assert [c.name for c in found if len(c.options) == 1] == still
    for before, after in zip(CHOICES, found, strict=True):
        assert after.options[0] == before.options[0]
        assert after == before or after.name in still


def test_a_kind_that_a_space_lacks_is_no_mistake() -> None:
    assert hold(CHOICES[:2], ["recipe"]) == CHOICES[:2]


def test_what_another_space_held_may_be_nowhere() -> None:
    found = hold(CHOICES, ["width:a"], inherited=["rank:*", "width:b"])
    assert [c.name for c in found if len(c.options) == 1] == ["width:a", "width:b"]
    assert hold(CHOICES, ["rank:*"], inherited=["rank:*"]) == CHOICES
    with pytest.raises(RequestError, match=r"no choice is called 'rank:\*'"):
        hold(CHOICES, ["rank:*"], inherited=["width:b"])


def test_a_name_that_is_nowhere_is_one() -> None:
    with pytest.raises(RequestError, match=r"no choice is called 'widht:\*'.*width:\*"):
        hold(CHOICES, ["widht:*"])


@pytest.mark.parametrize("held", ["width:*", [3], (None,)], ids=["text", "number", "none"])
def test_what_is_no_list_of_names(held: object) -> None:
    with pytest.raises(RequestError, match="give a list"):
        parse_held(held)  # type: ignore[arg-type]


def test_repetitions_are_dropped() -> None:
    assert parse_held(["width:*", "recipe", "width:*"]) == ("width:*", "recipe")
