"""Measures the kernels that a search space reaches on this machine."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from autocompress.agent.seeds import neighbours
from autocompress.cli.devices.request import SpaceRequest
from autocompress.core.events import Event
from autocompress.elastic.space import ElasticSpace
from autocompress.errors import ProfileError, RequestError
from autocompress.hardware import HardwareProfile, LatencyPredictor
from autocompress.hardware.builder import BuildPlan, Built, TableBuilder
from autocompress.hardware.local import SOURCE, local_profile
from autocompress.hardware.machine import describe_machine
from autocompress.hardware.profile import is_free_id
from autocompress.measurement.calibrating import affordable, calibrate_on
from autocompress.report.display import Display
from autocompress.report.units import seconds as duration
from autocompress.runtimes.base import Runtime
from autocompress.runtimes.registry import load_runtime

#: Candidates whose kernels are looked at.
SAMPLES = 300
#: Of these, how many are measured whole.
NETWORKS = 16
#: For this machine, where no time is given.
SECONDS = 300.0


@dataclass(frozen=True)
class Measured:
    """What a measuring session came to.

    Attributes:
        profile: this machine with its table and its coefficients as they are now.
        plan: what was expected.
        built: what came of it.
        networks: whole networks that the coefficients were fitted to; 0 for none.
    """

    profile: HardwareProfile
    plan: BuildPlan
    built: Built
    networks: int


def measure_space(
    request: SpaceRequest,
    *,
    seconds: float,
    runtime: str = "onnxruntime",
    announce: Callable[[BuildPlan], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Measured:
    """Measure what this machine's table lacks of a space's kernels, the most frequent first.

    Then the formula from kernels to networks is fitted to candidates of the space. What was
    measured before is kept, also that of a session that was killed.

    Args:
        request: the space, and the number of threads.
        seconds: no kernel is begun after so long.
        runtime: the runtime's name.
        announce: told beforehand how many rows there are, and how long they take.
        progress: told how many of how many are done.

    Raises:
        RequestError: no such space or runtime, or the space does not fit the input.
    """
    seed = request.seed
    profile = local_profile(threads=request.threads[0], runtime=load_runtime(runtime))
    space = request.open_space(profile.capabilities)
    predictor = LatencyPredictor.for_device(profile)
    builder = sampled(space, predictor, seed=seed)
    plan = builder.plan()
    if announce is not None:
        announce(plan)
    deadline = time.monotonic() + seconds
    built = builder.build(deadline=deadline, progress=progress)
    genomes = neighbours(space, np.random.default_rng(seed), SAMPLES)
    slowest = predictor.estimate(space.graph.operations(space.decode(space.original))).value
    count = affordable(max(0.0, deadline - time.monotonic()), slowest, NETWORKS)
    chosen = [genomes[i] for i in np.linspace(0, len(genomes) - 1, count).astype(int)]
    candidates = [space.graph.operations(space.decode(genome)) for genome in chosen]
    networks = calibrate_on(predictor, candidates)
    return Measured(predictor.calibrated_profile, plan, built, networks)


def measure_here(
    request: SpaceRequest,
    *,
    runtime: str = "onnxruntime",
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
    target = None
    if identifier is not None:
        target = out / identifier
        if not is_of_this_machine(target, load_runtime(runtime), request.threads[0]):
            target = profile_folder(identifier, out)
    with display:

        def tell(done: int, total: int) -> None:
            display(Event("measure", "progress", "kernels", {"done": done, "total": total}))

        display(Event("measure", "stage_started", f"sampling {request.space}"))
        found = measure_space(
            request,
            seconds=SECONDS if seconds is None else seconds,
            runtime=runtime,
            announce=lambda plan: display(Event("measure", "note", plan.sentence())),
            progress=tell,
        )
    saved = save_profile(found.profile, target) if target is not None else None
    built = found.built
    if as_json:
        values = {"kind": "result", "reached": built.reached, "measured": built.measured}
        more = {
            "left": built.missing, "seconds": built.seconds, "covered": built.covered,
            "networks": found.networks, "profile": saved and str(saved),
        }  # fmt: skip
        print(json.dumps(values | more))
        return
    print(
        f"{built.reached} kernels are within reach of {request.space}; {built.measured} were "
        f"measured in {duration(built.seconds)}, {built.missing} are left ({built.covered:.1%} of "
        f"what candidates execute is covered)\n{found.profile.summary}"
    )
    if saved is not None:
        print(f"profile  {saved}; use it with --device {saved}")


def sampled(space: ElasticSpace, predictor: LatencyPredictor, *, seed: int) -> TableBuilder:
    """A builder that has seen candidates as a search visits them, the original first."""
    builder = TableBuilder(predictor)
    builder.add([space.graph.operations(space.decode(space.original))], first=True)
    genomes = neighbours(space, np.random.default_rng(seed), SAMPLES)
    builder.add(space.graph.operations(space.decode(genome)) for genome in genomes)
    return builder


def profile_folder(identifier: str, folder: Path) -> Path:
    """Where a profile of that name goes: ``folder/identifier``, which must not be there yet.

    Raises:
        RequestError: the name is none, or is taken.
    """
    if not is_free_id(identifier):
        raise RequestError(
            f"--id is {identifier!r}; use lower-case letters, digits and underscores, such as "
            "my_board"
        )
    target = folder / identifier
    if target.exists():
        raise RequestError(f"{target} is there already; give another --id or --out")
    return target


def is_of_this_machine(folder: Path, runtime: Runtime, threads: int) -> bool:
    """Whether a profile's folder was written from this machine's table, so that it may be again."""
    try:
        profile = HardwareProfile.load(folder)
    except ProfileError:
        return False
    spec = profile.runtime
    return (
        profile.provenance.source == SOURCE
        and profile.machine == describe_machine()
        and (spec.name, spec.version, spec.threads) == (runtime.name, runtime.version, threads)
    )


def save_profile(profile: HardwareProfile, target: Path) -> Path:
    """Write the profile under the name of its folder, to share or to keep.

    Raises:
        ProfileError: the folder cannot be written.
    """
    text = profile.description.removeprefix("this machine (").removesuffix(")")
    replace(profile, id=target.name, description=text).save(target)
    return target
