"""Chooses what a bench pack of a search space holds: kernels it reaches, networks to check them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from autocompress.agent.seeds import neighbours, uniform_seeds
from autocompress.cli.devices.measuring import sampled
from autocompress.cli.devices.request import SpaceRequest
from autocompress.elastic.space import ElasticSpace
from autocompress.errors import RequestError
from autocompress.hardware import HardwareProfile, LatencyPredictor
from autocompress.hardware.machine import describe_machine
from autocompress.hardware.profile import RuntimeSpec
from autocompress.measurement.networks import Network
from autocompress.measurement.pack import BenchPack, write_pack
from autocompress.runtimes.registry import load_runtime

#: Tries for a candidate whose operations no earlier one has.
_TRIES = 50


def pack_space(request: SpaceRequest, path: Path) -> BenchPack:
    """Write the bench pack of a space.

    Raises:
        RequestError: no such space, it does not fit the input, or there is nothing to measure.
        StorageError: the file cannot be written.
    """
    engine = load_runtime("onnxruntime")
    # what the device is does not matter yet: the kernels follow from the runtime's lowering
    unmeasured = HardwareProfile(
        "unmeasured",
        "a device not measured yet",
        "measured",
        describe_machine(),
        RuntimeSpec(engine.name, lowering=engine.lowering),
    )
    space = request.open_space(unmeasured.capabilities)
    predictor = LatencyPredictor(unmeasured)
    return write_pack(
        path,
        kernels=sampled(space, predictor, seed=request.seed).kernels()[: request.kernels],
        networks=[
            (network, predictor.kernels(network.ops))
            for network in sampled_networks(space, request.networks, seed=request.seed)
        ],
        runtime={
            "name": engine.name,
            "options": dict(engine.options),
            "lowering": engine.lowering,
        },
        source={
            "space": request.space,
            "input": list(request.input_shape),
            "classes": request.classes,
            "seed": request.seed,
        },
        threads=request.threads,
        rounds=request.rounds,
    )


def sampled_networks(space: ElasticSpace, count: int, *, seed: int) -> list[Network]:
    """Candidates of a space as networks with random weights: uniform ones and mixed ones in turn.

    Raises:
        RequestError: the space has not so many different candidates.
    """
    rng = np.random.default_rng(seed + 1)
    uniform = [genome for _, genome in uniform_seeds(space)]
    # from large to small, so that few of them span the space
    spread = [uniform[i] for i in np.linspace(0, len(uniform) - 1, num=max(1, count // 2)).round()
              .astype(int)]  # fmt: skip
    wanted = [space.original, *spread]
    found: dict[object, Network] = {}
    for number in range(_TRIES * max(1, count)):
        if len(found) >= count:
            break
        genome = wanted.pop(0) if wanted and number % 2 == 0 else neighbours(space, rng, 1)[0]
        ops = tuple(space.graph.operations(space.decode(genome)))
        found.setdefault(ops, Network(f"candidate {len(found)}", ops))
    if len(found) < count:
        raise RequestError(
            f"the space has only {len(found)} different networks; ask for fewer than {count}"
        )
    return list(found.values())
