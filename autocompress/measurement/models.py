"""Latency of whole models, measured in fresh processes: a crash is data, and none is lucky."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from autocompress.core.measurement import Measurement
from autocompress.measurement.bootstrap import bootstrap_interval
from autocompress.measurement.protocol import PUBLISH, TimingProtocol

#: Seconds a child may take beyond what its protocol asks for.
_GRACE = 60.0


def measure_model(
    path: Path,
    *,
    protocol: TimingProtocol = PUBLISH,
    runtime: str = "onnxruntime",
    threads: int = 1,
) -> Measurement:
    """Batch-1 latency of one model, milliseconds; see :func:`measure_interleaved`."""
    return measure_interleaved([path], protocol=protocol, runtime=runtime, threads=threads)[0]


def measure_interleaved(
    paths: Sequence[Path],
    *,
    protocol: TimingProtocol = PUBLISH,
    runtime: str = "onnxruntime",
    threads: int = 1,
) -> list[Measurement]:
    """Batch-1 latency of several models, taken in turns so that they can be compared.

    The passes are shared out among fresh processes. The figure is the median over processes of
    each one's lower-envelope time; the interval is its 95 % bootstrap interval
    (:func:`~autocompress.measurement.bootstrap.bootstrap_interval`).

    Args:
        paths: artifacts of the runtime.
        protocol: how they are timed.
        runtime: the runtime's name.
        threads: intra-op threads; more than one switches to the wall clock.

    Returns:
        One measurement per path, in milliseconds; a model that cannot be run has an error instead.
    """
    if threads > 1:
        protocol = protocol.with_clock("wall")
    share = replace(
        protocol,
        processes=1,
        passes=max(1, protocol.passes // protocol.processes),
        min_runs=max(1, protocol.min_runs // protocol.processes),
        min_seconds=protocol.min_seconds / protocol.processes,
    )
    answers: list[list[dict[str, Any]]] = []
    for _ in range(protocol.processes):
        answers.append(_child(paths, share, runtime, threads))
    return [
        _combined([answer[i] for answer in answers], protocol, threads) for i in range(len(paths))
    ]


def _child(
    paths: Sequence[Path], protocol: TimingProtocol, runtime: str, threads: int
) -> list[dict[str, Any]]:
    request = {
        "paths": [str(Path(path).resolve()) for path in paths],
        "protocol": protocol.to_json(),
        "runtime": runtime,
        "threads": threads,
    }
    limit = _GRACE + len(paths) * (5.0 + 20.0 * protocol.min_seconds)
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "ORT_DISABLE_TELEMETRY": "1"}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "autocompress.measurement.timing_child"],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            timeout=limit,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return [{"error": f"no answer within {limit:.0f} s"}] * len(paths)
    if done.returncode == 0:
        try:
            found: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
        except (ValueError, IndexError):
            return [{"error": "the timing process gave no answer"}] * len(paths)
        return found
    if len(paths) > 1:  # one model took the process down: find out which
        return [_child([path], protocol, runtime, threads)[0] for path in paths]
    tail = done.stderr.strip().splitlines()[-1:] or [""]
    return [{"error": f"the runtime ended with code {done.returncode}: {tail[0]}"}]


def _combined(
    answers: Sequence[dict[str, Any]], protocol: TimingProtocol, threads: int
) -> Measurement:
    good = [answer for answer in answers if "error" not in answer]
    if not good:
        return Measurement(
            protocol=protocol.to_json(), error=str(answers[0].get("error", "no answer"))
        )
    value = median(answer["value_us"] for answer in good)
    low, high = bootstrap_interval([answer["batches_us"] for answer in good], protocol.quantile)
    return Measurement(
        value=value / 1e3,
        unit="ms",
        low=min(value, low) / 1e3,
        high=max(value, high) / 1e3,
        runs=sum(answer["runs"] for answer in good),
        protocol=protocol.to_json(),
        environment={
            **good[0]["environment"],
            "threads": threads,
            "processes": len(good),
            "dropped_batches": sum(answer["dropped"] for answer in good),
        },
    )
