"""Search a small space on the bundled digits and save the best verified model.

Run it with ``python examples/quickstart.py``; it takes about three minutes on two cores.
"""

from __future__ import annotations

import argparse

import autocompress as ac


def main(budget: str = "150s", run_dir: str | None = None) -> ac.SearchResult:
    """Search, print the front, save the most accurate model that is at least twice as fast."""
    result = ac.search("tiny_cnn", "digits", device="local", budget=budget, run_dir=run_dir)

    print(result.baseline[["name", "accuracy", "latency_ms", "size_bytes"]].to_string())
    columns = ["id", "accuracy", "latency_estimate_ms", "latency_ms", "size_bytes", "changes"]
    print(result.pareto[columns].to_string())

    half = float(result.baseline["latency_ms"].iloc[0]) / 2
    best = result.best(max_latency_ms=half)
    print(best.explain().to_string())
    print("saved", best.save("model.onnx"), "- report:", result.run_dir / "report.html")
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget", default="150s")
    parser.add_argument("--run-dir", default=None)
    arguments = parser.parse_args()
    main(arguments.budget, arguments.run_dir)
