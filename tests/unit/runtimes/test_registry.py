"""Runtimes by name."""

from __future__ import annotations

import pytest

from autocompress.errors import RequestError
from autocompress.runtimes import list_runtimes, load_runtime


def test_onnxruntime_is_built_in() -> None:
    assert "onnxruntime" in list_runtimes()
    assert load_runtime().name == "onnxruntime"


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(RequestError, match=r"'openvina'.*onnxruntime"):
        load_runtime("openvina")


class _Point:
    name, value = "mine", "somewhere:Thing"

    def load(self) -> type:
        return dict


def test_a_plugin_that_is_no_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autocompress.runtimes.registry.entry_points", lambda **_: [_Point()])
    assert "mine" in list_runtimes()
    with pytest.raises(RequestError, match="somewhere:Thing"):
        load_runtime("mine")
