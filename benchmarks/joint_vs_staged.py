"""Joint search against staged work at equal budget: is one search over everything better?

Arms, each with the same wall-clock seconds, data, start and prices:

- ``joint``: one search over architecture and compression.
- ``staged``: architecture search (widths included) in half of the time; pruning and low rank of the
  best architectures in a fifth; mixed precision of the best networks so far, pruned or not, in the
  rest. Each stage trains on from the weights of the one before, with its batch norms; stages train
  in full only as many models as the next one goes on with; searches are as many as leave each
  :data:`benchmarks._arms.LEAST_SECONDS`. Every verified model of every stage counts.
- ``uniform``: architecture search, then its networks and the original in int8 in every layer, each
  trained in that for an equal share of a fifth of the time.
- ``random``: the joint space, candidates drawn uniformly, without seeds; the rest is the same.
- ``architecture``: in floats; ``compression``: of the largest structure. Both for comparison.

One rule about time for all arms: what is done again only because an arm is several calls (capture,
timing of a step, the baselines; nothing is chosen there) is not counted, and said beside what is.
Everything else is, export and verification included. Every arm's last stage ends with at most
:data:`benchmarks._arms.ENDING` verified models.

By default all arms and seeds begin with the same trained largest network, as one that a user has,
whose training is not in the budget (``--start scratch``: each trains its own within it). The two
baselines of every search, its start in fp32 and int8, are verified models like any other. An arm's
front is chosen by validation accuracy, estimated latency and bytes; its volume is that of
accuracies on the test examples, which no search has seen: those that it verifies models on are of
the training part. Latencies are those of one table, measured before the first arm. ``hv`` is over
accuracy, latency and size: points above ``--floor`` times doublings below the original in floats,
for each cost; ``*_linear`` takes shares of the original's cost that are saved instead.

Arms run seed by seed, each in a process of its own on its own cores, and are kept as they end:
after an interruption the same command goes on, and runs again what failed. ``--threads 1
--parallel 2`` runs two at a time.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from autocompress.core.cores import usable_cores
from benchmarks._comparison import OTHERS, Outcome, compare
from benchmarks._data import folder
from benchmarks._fronts_plot import draw
from benchmarks._kept import ROOT, keep_json, kept_json, runs_of
from benchmarks._protocol import Ground, Protocol
from benchmarks._truth import measure_all
from benchmarks._volumes import Reference, Row, front, volumes

ARMS = ("joint", "staged", "uniform", "random", "architecture", "compression")
QUICK_ARMS = ("joint", *OTHERS)
PLOTS = Path(__file__).resolve().parent / "plots"


def options(parser: argparse._ArgumentGroup) -> None:
    """Options of this benchmark."""
    parser.add_argument("--space", choices=("resnet", "mobile_cnn"), default="resnet")
    parser.add_argument("--minutes", type=float, default=None, help="of each arm (8)")
    parser.add_argument("--seeds", type=int, default=None, help="how many, from --seed on (3)")
    parser.add_argument("--arms", default=None, metavar="A,B", help=", ".join(ARMS))
    parser.add_argument("--runs", type=Path, default=None, help="folder that runs are kept in")
    parser.add_argument("--threads", type=int, default=None, help="cores of an arm (all)")
    parser.add_argument("--parallel", type=int, default=1, help="arms at a time")
    parser.add_argument("--start", choices=("trained", "scratch"), default="trained")
    parser.add_argument("--epochs", type=int, default=None, help="of the largest's training (30)")
    parser.add_argument("--floor", type=float, default=0.5, help="accuracy from which models count")


def main(
    *,
    quick: bool,
    data: Path | None,
    seed: int,
    space: str = "resnet",
    minutes: float | None = None,
    seeds: int | None = None,
    arms: str | None = None,
    runs: Path | None = None,
    threads: int | None = None,
    parallel: int = 1,
    start: str = "trained",
    epochs: int | None = None,
    floor: float = 0.5,
) -> dict[str, Any]:
    """Run it, or what is missing of it; needs CIFAR-10."""
    chosen = _arms(arms, quick)
    cores = sorted(os.sched_getaffinity(0))[: usable_cores()]
    each = threads or max(1, len(cores) // parallel)
    if each * parallel > len(cores):
        raise SystemExit(f"{parallel} arms of {each} threads need more than {len(cores)} cores")
    seconds = 60.0 * (minutes if minutes is not None else 0.75 if quick else 8.0)
    name = f"{space}-{start}-{seconds:.0f}s-{each}t{'-quick' if quick else ''}"
    place = (runs or runs_of("joint_vs_staged")) / name
    Protocol(
        data=str(folder(data, "cifar10").resolve()), space=space, start=start, seconds=seconds,
        threads=each, train=2_000 if quick else 10_000, val=400 if quick else 2_000,
        checked=200 if quick else 1_000, test=1_000 if quick else 10_000,
        epochs=epochs or (2 if quick else 30),
        table_seconds=10.0 if quick else 240.0, floor=0.1 if quick else floor,
    ).keep(place)  # fmt: skip
    numbers = [seed + i for i in range(seeds or (1 if quick else 3))]
    print(f"{place}: {len(chosen)} arms, seeds {numbers}, {seconds:.0f} s each, {each} threads, "
          f"{parallel} at a time", flush=True)  # fmt: skip
    _child(place, numbers[0], "prepare", cores)
    _run_missing(place, numbers, chosen, cores, each, parallel)
    outcomes = _read(place, numbers, chosen)
    if not outcomes:
        raise SystemExit("no arm came to an end")
    return _report(place, outcomes, chosen, quick=quick)


def _arms(text: str | None, quick: bool) -> list[str]:
    chosen = [a.strip() for a in text.split(",")] if text else list(QUICK_ARMS if quick else ARMS)
    if unknown := [arm for arm in chosen if arm not in ARMS]:
        raise SystemExit(f"there is no arm {unknown[0]!r}; there are {', '.join(ARMS)}")
    return chosen


def _run_missing(
    place: Path,
    seeds: Sequence[int],
    arms: Sequence[str],
    cores: Sequence[int],
    each: int,
    parallel: int,
) -> None:
    """Every arm that has not ended well yet, seed by seed; each takes free cores of its own."""
    free: SimpleQueue[Sequence[int]] = SimpleQueue()
    for i in range(parallel):
        free.put(cores[i * each : (i + 1) * each])

    def run(job: tuple[int, str]) -> None:
        number, arm = job
        kept = kept_json(place / f"seed{number}" / f"{arm}.json")
        if kept is not None and kept["failure"] is None:
            return
        own = free.get()
        try:
            _child(place, number, arm, own)
        finally:
            free.put(own)

    with ThreadPoolExecutor(parallel) as pool:
        list(pool.map(run, [(number, arm) for number in seeds for arm in arms]))


def _child(place: Path, seed: int, arm: str, cores: Sequence[int]) -> None:
    """Run one arm on its cores; what it printed and why it failed is printed when it has ended."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(len(cores)), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [
            sys.executable, "-m", "benchmarks._arms", str(place), str(seed), arm,
            ",".join(map(str, cores)),
        ],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.stdout or arm != "prepare":
        print(f"seed {seed}, {arm}:\n{done.stdout.rstrip()}", flush=True)
    if done.returncode:
        print(f"  failed with status {done.returncode}: {done.stderr[-2000:]}", flush=True)
        if arm == "prepare":
            raise SystemExit("the arms have nothing to begin with")


