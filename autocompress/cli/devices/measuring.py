"""Measures the kernels that a search space reaches on this machine."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from autocompress.agent.seeds import neighbours
from autocompress.core.events import Event
from autocompress.elastic.registry import load_space
from autocompress.elastic.space import ElasticSpace
from autocompress.errors import RequestError
from autocompress.hardware import HardwareProfile, LatencyPredictor
from autocompress.hardware.local import local_profile
from autocompress.hardware.profile import ID_PATTERN
from autocompress.measurement.kernels import KernelSignature
from autocompress.report.display import Display
from autocompress.report.units import seconds as duration

if TYPE_CHECKING:
    from autocompress.cli.devices.packing import SpaceRequest

#: Candidates whose kernels are looked at.
SAMPLES = 300
#: For this machine, where no time is given.
SECONDS = 300.0


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
        seed: of the sampled candidates.
        progress: told how many of how many are done.

    Raises:
        RequestError: no such space, or it does not fit the input.
    """
    profile = local_profile(threads=threads)
    space = load_space(
        name,
        input_shape=input_shape,
        num_classes=classes,
        capabilities=profile.capabilities,
        seed=seed,
    )
    predictor = LatencyPredictor.for_device(profile)
    kernels = reached_kernels(space, predictor, seed=seed)
    began = time.monotonic()
    done = predictor.measure(kernels, deadline=began + seconds, progress=progress)
    left = sum(kernel not in predictor.profile.table for kernel in kernels)
    took = time.monotonic() - began
    return Measured(predictor.profile, len(kernels), done, left, took)


def measure_here(
    request: SpaceRequest,
    *,
    seconds: float | None,
    identifier: str | None,
    out: Path,
    display: Display,
    as_json: bool,
) -> None:
    """Measure this machine, keep a profile where a name is given, and say what came of it.

    Raises:
        RequestError: the request or the name cannot be used.
    """
    if len(request.threads) > 1:
        raise RequestError(
            f"--threads is {','.join(str(n) for n in request.threads)}; here it is one number"
        )
    target = profile_folder(identifier, out) if identifier is not None else None
    with display:

        def tell(done: int, total: int) -> None:
            display(Event("measure", "progress", "kernels", {"done": done, "total": total}))

        display(Event("measure", "stage_started", f"sampling {request.space}"))
        found = measure_space(
            request.space,
            input_shape=request.input_shape,
            classes=request.classes,
            threads=request.threads[0],
            seconds=SECONDS if seconds is None else seconds,
            seed=request.seed,
            progress=tell,
        )
    saved = save_profile(found.profile, target) if target is not None else None
    if as_json:
        values = {"kind": "result", "reached": found.reached, "measured": found.done}
        more = {"left": found.left, "seconds": found.seconds, "profile": saved and str(saved)}
        print(json.dumps(values | more))
        return
    print(
        f"{found.reached} kernels are within reach of {request.space}; {found.done} were measured "
        f"in {duration(found.seconds)}, {found.left} are left\n{found.profile.summary}"
    )
    if saved is not None:
        print(f"profile  {saved}; use it with --device {saved}")


def reached_kernels(
    space: ElasticSpace, predictor: LatencyPredictor, *, seed: int
) -> list[KernelSignature]:
    """Kernels of sampled candidates, the most frequent first, always in the same order."""
    counts: Counter[KernelSignature] = Counter()
    for genome in [space.original, *neighbours(space, np.random.default_rng(seed), SAMPLES)]:
        counts.update(set(predictor.kernels(space.graph.operations(space.decode(genome)))))
    found = [kernel for kernel in counts if not kernel.is_view]
    return sorted(found, key=lambda kernel: (-counts[kernel], kernel.key))


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
