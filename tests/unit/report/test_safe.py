from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autocompress.report.safe import Html, element, label, script_json, text

_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(_json)
def test_script_json_is_the_value_and_cannot_end_the_script(value: Any) -> None:
    raw = script_json(value)
    assert json.loads(raw) == value
    assert not set("<>&") & set(raw)


def test_what_is_not_finite_becomes_null() -> None:
    assert script_json({"a": float("nan"), "b": [float("inf"), 1.5]}) == '{"a":null,"b":[null,1.5]}'


@given(st.text())
def test_text_leaves_no_markup(value: str) -> None:
    assert not set("<>\"'") & set(text(value))


def test_markup_is_not_escaped_twice() -> None:
    inner = element("b", "1 < 2", title='"')
    assert element("p", inner) == '<p><b title="&quot;">1 &lt; 2</b></p>'
    assert isinstance(inner, Html)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        pytest.param("<b>x</b>", "&lt;b&gt;x&lt;/b&gt;", id="tags"),
        pytest.param("a\n b", "a b", id="white-space"),
        pytest.param("x" * 60, "x" * 47 + "…", id="long"),
    ],
)
def test_label(value: str, shown: str) -> None:
    assert label(value) == shown
