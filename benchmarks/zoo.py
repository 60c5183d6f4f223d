"""Every classification model of torchvision: captured, elastic, exported, verified.

Each model has a process of its own, with a time limit (see :mod:`benchmarks._zoo_model` for what is
done with it). ``--quick`` takes one model of each family, the smallest. Rows are kept in
``$AUTOCOMPRESS_BENCH_ROWS``, a file of JSON lines, where that is set: what it holds is not done
again.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torchvision

from benchmarks._zoo_model import PIXELS, USUAL_PIXELS, Row

#: Seconds for one model.
LIMIT = 900
#: One model a family, for ``--quick``.
QUICK = (
    "alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "efficientnet_v2_s", "googlenet",
    "inception_v3", "mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small", "regnet_x_400mf",
    "regnet_y_400mf", "resnet18", "resnext50_32x4d", "shufflenet_v2_x0_5", "squeezenet1_1",
    "swin_t", "vgg11_bn", "vit_b_32",
)  # fmt: skip
_STEPS = ("captured", "elastic", "exported", "verified")


def main(*, quick: bool, data: Path | None, seed: int) -> dict[str, Any]:
    """Run it; ``data`` is not used: weights and images are random."""
    names = QUICK if quick else torchvision.models.list_models(module=torchvision.models)
    store = os.environ.get("AUTOCOMPRESS_BENCH_ROWS")
    known = _stored(Path(store)) if store else {}
    rows: list[Row] = []
    print(_HEAD)
    for name in names:
        row = known.get(name) or _in_a_process(name, seed)
        if store and name not in known:
            with Path(store).open("a") as file:
                file.write(json.dumps(asdict(row)) + "\n")
        rows.append(row)
        print(_line(row), flush=True)
    return {
        "n": len(rows),
        **{step: sum(getattr(row, step) for row in rows) for step in _STEPS},
        "max_elastic_diff": max((row.elastic_diff for row in rows if row.verified), default=0.0),
        "max_float_diff": max((row.float_diff for row in rows if row.verified), default=0.0),
        "max_quant_steps": max((row.steps for row in rows if row.verified), default=0),
        "mean_elastic_share": sum(row.elastic_share for row in rows) / len(rows),
        "reasons": {row.name: row.reason for row in rows if row.reason},
    }


def _stored(path: Path) -> dict[str, Row]:
    if not path.is_file():
        return {}
    values = [json.loads(line) for line in path.read_text().splitlines()]
    return {value["name"]: Row(**value) for value in values}


def _in_a_process(name: str, seed: int) -> Row:
    lost = Row(name, PIXELS.get(name, USUAL_PIXELS))
    command = [sys.executable, "-m", "benchmarks._zoo_model", name, "--seed", str(seed)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    except subprocess.TimeoutExpired:
        lost.reason, lost.seconds = f"not done within {LIMIT} s", LIMIT
        return lost
    lines = done.stdout.splitlines()
    if done.returncode != 0 or not lines:
        said = done.stderr.strip().splitlines()
        lost.reason = f"the process ended with {done.returncode}: {said[-1] if said else ''}"
        return lost
    return Row(**json.loads(lines[-1]))


_HEAD = (
    f"{'model':20} {'pixels':>6}  {'capt elas expo veri':19} {'groups':>9} {'blocks':>6} "
    f"{'share':>6} {'elastic':>8} {'floats':>8} {'steps':>5} {'s':>5} {'MB':>6}  reason"
)


def _line(row: Row) -> str:
    marks = " ".join("yes " if getattr(row, step) else "no  " for step in _STEPS)
    return (
        f"{row.name:20} {row.pixels:6d}  {marks} {row.groups[0]:4d}/{row.groups[1]:<4d} "
        f"{row.blocks:6d} {row.elastic_share:6.1%} {row.elastic_diff:8.1e} {row.float_diff:8.1e} "
        f"{row.steps:5d} {row.seconds:5.0f} {row.peak_mb:6.0f}  {row.reason}"
    )
