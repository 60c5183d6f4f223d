"""What to know about a profile."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from autocompress.hardware.profile import Provenance, RuntimeSpec, Validation
from autocompress.hardware.quality import concerns
from autocompress.hardware.table import LatencyTable
from tests.unit.hardware.profile_files import full_profile


def test_nothing_to_say() -> None:
    assert concerns(full_profile()) == ()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"validation": Validation()}, "validated on 0 networks"),
        ({"validation": Validation(9, 0.05, 0.11, 0.2)}, "wrong by more than 11.0%"),
        ({"kind": "analytic"}, "no constraint can be proved"),
        ({"kind": "transferred"}, "derived from other devices"),
        ({"kind": "simulated"}, "from a simulator"),
        ({"table": LatencyTable()}, "the latency table is empty"),
        ({"runtime": RuntimeSpec(lowering="unheard")}, "does not know the lowering 'unheard'"),
        ({"provenance": Provenance()}, "does not say when"),
        ({"provenance": Provenance("2026-01-31", "x")}, "name the protocol table"),
        ({"kind": "analytic", "provenance": Provenance("2026-01-31", "x")}, "cites no sources"),
        ({"kind": "transferred", "provenance": Provenance()}, "which profiles it was transferred"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_concerns(change: dict[str, Any], words: str) -> None:
    assert any(words in line for line in concerns(replace(full_profile(), **change)))
