"""What is simulated is what is realised is what the runtime computes, over random candidates.

1. Of every named space, random candidates with all techniques are realised and compared with the
   elastic model (:mod:`benchmarks._elastic_forms`): ``max_space_diff``. Each choice is turned to
   each of its options: ``knobs`` counts them, and names those that leave the outputs as they were.
   ``exactness_models`` does the same to models.
2. On the digits, a user's model and the named space tiny_cnn go all the way to ONNX Runtime (see
   :mod:`benchmarks._digit_rows`): ``max_float_diff``, ``min_argmax_agreement``,
   ``max_quant_steps``, ``max_output_steps``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from autocompress.evaluation.data import Data
from benchmarks._digit_rows import Row, digit_rows, print_rows
from benchmarks._elastic_forms import candidates, look_at
from benchmarks._subjects import SPACES, named


def main(*, quick: bool, data: Path | None, seed: int) -> dict[str, Any]:
    """Run it; ``data`` is not used: the digits come with scikit-learn."""
    torch.manual_seed(seed)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        spaces = look_at(SPACES, named, quick=quick, seed=seed)
        digits = Data.load("digits")
        rows = digit_rows(digits, 28 if quick else 60, 30 if quick else 60, seed)
    finally:
        torch.set_num_threads(before)
    print_rows(rows)
    return {
        "n_each_space": candidates(quick=quick),
        "max_space_diff": spaces["max_diff"],
        "least_spread": spaces["least_spread"],
        "knobs": spaces["knobs"],
        "examples": len(digits.test),
        **_figures(rows),
    }


def _figures(rows: Sequence[Row]) -> dict[str, Any]:
    integers = [row for row in rows if row.steps >= 0]
    return {
        "n": len(rows),
        "n_user_model": sum(row.way == "model" for row in rows),
        "n_space": sum(row.way == "space" for row in rows),
        "n_integer": len(integers),
        "max_float_diff": max(row.float_diff for row in rows),
        "max_float_runtime_diff": max((r.runtime_diff for r in rows if r.steps < 0), default=0.0),
        "min_argmax_agreement": min(row.agreement for row in rows),
        "max_quant_steps": max((row.steps for row in integers), default=0),
        "max_differing_share": max((row.steps_share for row in integers), default=0.0),
        "max_output_steps": max((row.output_steps for row in integers), default=0.0),
        "checks_failed": sum(not row.checks_ok for row in rows),
    }
