"""Where an elastic training stands: all that decides how it goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from autocompress.core.files import replacing
from autocompress.elastic.averaging import WeightAverage
from autocompress.elastic.model import ElasticModel
from autocompress.elastic.schedule import Schedule
from autocompress.errors import StorageError

#: Tensors that AdamW keeps for each parameter.
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")
_FORMAT = 2


class TrainingState:
    """Weights and their average, optimiser, schedule, random numbers, and the place in the data.

    Args:
        elastic: the weights; changed by :meth:`load`.
        optimizer: AdamW over its parameters; likewise.
        rng: draws the candidates; likewise.
        schedule: likewise.
        average: of the weights; likewise; None where none is kept.
        about: what decides the training besides; a state of another is refused.

    Attributes:
        done: optimiser steps.
        epoch: number of the epoch.
        batch: batches of it that are behind.
        seconds: that it has taken.
    """

    def __init__(
        self,
        elastic: ElasticModel,
        optimizer: torch.optim.AdamW,
        rng: np.random.Generator,
        schedule: Schedule,
        average: WeightAverage | None,
        about: Mapping[str, float],
    ) -> None:
        self.about = dict(about)
        self.elastic, self.optimizer, self.rng = elastic, optimizer, rng
        self.schedule, self.average = schedule, average
        self.done = self.epoch = self.batch = 0
        self.seconds = 0.0

    def advance(self) -> None:
        """A step is done, with one batch."""
        self.done += 1
        self.batch += 1

    def next_epoch(self) -> None:
        """The epoch's batches are behind."""
        self.epoch += 1
        self.batch = 0

    def save(self, path: Path) -> None:
        """Write all of it so that the file is complete or absent.

        Raises:
            StorageError: the folder is full or not writable.
        """
        tensors = {f"weights.{name}": tensor for name, tensor in self.elastic.state_dict().items()}
        for i, parameter in enumerate(self._parameters()):
            moments = self.optimizer.state.get(parameter, {})
            tensors |= {f"optimizer.{i}.{name}": moments[name] for name in moments}
        if self.average is not None:
            tensors |= {f"average.{n}": t for n, t in self.average.tensors().items()}
        about = {
            "format": _FORMAT, "done": self.done, "epoch": self.epoch, "batch": self.batch,
            "seconds": self.seconds, "rng": self.rng.bit_generator.state,
            "schedule": self.schedule.state(),
            "averaged": 0 if self.average is None else self.average.updates, "about": self.about,
        }  # fmt: skip
        held = {name: t.detach().contiguous().clone() for name, t in tensors.items()}
        with replacing(path) as temporary:
            try:
                save_file(held, temporary, {"state": json.dumps(about)})
            except SafetensorError as error:
                raise StorageError(f"cannot write {path}: {error}") from error

    def load(self, path: Path) -> None:
        """Take over what :meth:`save` wrote.

        Raises:
            StorageError: the file is damaged, or of another training.
        """
        try:
            with safe_open(path, "pt") as file:
                about = json.loads((file.metadata() or {})["state"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if about["format"] != _FORMAT:
                raise ValueError(f"it is in format {about['format']} of another version")
            if about["about"] != self.about:
                raise ValueError(f"it has {about['about']}, not {self.about}")
            self._take(tensors, about)
        except (OSError, KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
            raise StorageError(
                f"the checkpoint {path} is damaged or of another training "
                f"({str(error).strip().splitlines()[0]}); delete it and resume: the training "
                "begins again"
            ) from error

    def _take(self, tensors: Mapping[str, torch.Tensor], about: Mapping[str, Any]) -> None:
        self.elastic.load_state_dict(_under("weights.", tensors))
        if self.average is not None:
            self.average.take(_under("average.", tensors), int(about["averaged"]))
        for i, parameter in enumerate(self._parameters()):
            if f"optimizer.{i}.step" in tensors:
                moments = {name: tensors[f"optimizer.{i}.{name}"] for name in _MOMENTS}
                if moments["exp_avg"].shape != parameter.shape:
                    raise ValueError(f"parameter {i} has another shape")
                self.optimizer.state[parameter] = moments
        self.schedule.take(about["schedule"])
        self.rng.bit_generator.state = about["rng"]
        self.done, self.epoch, self.batch = (
            int(about[name]) for name in ("done", "epoch", "batch")
        )
        self.seconds = float(about["seconds"])

    def _parameters(self) -> list[torch.Tensor]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]


def _under(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors whose names begin so, by the rest of their names."""
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
