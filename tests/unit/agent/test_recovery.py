"""The line from short to full training."""

from __future__ import annotations

import pytest

from autocompress.agent.recovery import Recovery


def test_all_end_alike() -> None:
    found = Recovery.fitted([0.5, 0.9], [0.98, 0.98], 0.98)
    assert found(0.7) == pytest.approx(0.98)


def test_nothing_is_won_back() -> None:
    found = Recovery.fitted([0.5, 0.9], [0.5, 0.9], 0.99)
    assert found(0.7) == pytest.approx(0.7)


def test_full_training_never_reverses_the_order_nor_widens_it() -> None:
    assert Recovery.fitted([0.5, 0.9], [0.9, 0.5], None).slope == 0.0
    assert Recovery.fitted([0.5, 0.6], [0.1, 0.9], None).slope == 1.0


def test_a_lucky_score_is_drawn_back() -> None:
    """Four equal models, one of which was lucky: it is expected near the others."""
    found = Recovery.fitted([0.98, 0.98, 0.98, 0.995], [0.98, 0.98, 0.98, 0.98], 0.98)
    assert found(0.999) == pytest.approx(0.98)


def test_without_anything_trained() -> None:
    assert Recovery.fitted([], [], None)(0.4) == pytest.approx(0.4)
    assert Recovery.fitted([], [], 0.9)(0.4) == pytest.approx(0.4)
