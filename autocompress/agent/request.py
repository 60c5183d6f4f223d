"""What a search was asked for, checked before anything is spent."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import nn

from autocompress.core.budget import Budget
from autocompress.core.local_device import LocalDevice
from autocompress.core.objective import Constraint, Objective
from autocompress.core.space import SearchSpace
from autocompress.elastic.space import ElasticSpace
from autocompress.errors import RequestError
from autocompress.evaluation.data import Data
from autocompress.evaluation.task import Task
from autocompress.hardware.profiles import list_profiles, load_profile

#: Options of a run that starts from another: that run's folder, how many models to verify, and
#: seconds to train what is added.
ORIGIN, MODELS, TRAINING = "retarget_of", "models", "train_seconds"
#: Examples of each split that go into the fingerprint.
_SAMPLED = 64


@dataclass(frozen=True)
class Request:
    """A checked request.

    Attributes:
        subject: a trained model, the name of a space, or a space.
        data: what to train, choose, report and calibrate with.
        device: a name, a path to a profile, or a profile.
        budget: limits of the whole search.
        objectives: two to four.
        constraints: bounds on metrics.
        techniques: names, or None for all that pay on the device.
        task: loss and metric.
        strategy: a name or an Optuna sampler.
        executor: "local".
        workers: worker processes; 1 runs trials in the caller's process.
        seed: decides everything random.
        held: choices that are not searched.
        options: what the command line needs to ask again (model file and the like).
    """

    subject: nn.Module | str | SearchSpace
    data: Data
    device: Any
    budget: Budget
    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...]
    techniques: tuple[str, ...] | None
    task: Task
    strategy: Any = "auto"
    executor: str = "local"
    workers: int = 1
    seed: int = 0
    held: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.subject, nn.Module | str | SearchSpace):
            raise RequestError(
                f"the first argument is a {type(self.subject).__name__}; give a trained "
                f"torch.nn.Module, the name of a search space, or a SearchSpace"
            )
        if isinstance(self.workers, bool) or not isinstance(self.workers, int) or self.workers < 1:
            raise RequestError(f"workers is {self.workers!r}; give at least 1")
        if not isinstance(self.seed, int) or self.seed < 0:
            raise RequestError(f"seed is {self.seed!r}; give a whole number from 0")

    @property
    def subject_name(self) -> str:
        """The model's class, or the space's name."""
        if isinstance(self.subject, str):
            return self.subject
        if isinstance(self.subject, SearchSpace):
            return self.subject.name
        return type(self.subject).__name__

    @property
    def bounds(self) -> tuple[Constraint, ...]:
        """The constraints, with a bound on accuracy turned as trials have it: larger is better."""
        return tuple(
            Constraint(c.metric, self.task.score(c.bound)) if c.metric == "accuracy" else c
            for c in self.constraints
        )

    @property
    def device_name(self) -> str:
        """The profile's name, or its id when it was given as an object or a path.

        This machine is named with its runtime and threads where they are not the usual ones.
        """
        if isinstance(self.device, str):
            local = LocalDevice.parse(self.device)
            if local is not None:
                return local.name
            if self.device in list_profiles():
                return self.device
        profile = load_profile(self.device)
        if profile.is_local:
            return LocalDevice(profile.runtime.name, profile.runtime.threads).name
        return profile.id

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the model's weights and a sample of the data: equal for equal questions."""
        found = hashlib.sha256()
        subject = self.subject
        if isinstance(subject, ElasticSpace):
            subject = subject.graph.module
        if isinstance(subject, nn.Module):
            for name, tensor in sorted(subject.state_dict().items()):
                found.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
                value = tensor.detach().cpu()
                value = value.float() if value.dtype == torch.bfloat16 else value
                found.update(value.numpy().tobytes())
        for name, split in self.data.splits.items():
            found.update(f"{name} {len(split)}".encode())
            for tensor in split.first(_SAMPLED):
                found.update(tensor.contiguous().numpy().tobytes())
        return found.hexdigest()

    def to_toml(self) -> dict[str, Any]:
        """The ``[request]`` table of ``run.toml``; unset limits are left out."""
        values: dict[str, Any] = {
            "model": self.subject_name,
            "kind": "space" if isinstance(self.subject, str) else type(self.subject).__name__,
            "data": self.data.source or self.data.name,
            "device": self.device_name,
            "budget_seconds": self.budget.seconds,
            "budget_trials": self.budget.trials,
            "budget_train_steps": self.budget.train_steps,
            "budget_models": self.budget.models,
            "objectives": [o.metric for o in self.objectives],
            "constraints": {c.metric: float(c.bound) for c in self.constraints},
            "techniques": None if self.techniques is None else list(self.techniques),
            "held": list(self.held) or None,
            "task": self.task.name,
            "metric": getattr(self.task.metric, "__name__", "metric"),
            "higher_is_better": self.task.higher_is_better,
            "strategy": self.strategy if isinstance(self.strategy, str) else str(self.strategy),
            "executor": self.executor,
            "workers": self.workers,
            "seed": self.seed,
            "fingerprint": self.fingerprint,
            "options": dict(self.options),
        }
        return {key: value for key, value in values.items() if value is not None}
