"""What ``autocompress doctor`` looks at: each check is a function, each finding says what to do."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from autocompress.core.cores import usable_cores
from autocompress.report import units

Status = Literal["ok", "warn", "fail"]

_PACKAGES = ("torch", "torchvision", "onnxruntime", "onnx", "onnxscript", "optuna", "numpy")
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - looked at, never written
_ENOUGH_SHARED_MEMORY = 256_000_000


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found.

    Attributes:
        name: what was looked at.
        status: "ok", "warn" (works, with a drawback) or "fail".
        detail: what was found.
        advice: what to do about it, or nothing.
    """

    name: str
    status: Status
    detail: str
    advice: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def run_checks() -> Iterator[Finding]:
    """All findings, one by one; a check that raises is a finding that failed."""
    for name, check, advice in _CHECKS:
        try:
            yield check(name)
        except Exception as error:  # whatever it is, the other checks still run
            reason = str(error).splitlines()[0] if str(error) else "no message"
            yield Finding(name, "fail", f"{type(error).__name__}: {reason}", advice)


def _python(name: str) -> Finding:
    found = f"{platform.python_version()}, {platform.system()} {platform.machine()}"
    return Finding(name, "ok", found)


def _packages(name: str) -> Finding:
    from autocompress import __version__

    found, absent = [f"autocompress {__version__}"], []
    for package in _PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            absent.append(package)
    if absent:
        return Finding(
            name, "fail", f"missing: {', '.join(absent)}", f"pip install {' '.join(absent)}"
        )
    return Finding(name, "ok", ", ".join(found))


def _torchvision(name: str) -> Finding:
    import torch
    import torchvision

    boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 1.9], [5.0, 5.0, 6.0, 6.0]])
    kept = torchvision.ops.nms(boxes, torch.tensor([0.9, 0.8, 0.7]), 0.5)
    if kept.tolist() != [0, 2]:
        return Finding(name, "fail", f"nms kept {kept.tolist()}, not [0, 2]", _PAIR)
    return Finding(name, "ok", f"torchvision::nms works, {torch.get_num_threads()} torch threads")


def _runtime(name: str) -> Finding:
    import numpy as np
    from onnx import TensorProto, helper

    from autocompress.runtimes.onnxruntime import import_onnxruntime

    onnxruntime = import_onnxruntime()
    info = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [3]) for n in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "relu", info[:1], info[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (result,) = session.run(None, {"x": np.array([-1.0, 0.0, 2.0], dtype=np.float32)})
    if result.tolist() != [0.0, 0.0, 2.0]:
        return Finding(name, "fail", f"Relu gave {result.tolist()}", "reinstall onnxruntime")
    return Finding(name, "ok", f"{onnxruntime.__version__} runs a model on the CPU")


def _cpu(name: str) -> Finding:
    model, flags = _cpu_info()
    cores = usable_cores()
    found = f"{model}, {cores} cores"
    fast = sorted(f for f in flags if "vnni" in f or f in {"asimddp", "i8mm", "amx_int8"})
    if fast:
        return Finding(name, "ok", f"{found}, int8 instructions: {', '.join(fast)}")
    advice = "int8 will gain less here; the search measures how much"
    return Finding(name, "warn", f"{found}, no int8 dot-product instructions seen", advice)


def _cpu_info() -> tuple[str, set[str]]:
    model, flags = platform.processor() or "unknown CPU", set[str]()
    info = Path("/proc/cpuinfo")
    if not info.is_file():
        return model, flags
    for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            model = value.strip()
        elif key.strip() in {"flags", "Features"}:
            flags = set(value.split())
    return model, flags


def _threads(name: str) -> Finding:
    present = [f"{key}={os.environ[key]}" for key in _THREADS if key in os.environ]
    if not present:
        return Finding(name, "ok", "no thread variable is set")
    return Finding(
        name,
        "warn",
        ", ".join(present),
        "training uses so many threads; measurements set their own",
    )


def _load(name: str) -> Finding:
    if not hasattr(os, "getloadavg"):
        return Finding(name, "ok", "not known on this system")
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    found = f"load {load:.1f} on {cores} cores"
    if load > 0.5 * cores:
        return Finding(name, "warn", found, "busy cores make latencies wider; stop other work")
    return Finding(name, "ok", found)


def _cache(name: str) -> Finding:
    from autocompress.evaluation.data_sources.cache import cache_folder

    folder = Path(cache_folder())
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder):
        free = shutil.disk_usage(folder).free
    found = f"{folder}, {units.size(free)} free"
    if free < 1e9:
        return Finding(name, "warn", found, "make room, or set AUTOCOMPRESS_CACHE")
    return Finding(name, "ok", found)


def _shared_memory(name: str) -> Finding:
    if not _SHARED_MEMORY.is_dir():
        return Finding(name, "ok", "not used on this system")
    free = shutil.disk_usage(_SHARED_MEMORY).free
    found = f"{units.size(free)} free"
    if free < _ENOUGH_SHARED_MEMORY:
        advice = "in a container: --shm-size=1g; otherwise use --workers 1"
        return Finding(name, "warn", found, advice)
    return Finding(name, "ok", found)


def _spaces(name: str) -> Finding:
    from autocompress.elastic.registry import list_spaces

    known = list_spaces()
    if not known:
        return Finding(name, "fail", "none found", _REINSTALL)
    return Finding(name, "ok", ", ".join(known))


def _profiles(name: str) -> Finding:
    from autocompress.hardware import list_profiles, load_profile

    known = [str(profile) for profile in list_profiles()]
    for profile in known:
        load_profile(profile)
    if not known:
        return Finding(name, "fail", "none found", _REINSTALL)
    return Finding(name, "ok", ", ".join(known))


_PAIR = "torch and torchvision do not fit each other; run: pip install -U torch torchvision"
_REINSTALL = "the installation is incomplete; run: pip install --force-reinstall autocompress"
_Check = tuple[str, Callable[[str], Finding], str]
_CHECKS: tuple[_Check, ...] = (
    ("python", _python, ""),
    ("packages", _packages, "run: pip install -U autocompress"),
    ("torch + torchvision", _torchvision, _PAIR),
    ("onnxruntime", _runtime, "run: pip install -U onnxruntime onnx"),
    ("cpu", _cpu, ""),
    ("threads", _threads, ""),
    ("load", _load, ""),
    ("cache folder", _cache, "set AUTOCOMPRESS_CACHE to a folder you can write"),
    ("shared memory", _shared_memory, ""),
    ("search spaces", _spaces, _REINSTALL),
    ("device profiles", _profiles, _REINSTALL),
)
