"""Measures the kernels that a search space reaches on this machine."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from autocompress.agent.seeds import neighbours
from autocompress.elastic.registry import load_space
from autocompress.errors import RequestError
from autocompress.hardware import HardwareProfile, LatencyPredictor
from autocompress.hardware.local import local_profile
from autocompress.hardware.profile import ID_PATTERN
from autocompress.measurement.kernels import KernelSignature
from autocompress.runtimes.registry import load_runtime

#: Candidates whose kernels are looked at.
SAMPLES = 300


@dataclass(frozen=True)
class Measured:
    """What a measuring session came to.

    Attributes:
        profile: this machine with its table as it is now.
        reached: kernels that the sampled candidates have.
        done: how many were measured now.
        left: how many the table still lacks.
        seconds: what it took.
    """

    profile: HardwareProfile
    reached: int
    done: int
    left: int
    seconds: float


def measure_space(
    name: str,
    *,
    input_shape: Sequence[int],
    classes: int,
    threads: int,
    seconds: float,
    runtime: str = "onnxruntime",
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Measured:
    """Measure what this machine's table lacks of a space's kernels, the most frequent first.

    Args:
        name: the space.
        input_shape: shape of one input, without the batch dimension.
        classes: outputs of the networks.
        threads: intra-op threads of the runtime.
        seconds: no kernel is begun after so long.
        runtime: the runtime's name.
        seed: of the sampled candidates.
        progress: told how many of how many are done.

    Raises:
        RequestError: no such space or runtime, or the space does not fit the input.
    """
    profile = local_profile(threads=threads, runtime=load_runtime(runtime))
    space = load_space(
        name,
        input_shape=input_shape,
        num_classes=classes,
        capabilities=profile.capabilities,
        seed=seed,
    )
    predictor = LatencyPredictor.for_device(profile)
    counts: Counter[KernelSignature] = Counter()
    for genome in [space.original, *neighbours(space, np.random.default_rng(seed), SAMPLES)]:
        counts.update(set(predictor.kernels(space.graph.operations(space.decode(genome)))))
    kernels = [kernel for kernel, _ in counts.most_common() if not kernel.is_view]
    began = time.monotonic()
    done = predictor.measure(kernels, deadline=began + seconds, progress=progress)
    left = sum(kernel not in predictor.profile.table for kernel in kernels)
    took = time.monotonic() - began
    return Measured(predictor.profile, len(kernels), done, left, took)


def profile_folder(identifier: str, folder: Path) -> Path:
    """Where a profile of that name goes: ``folder/identifier``, which must not be there yet.

    Raises:
        RequestError: the name is none, or is taken.
    """
    if not ID_PATTERN.fullmatch(identifier) or identifier == "local":
        raise RequestError(
            f"--id is {identifier!r}; use lower-case letters, digits and underscores, such as "
            "my_board"
        )
    target = folder / identifier
    if target.exists():
        raise RequestError(f"{target} is there already; give another --id or --out")
    return target


def save_profile(profile: HardwareProfile, target: Path) -> Path:
    """Write the profile under the name of its folder, to share or to keep.

    Raises:
        ProfileError: the folder cannot be written.
    """
    text = profile.description.removeprefix("this machine (").removesuffix(")")
    replace(profile, id=target.name, description=text).save(target)
    return target
