"""How many candidates a second the table prices, and that vectorised prices are the exact ones.

The space is that of a ResNet-20 (He et al. 2016) at CIFAR size as a user would hand it over: every
width, precision, rank, sparsity and depth that the product offers, priced with the built-in profile
(any profile will do: this is arithmetic). Genomes are uniform random, the hardest case for what is
learnt from one candidate for the next.

``candidates_per_s`` counts genomes whose parts have been seen before, as in a search that has been
running for a while (median of five batches; one before them, for which tables are set up, is not
counted); ``candidates_per_s_fresh`` a batch of new ones after that, with whatever has
to be priced in full for them.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from autocompress.elastic.space import ElasticSpace
from autocompress.hardware.predictor import LatencyPredictor
from autocompress.hardware.pricing import CandidatePricer
from autocompress.hardware.profiles import list_profiles, load_profile


class _Block(nn.Module):
    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.skip: nn.Module = nn.Identity()
        if stride != 1 or before != width:
            self.skip = nn.Sequential(
                nn.Conv2d(before, width, 1, stride, bias=False), nn.BatchNorm2d(width)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(x)))))
        return torch.relu(y + self.skip(x))


class ResNet20(nn.Module):
    """Three stages of three basic blocks, widths 16, 32 and 64."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16))
        stages: list[nn.Module] = []
        before = 16
        for number, width in enumerate((16, 32, 64)):
            blocks = []
            for block in range(3):
                blocks.append(_Block(before, width, 2 if number and not block else 1))
                before = width
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(n, 3, 32, 32)`` to ``(n, 10)``."""
        x = self.stages(torch.relu(self.stem(x)))
        scores: torch.Tensor = self.head(x.mean((2, 3)))
        return scores


def main(*, quick: bool, data: Path | None, seed: int) -> dict[str, Any]:
    """Run it; needs no data."""
    torch.set_num_threads(1)
    space = ElasticSpace.from_model(ResNet20(), (torch.randn(1, 3, 32, 32),))
    profile = load_profile(list_profiles()[0])
    pricer = CandidatePricer(space, LatencyPredictor(profile), seed=seed)
    rng = np.random.default_rng(seed)
    count = 2_000 if quick else 20_000
    genomes = np.stack([space.sample(rng) for _ in range(count)])

    started = time.perf_counter()
    pricer.arrays(genomes)
    learning_s = time.perf_counter() - started
    learnt = pricer.full_evaluations

    many = genomes[rng.integers(count, size=100_000)]
    pricer.arrays(many)
    walls, cpus = [], []
    for _ in range(5):
        wall, cpu = time.perf_counter(), time.process_time()
        pricer.arrays(many)
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    wall, cpu = float(np.median(walls)), float(np.median(cpus))

    fresh = np.stack([space.sample(rng) for _ in range(count)])
    started = time.perf_counter()
    found = pricer.arrays(fresh)
    fresh_s = time.perf_counter() - started
    taught = pricer.full_evaluations - learnt

    checked = rng.choice(count, size=min(count, 200 if quick else 1_000), replace=False)
    started = time.perf_counter()
    exact = [pricer.exact(fresh[i]) for i in checked]
    exact_s = (time.perf_counter() - started) / len(checked)
    worst = {
        name: max(abs(values[i] - e[name]) for i, e in zip(checked, exact, strict=True))
        for name, values in found.items()
    }
    result = {
        "layers": len(space.graph.layers),
        "genes": len(space.choices),
        "candidates_per_s": len(many) / wall,
        "candidates_per_cpu_s": len(many) / cpu,
        "candidates_per_s_fresh": len(fresh) / fresh_s,
        "full_share_fresh": taught / len(fresh),
        "one_by_one_per_s": 1.0 / exact_s,
        "learning_s": learning_s,
        "full_evaluations": learnt,
        "checked": len(checked),
        "max_abs_diff_ms": worst["latency_ms"],
        "max_abs_diff_bytes": max(worst["size_bytes"], worst["peak_memory_bytes"]),
        "max_abs_diff_macs": worst["macs"],
    }
    _print(result, profile.id)
    return result


def _print(result: dict[str, Any], profile: str) -> None:
    print(f"ResNet-20, {result['layers']} layers, {result['genes']} genes, profile {profile}\n")
    rows = [
        ("priced, parts seen before", f"{result['candidates_per_s']:,.0f} candidates/s"),
        ("  the same by CPU time", f"{result['candidates_per_cpu_s']:,.0f} candidates/s"),
        (
            "priced, new random genomes",
            f"{result['candidates_per_s_fresh']:,.0f} candidates/s "
            f"({result['full_share_fresh']:.1%} of them in full)",
        ),
        ("priced one by one", f"{result['one_by_one_per_s']:,.0f} candidates/s"),
        (
            "learning",
            f"{result['learning_s']:.1f} s, {result['full_evaluations']:,} candidates in full",
        ),
        (
            f"largest difference over {result['checked']}",
            f"{result['max_abs_diff_ms']:.1e} ms, {result['max_abs_diff_bytes']:.1e} bytes, "
            f"{result['max_abs_diff_macs']:.1e} MACs",
        ),
    ]
    for name, value in rows:
        print(f"{name:30} {value}")
