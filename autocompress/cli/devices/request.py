"""What of a search space, or of a model of one's own, is to be measured on a device."""

from __future__ import annotations

from dataclasses import dataclass

from autocompress.core.capabilities import Capabilities
from autocompress.elastic.registry import example_input, load_space
from autocompress.elastic.space import ElasticSpace
from autocompress.errors import RequestError
from autocompress.measurement.pack import ROUNDS

#: Whole networks that a device elsewhere is calibrated on.
NETWORKS = 12


@dataclass(frozen=True, slots=True)
class SpaceRequest:
    """What of a search space is to be measured.

    Attributes:
        space: the space's name, or ``FILE.py:FUNCTION`` of a model.
        input_shape: shape of one input, without the batch dimension.
        classes: outputs of the networks; a model has its own.
        kernels: so many, the most frequent; those of the networks come on top. None: all.
        networks: whole networks, for calibration and validation.
        threads: numbers of threads that are measured.
        rounds: times that everything is gone through.
        seed: of the sampled candidates.
        vocabulary: how many token ids there are; None where the inputs are floats.
    """

    space: str
    input_shape: tuple[int, ...]
    classes: int = 10
    kernels: int | None = None
    networks: int = NETWORKS
    threads: tuple[int, ...] = (1,)
    rounds: int = ROUNDS
    seed: int = 0
    vocabulary: int | None = None

    def open_space(self, capabilities: Capabilities) -> ElasticSpace:
        """The space, with what the device supports.

        Raises:
            RequestError: no such space or model, or it does not fit the input.
            CaptureError: the model cannot be captured.
        """
        if ":" not in self.space:
            return load_space(
                self.space,
                input_shape=self.input_shape,
                num_classes=self.classes,
                vocabulary=self.vocabulary,
                capabilities=capabilities,
                seed=self.seed,
            )
        import torch

        from autocompress.cli.models import load_model

        if self.vocabulary is not None:
            example = example_input(self.input_shape, self.vocabulary)
        else:
            generator = torch.Generator().manual_seed(0)
            example = torch.randn(1, *self.input_shape, generator=generator)
        return ElasticSpace.from_model(
            load_model(self.space), (example,), capabilities=capabilities
        )


def chosen(space: str | None, model: str | None, default: str | None = None) -> str:
    """The one of them that was given.

    Raises:
        RequestError: both were, or neither and there is no default.
    """
    if space is not None and model is not None:
        raise RequestError(f"space {space!r} and model {model!r} are both given; give one")
    found = model or space or default
    if found is None:
        raise RequestError("nothing is given to measure; name a space, or --model FILE.py:FUNCTION")
    if model is not None and ":" not in model:
        raise RequestError(f"--model is {model!r}; write FILE.py:FUNCTION")
    return found
