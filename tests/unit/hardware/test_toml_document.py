"""Lines of keys."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autocompress.errors import ProfileError
from autocompress.hardware.toml_document import KeyPath, Place, TomlDocument

TEXT = '''# a comment = 1
top = "a [b] = {c} # no comment"
long = """
[fake]
fake = 1
"""

[one] # comment
x = [
    { y = 1, z = "],[" },
    # nothing = 1
    { y = 2 },
]
"quoted key" = 1
dotted.name = 2

[one.two]
last = '\\'

[[many]]
n = 1

[[many]]
n = 2
'''


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("top",), 2),
        (("long",), 3),
        (("fake",), None),
        (("one",), 8),
        (("one", "x"), 9),
        (("one", "x", 0, "y"), 10),
        (("one", "x", 1, "y"), 12),
        (("one", "quoted key"), 14),
        (("one", "dotted", "name"), 15),
        (("one", "absent"), 8),
        (("one", "two", "last"), 18),
        (("many", 0, "n"), 21),
        (("many", 1, "n"), 24),
    ],
    ids=str,
)
def test_lines_of_keys(path: KeyPath, line: int | None) -> None:
    document = TomlDocument.parse(TEXT.encode(), "file.toml")
    assert document.line(path) == line


def test_the_message() -> None:
    document = TomlDocument.parse(TEXT.encode(), "file.toml")
    place = Place(document) / "one" / "x" / 1 / "y"
    assert str(place.error("is 2")) == "file.toml, line 12: one.x[1].y is 2"
    assert place.name == "one.x.y"
    assert str(Place(document).error("is short")) == "file.toml: is short"


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"a = 1\nb = ", "line 2"),
        (b"\xff = 1", "UnicodeDecodeError"),
        (b"a=" + b"[" * 100_000, "RecursionError"),
        (b"a=" + b"1" * 100_000, "ValueError"),
        (b"a." * 100_000 + b"a=1", "twelve parts"),
    ],
    ids=["cut", "bytes", "nested", "digits", "dots"],
)
def test_what_is_no_toml(raw: bytes, words: str) -> None:
    with pytest.raises(ProfileError, match=words):
        TomlDocument.parse(raw, "file.toml")


@given(
    st.dictionaries(
        st.text(st.characters(codec="utf-8"), min_size=1, max_size=8),
        st.lists(st.text(st.characters(codec="utf-8"), max_size=8), max_size=3),
        max_size=4,
    )
)
def test_lines_are_those_of_plain_keys(values: dict[str, list[str]]) -> None:
    import tomli_w

    document = TomlDocument.parse(tomli_w.dumps(values | {"end": 1}).encode(), "file.toml")
    lines = document.text.split("\n")
    number = document.line(("end",))
    assert number is not None
    assert lines[number - 1] == "end = 1"
