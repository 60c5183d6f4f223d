"""Models of torchvision through ``SearchSpace.from_model``: elastic against realised.

Random candidates with all techniques, of families that differ most (see
:mod:`benchmarks._subjects`): ``max_model_diff``. Each choice is turned to each of its options:
``knobs`` counts them, and names those that leave the outputs as they were.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from benchmarks._elastic_forms import candidates, look_at
from benchmarks._subjects import FAMILIES, of_torchvision

#: Families that a quick run looks at.
QUICK = ("squeezenet1_1", "mobilenet_v3_small")


def main(*, quick: bool, data: Path | None, seed: int) -> dict[str, Any]:
    """Run it; ``data`` is not used: inputs are random."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        families = QUICK if quick else tuple(FAMILIES)
        models = look_at(families, of_torchvision, quick=quick, seed=seed)
    finally:
        torch.set_num_threads(before)
    return {
        "n_each_model": candidates(quick=quick),
        "max_model_diff": models["max_diff"],
        "least_spread": models["least_spread"],
        "knobs": models["knobs"],
    }
