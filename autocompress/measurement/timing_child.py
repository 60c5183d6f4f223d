"""The child of :mod:`autocompress.measurement.models`: a request on stdin, JSON on stdout."""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np

from autocompress.errors import AutocompressError
from autocompress.measurement.protocol import TimingProtocol
from autocompress.measurement.timer import Call, time_interleaved
from autocompress.runtimes.base import Runtime
from autocompress.runtimes.registry import load_runtime


def main() -> None:
    """Time the requested models in turns and print one answer per model."""
    request = json.load(sys.stdin)
    runtime = load_runtime(request["runtime"])
    protocol = TimingProtocol.from_json(request["protocol"])
    answers: list[dict[str, Any]] = []
    calls: list[Call] = []
    places: list[int] = []
    for path in request["paths"]:
        try:
            calls.append(_call(runtime, path, request["threads"]))
            places.append(len(answers))
            answers.append({})
        except AutocompressError as error:
            answers.append({"error": str(error)})
    environment = {"runtime": runtime.fingerprint}
    for place, timing in zip(places, time_interleaved(calls, protocol), strict=True):
        answers[place] = {
            "value_us": timing.value_us,
            "batches_us": timing.batches_us,
            "runs": timing.runs,
            "dropped": timing.dropped,
            "environment": environment,
        }
    print(json.dumps(answers))


def _call(runtime: Runtime, path: str, threads: int) -> Call:
    session = runtime.load(path, threads=threads)
    rng = np.random.default_rng(0)
    inputs = {}
    for spec in session.inputs:
        zeros = spec.zeros()
        real = zeros.dtype.kind == "f"
        inputs[spec.name] = rng.standard_normal(zeros.shape).astype(zeros.dtype) if real else zeros
    return session.bound(inputs)


if __name__ == "__main__":
    main()
