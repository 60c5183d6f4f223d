"""A run folder written by hand: every figure in it is invented for these tests."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from autocompress.core.budget import Fidelity
from autocompress.core.candidate import Candidate
from autocompress.core.trial import TrialRecord
from autocompress.search.store import TrialStore

HOSTILE = '<script>alert("x")</script><img src=x onerror=alert(1)>'
LAYERS = [f"stage{s}.{b}.conv{c}" for s in (1, 2, 3) for b in (0, 1) for c in (1, 2)] + ["head"]
MODELS = {
    "1a2b3c4d5e6f": (0.853, 0.210, 0.221, 329_000, "int8 throughout"),
    "2b3c4d5e6f7a": (0.851, 0.148, 0.152, 208_000, "int8; stage3 at 75 % width; head rank 16"),
    "3c4d5e6f7a8b": (0.848, 0.125, 0.131, 121_000, "int8, stage3 in 4 bits; stage2 at 75 % width"),
    "123456789012": (0.839, 0.101, 0.099, 84_000, "4-bit stage2 and stage3; stage3 at 50 % width"),
    "5e6f7a8b9c0d": (0.812, 0.070, 0.079, 41_000, "4- and 2-bit; half width; stage2.1 dropped"),
}
RUN_TOML = """
[run]
id = "20261122-101500-ab12"
created = "2026-11-22T10:15:00+00:00"
version = "0.1.0"
seed = 0
status = "{status}"
command = "autocompress search --model net.py:build --data digits --budget 10m"

[request]
model = "resnet20"
data = "digits"
device = "local"
budget_seconds = 600.0
objectives = ["accuracy", "latency_ms", "size_bytes"]
techniques = ["width", "bits", "rank"]
strategy = "nsga2"
executor = "local"
workers = 1
constraints = {{ accuracy_drop = 0.01 }}

[versions]
torch = "2.15.0"
onnxruntime = "1.31.1"
python = "3.11.7"