def _read(place: Path, seeds: Sequence[int], arms: Sequence[str]) -> list[Outcome]:
    kept = [kept_json(place / f"seed{seed}" / f"{arm}.json") for seed in seeds for arm in arms]
    return [outcome for outcome in kept if outcome is not None]


def _measured(place: Path, outcomes: Sequence[Outcome]) -> Row:
    """Put the measured latency of every model on a front into its row; kept once it is known.

    Returns:
        The row of the original in floats: the first baseline of an arm's first search.
    """
    models = [row for outcome in outcomes for row in outcome["models"]]
    if not models:
        said = "; ".join(f"{o['arm']}, seed {o['seed']}: {o['failure']}" for o in outcomes)
        raise SystemExit(f"no arm found a model ({said})")
    original: dict[str, Any] = models[0]
    path = place / "measured.json"
    known: dict[str, float] = kept_json(path) or {}
    rows = [original, *(row for outcome in outcomes for row in outcome["front"])]
    files = {r["sha256"]: place / r["path"] for r in rows if r["sha256"] not in known}
    if files:
        known |= measure_all(files, "onnxruntime", 1)
        keep_json(path, known)
    for row in rows:
        row["latency_ms"] = known.get(row["sha256"])
    return original


def _report(
    place: Path, outcomes: Sequence[Outcome], arms: Sequence[str], *, quick: bool
) -> dict[str, Any]:
    reference = Ground(place, outcomes[0]["seed"]).reference
    for outcome in outcomes:
        outcome["front"] = front(outcome["models"])
    original = _measured(place, outcomes)
    timed = replace(reference, latency_ms=original["latency_ms"] or reference.latency_ms)
    for outcome in outcomes:
        measured = volumes(outcome["front"], timed, latency="latency_ms")
        outcome["volumes"] = volumes(outcome["front"], reference) | {
            f"{name}_measured": measured[name] for name in ("hv", "hv_latency")
        }
    _print(outcomes, reference)
    fronts = {arm: [o["front"] for o in outcomes if o["arm"] == arm] for arm in arms}
    plot = (place if quick else PLOTS) / f"joint_vs_staged_{place.name}.svg"
    draw(plot, {arm: found for arm, found in fronts.items() if found}, reference)
    print(f"plot: {plot}")
    return compare(outcomes, reference)


