"""Whether a model and its data fit, before anything is spent on them."""

from __future__ import annotations

import torch
from torch import nn

from autocompress.elastic.space import ElasticSpace
from autocompress.errors import DataError, RequestError
from autocompress.evaluation.data import Data
from autocompress.evaluation.task import Task


def check_against_data(model: nn.Module, data: Data, task: Task) -> None:
    """Make sure that the model's outputs on the data are finite and fit its targets.

    Raises:
        DataError: they are not, or do not.
    """
    inputs, targets = data.example(8)
    with torch.no_grad():
        outputs = model(inputs)
    if not bool(torch.isfinite(outputs).all()):
        raise DataError(
            "the model's outputs on the calibration data hold NaN or infinity; "
            "check its weights and the scale of the inputs"
        )
    task.check(outputs, targets)
    classes = data.num_classes if task.gives_logits else None
    if classes is not None and outputs.shape[1] < classes:
        raise DataError(
            f"the data holds {classes} classes (labels 0 to {classes - 1}), but the model gives "
            f"only {outputs.shape[1]}; give a model with {classes} outputs, or other data"
        )


def check_choices(space: ElasticSpace) -> None:
    """Make sure that some choice is about the model; recipes only say how it is trained.

    Raises:
        RequestError: none is.
    """
    if any(len(c.options) > 1 and c.kind != "recipe" for c in space.choices):
        return
    if space.held:
        raise RequestError(
            f"every choice of {space.name!r} is held ({', '.join(space.held)}); leave some to "
            "the search, or ask for more techniques"
        )
    reasons = "; ".join(f"{r.name}: {r.reason}" for r in space.refusals[:3])
    raise RequestError(
        f"no layer of {space.name!r} can take a setting of the techniques "
        f"{[t.name for t in space.techniques]}; ask for more techniques"
        + (f" ({reasons})" if reasons else "")
    )
