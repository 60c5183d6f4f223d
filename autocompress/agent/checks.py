"""Whether a model and its data fit, before anything is spent on them."""

from __future__ import annotations

import torch
from torch import nn

from autocompress.errors import DataError
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