def _print(outcomes: Sequence[Outcome], reference: Reference) -> None:
    print(f"\nreference: accuracy {reference.accuracy:.0%}, {reference.latency_ms:.4f} ms, "
          f"{reference.size_bytes:,.0f} bytes (the original in floats)")  # fmt: skip
    names = list(outcomes[0]["volumes"])
    for outcome in outcomes:
        print(f"\n{outcome['arm']}, seed {outcome['seed']}: {outcome['seconds']:.0f} s of "
              f"{outcome['budget']:.0f} s and {outcome['credit']:.0f} s to get ready again, "
              f"{outcome['cpu_seconds']:.0f} s of processors; "
              + (outcome["failure"] or f"{len(outcome['front'])} of {len(outcome['models'])} "
                 "verified models on the front"))  # fmt: skip
        print(f"  {'test':>7} {'val':>7} {'est. ms':>9} {'ms':>9} {'bytes':>10}  from")
        for row in sorted(outcome["front"], key=lambda r: -r["accuracy"]):
            timed = row.get("latency_ms")
            print(f"  {row['accuracy']:7.2%} {row['val_accuracy']:7.2%} "
                  f"{row['latency_estimate_ms']:9.4f} "
                  + (f"{timed:9.4f} " if timed else f"{'-':>9} ")
                  + f"{row['size_bytes']:10,}  {row['stage']} {row['id']}")  # fmt: skip
    print(f"\n{'arm':14} {'seed':>4} " + " ".join(f"{name:>19}" for name in names))
    for outcome in sorted(outcomes, key=lambda o: (ARMS.index(o["arm"]), o["seed"])):
        print(f"{outcome['arm']:14} {outcome['seed']:>4} "
              + " ".join(f"{outcome['volumes'][name]:19.3f}" for name in names))  # fmt: skip
