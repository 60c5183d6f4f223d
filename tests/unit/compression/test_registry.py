"""Techniques by name."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from typing import Any

import pytest

from autocompress.compression import registry
from autocompress.compression.registry import (
    available_techniques,
    default_techniques,
    make_techniques,
)
from autocompress.compression.sparsity import Sparsity
from autocompress.errors import RequestError


def test_built_in_techniques_in_order_of_application() -> None:
    names = [t.name for t in default_techniques()]
    assert names == ["pruning", "low_rank", "sparsity", "quantization", "clustering"]
    assert list(available_techniques()) == [*names, "distillation"]
    assert [n for n, t in available_techniques().items() if t.on_request] == ["distillation"]
    assert [t.name for t in make_techniques(["distillation"])] == ["distillation"]
    assert len({t.order for t in default_techniques()}) == len(names)


def test_the_order_of_names_does_not_matter() -> None:
    made = make_techniques(["quantization", "pruning"])
    assert [t.name for t in made] == ["pruning", "quantization"]
    assert make_techniques([]) == []


def test_an_unknown_name() -> None:
    with pytest.raises(RequestError, match=r"unknown technique 'magic'; use some of .*pruning"):
        make_techniques(["pruning", "magic"])


def test_techniques_of_other_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [
        EntryPoint("theirs", "autocompress.compression.sparsity:Sparsity", registry.ENTRY_POINTS),
        EntryPoint("pruning", "autocompress.compression.sparsity:Sparsity", registry.ENTRY_POINTS),
    ]

    def found(*, group: str) -> list[Any]:
        return entries if group == registry.ENTRY_POINTS else []

    monkeypatch.setattr(registry, "entry_points", found)
    assert available_techniques()["theirs"] is Sparsity
    assert available_techniques()["pruning"] is not Sparsity
    assert isinstance(make_techniques(["theirs"])[0], Sparsity)