[machine]
cpu = "Fixture CPU"
cores = 2
os = "Linux"
"""


def row(identifier: str, kind: str, accuracy: float, latency: float, size: int) -> dict[str, Any]:
    """A row of pareto.csv with the figures that follow from these."""
    return {
        "id": identifier,
        "kind": kind,
        "name": identifier.removeprefix("baseline-") if kind == "baseline" else identifier[:8],
        "accuracy": accuracy,
        "accuracy_low": round(accuracy - 0.007, 4),
        "accuracy_high": round(accuracy + 0.007, 4),
        "val_accuracy": round(accuracy + 0.004, 4),
        "accuracy_drop": round(0.854 - accuracy, 4),
        "latency_ms": latency,
        "latency_low_ms": round(latency * 0.98, 5),
        "latency_high_ms": round(latency * 1.03, 5),
        "size_bytes": size,
        "packed_bytes": int(size * 0.8),
        "macs": int(latency * 9e7),
        "parameters": size,
        "peak_memory_bytes": 131_072,
        "speedup": round(0.444 / latency, 4),
        "size_ratio": round(1_096_000 / size, 4),
        "agreement": 0.998,
        "changes": "",
    }


def layers_of(index: int) -> list[dict[str, Any]]:
    """Per-layer rows of a manifest; later models are compressed harder."""
    listed = []
    for i, name in enumerate(LAYERS):
        if index == 4 and name.startswith("stage2.1"):
            continue
        stage = i // 4
        width = 16 * 2**stage
        bits = 8 if index < 2 or stage < 2 else 4
        listed.append(
            {
                "name": name,
                "kind": "linear" if name == "head" else "conv",
                "weight_bits": 2 if index == 4 and stage == 2 else bits,
                "activation_bits": 8,
                "width": width // 2 if index >= 3 and stage >= 1 else width,
                "original_width": width,
                "sparsity": 0.0,
                "rank": 16 if name == "head" and index else None,
                "macs": 2_300_000,
                "parameters": 9_216,
                "bytes": 9_216 * bits // 8,
                "latency_estimate_ms": 0.011,
            }
        )
    return listed


def check(name: str, ok: bool, value: float, limit: float, detail: str = "") -> dict[str, Any]:
    """A verification check."""
    return {"name": name, "ok": ok, "value": value, "limit": limit, "detail": detail}


def write_run(folder: Path, *, hostile: bool = False, status: str = "complete") -> Path:
    """Write a whole run folder; with ``hostile``, names and reasons hold markup."""
    evil = HOSTILE if hostile else ""
    folder.mkdir(parents=True, exist_ok=True)
    text = RUN_TOML.format(status=status)
    if hostile:
        text = text.replace('"resnet20"', f"'{HOSTILE}'").replace('"local"', f"'{HOSTILE}'")
    (folder / "run.toml").write_text(text, encoding="utf-8")
    baselines = [
        row("baseline-fp32", "baseline", 0.854, 0.444, 1_096_000),
        row("baseline-int8", "baseline", 0.853, 0.220, 329_000),
    ]
    solutions = []
    for i, (identifier, figures) in enumerate(MODELS.items()):
        accuracy, estimate, latency, size, changes = figures
        solution = row(identifier, "solution", accuracy, latency, size)
        solution |= {
            "latency_estimate_ms": estimate,
            "latency_estimate_low_ms": round(estimate * 0.93, 4),
            "latency_estimate_high_ms": round(estimate * 1.07, 4),
            "size_estimate_bytes": int(size * 0.99),
            "changes": changes + evil,
            "name": solution["name"] + evil,
        }
        solutions.append(solution)
        manifest = {
            "id": identifier,
            "name": solution["name"],
            "sha256": f"{i}" * 64,
            "size_bytes": size,
            "metrics": solution,
            "checks": [
                check("agreement", True, 0.998, 0.99),
                check("bytes", True, size, size),
                check("accuracy", True, accuracy, accuracy, evil),
            ],
            "layers": [r | {"name": r["name"] + evil} for r in layers_of(i)],
            "environment": {"runtime": "onnxruntime 1.31.1", "threads": 1},
            "protocol": {"warmup": 5, "passes": 3, "statistic": "25th percentile"},
        }
        _write_json(folder / "models" / identifier / "manifest.json", manifest)
    rejected = {
        "id": "9f8e7d6c5b4a",
        "name": f"9f8e7d6c{evil}",
        "checks": [
            check("agreement", False, 0.931, 0.99, f"runtime and torch disagree {evil}"),
            check("bytes", True, 20_000, 20_000),
        ],
    }
    _write_json(folder / "rejected" / "9f8e7d6c5b4a" / "manifest.json", rejected)
    _write_trials(folder / "study.db", evil)
    _write_json(folder / "baseline.json", baselines)
    with (folder / "pareto.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(solutions[0]))
        writer.writeheader()
        writer.writerows([*baselines, *solutions])
    _write_json(
        folder / "plan.json",
        {
            "stages": [
                {"name": "baseline", "seconds": 20.0, "note": "fp32 and int8 on the runtime"},
                {"name": "search", "seconds": 380.0, "note": f"about 120 trials {evil}"},
            ],
            "trials": 120,
            "sentences": ["120 trials in 6 min 20 s; models 3x to 4x faster look reachable."],
        },
    )
    _write_json(
        folder / "graph.json",
        {
            "layers": [{"name": n, "kind": "conv"} for n in LAYERS],
            "groups": [
                {"name": "g0", "channels": 16, "layers": LAYERS[:2], "rigid": f"residual {evil}"}
            ],
            "blocks": [],
            "skipped": [{"name": f"norm{evil}", "reason": "batch norm is folded away"}],
        },
    )
    _write_json(folder / "trust.json", trust(evil))
    decision = {
        "time": "2026-11-22T10:15:42+00:00",
        "stage": "price",
        "decision": "recalibrate",
        "sentence": f"The table was 12 % too low on two networks; it was fitted again. {evil}",
        "evidence": {"error_before": 0.12, "error_after": 0.03, "note": evil},
    }
    (folder / "decisions.jsonl").write_text(json.dumps(decision) + "\n", encoding="utf-8")
    (folder / "device").mkdir(exist_ok=True)
    (folder / "device" / "profile.toml").write_text('[device]\nname = "local"\n', encoding="utf-8")
    return folder


def trust(evil: str) -> dict[str, Any]:
    """What trust.json holds: one comparison with figures, one without."""
    known = {
        "pairs": 6, "spearman": 0.829, "spearman_low": 0.412, "spearman_high": 1.0,
        "kendall": 0.733, "kendall_low": 0.333, "kendall_high": 1.0, "mean_gap": 0.041,
        "largest_gap": 0.0713, "mean_change": 0.041, "unknown": "",
    }  # fmt: skip
    unknown = {**dict.fromkeys(known), "pairs": 4, "unknown": f"all have the same score {evil}"}
    candidates = [
        {
            "id": f"{i}c{evil}",
            "before": 0.61 + 0.03 * i,
            "after": 0.68 + 0.02 * i,
            "latency_ms": 0.1,
        }
        for i in range(6)
    ]
    shared = {"left_out": [{"id": "f00", "reason": f"loss is NaN {evil}"}], "fidelity": "inherited"}
    return {
        "comparisons": [
            {
                "stage": "trust", "before": "inherited", "after": "short", "agreement": known,
                "candidates": candidates, "sentence": f"6 candidates were compared. {evil}",
                **shared,
            },
            {
                "stage": "finalise", "before": "inherited", "after": "final", "agreement": unknown,
                "candidates": candidates[:4], "sentence": "4 models were compared.", **shared,
            },
        ]
    }  # fmt: skip


def _write_trials(path: Path, evil: str) -> None:
    path.unlink(missing_ok=True)
    with TrialStore(path) as store:
        for i in range(40):
            failed = i % 13 == 5
            latency = 0.08 + 0.004 * ((i * 7) % 40)
            accuracy = 0.70 + 0.1 * (latency - 0.08) / 0.16 + 0.002 * ((i * 11) % 17) + 0.001 * i
            metrics = {"accuracy": accuracy, "latency_ms": latency, "size_bytes": 9e5 * latency}
            store.append(
                TrialRecord(
                    number=i,
                    genome=(i,),
                    candidate=Candidate({"i": i}),
                    fidelity=Fidelity.INHERITED,
                    state="failed" if failed else "complete",
                    metrics={} if failed else metrics,
                    error=f"loss is NaN at step 12 {evil}" if failed else None,
                    seconds=2.5,
                    origin="nsga2",
                )
            )


def _write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
