from __future__ import annotations

import math
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks._fronts_plot import draw
from benchmarks._volumes import Reference, attained, front, paired_ratios, spread, volumes

WORST = Reference(accuracy=0.5, latency_ms=8.0, size_bytes=4000.0)


def row(accuracy: float, latency: float, size: float, **more: Any) -> dict[str, Any]:
    found = {"accuracy": accuracy, "val_accuracy": accuracy, "latency_estimate_ms": latency}
    return found | {"size_bytes": size} | more


def test_one_model_is_a_box() -> None:
    # 10 points above, 2 doublings faster (75 % saved), 1 doubling smaller (50 % saved)
    found = volumes([row(0.6, 2.0, 2000.0)], WORST)
    assert found["hv"] == pytest.approx(10 * 2 * 1)
    assert found["hv_latency"] == pytest.approx(10 * 2)
    assert found["hv_size"] == pytest.approx(10 * 1)
    assert found["hv_linear"] == pytest.approx(10 * 0.75 * 0.5)
    assert found["hv_latency_linear"] == pytest.approx(10 * 0.75)


@pytest.mark.parametrize(
    "useless",
    [row(0.5, 2.0, 2000.0), row(0.6, 8.0, 4000.0), row(0.4, 1.0, 1.0)],
    ids=["at the floor", "the reference's costs", "below the floor"],
)
def test_what_is_no_better_than_the_reference_adds_nothing(useless: dict[str, Any]) -> None:
    assert set(volumes([useless], WORST).values()) == {0.0}
    good = row(0.7, 4.0, 1000.0)
    assert volumes([good, useless], WORST) == pytest.approx(volumes([good], WORST))


def test_another_column_of_latency() -> None:
    rows = [row(0.6, 2.0, 2000.0, latency_ms=4.0), row(0.9, 1.0, 1000.0, latency_ms=None)]
    assert volumes(rows, WORST, latency="latency_ms")["hv_latency"] == pytest.approx(10 * 1)


def test_no_models_have_no_volume() -> None:
    assert set(volumes([], WORST).values()) == {0.0}


def test_the_front_is_chosen_by_validation_examples() -> None:
    better_on_test = row(0.9, 2.0, 2000.0) | {"val_accuracy": 0.6}
    better_on_validation = row(0.6, 2.0, 2000.0) | {"val_accuracy": 0.7}
    assert front([better_on_test, better_on_validation]) == [better_on_validation]


def test_spread() -> None:
    assert spread([1.0, 2.0, 3.0]) == {"mean": 2.0, "min": 1.0, "max": 3.0, "std": 1.0}
    assert spread([4.0])["std"] == 0.0


@pytest.mark.parametrize(
    ("mine", "theirs", "ratio", "by_seed"),
    [
        ({0: 3.0, 1: 6.0}, {0: 1.0, 1: 3.0}, 9 / 4, {0: 3.0, 1: 2.0}),
        ({0: 3.0, 1: 6.0}, {1: 3.0, 2: 9.0}, 2.0, {1: 2.0}),
        ({0: 3.0}, {1: 3.0}, None, {}),
        ({0: 3.0, 1: 1.0}, {0: 0.0, 1: 2.0}, 2.0, {1: 0.5}),
        ({0: 3.0}, {0: 0.0}, None, {}),
    ],
    ids=["same seeds", "some seeds", "no seed", "one is nothing", "all are nothing"],
)
def test_ratios_are_over_the_seeds_of_both(
    mine: dict[int, float], theirs: dict[int, float], ratio: float | None, by_seed: dict[int, float]
) -> None:
    assert paired_ratios(mine, theirs) == (ratio, by_seed)


def test_what_most_seeds_attain() -> None:
    seeds = [[row(0.6, 2.0, 1.0)], [row(0.7, 1.0, 1.0)], [row(0.8, 4.0, 1.0)]]
    assert attained(seeds, "latency_estimate_ms", [1.0, 2.0, 4.0]) == [(2.0, 0.6), (4.0, 0.7)]


def test_a_drawing_is_whole_and_holds_a_dot_for_every_model(tmp_path: Path) -> None:
    path = tmp_path / "plots" / "fronts.svg"
    seeds = [[row(0.6, 2.0, 1000.0), row(0.7, 4.0, 3000.0)], [row(0.65, 3.0, 900.0)]]
    draw(path, {"a & b": seeds, "none": [[]]}, WORST)
    found = ElementTree.parse(path).getroot()  # noqa: S314
    dots = [e for e in found.iter() if e.tag.endswith("circle") and e.get("r") == "2.5"]
    assert len(dots) == 2 * 3
    assert not any(math.isnan(float(e.get("cx", "nan"))) for e in dots)


def test_a_drawing_of_nothing(tmp_path: Path) -> None:
    draw(tmp_path / "fronts.svg", {"joint": [[]]}, WORST)
    assert "no model counts" in (tmp_path / "fronts.svg").read_text()
