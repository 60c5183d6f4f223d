"""The inputs of layers, observed on calibration data once the weights are what they will be."""

from __future__ import annotations

from autocompress.agent.context import Context
from autocompress.elastic.observing import observe_inputs


def observe(context: Context) -> None:
    """Let techniques see the inputs that layers have now; does nothing where none looks.

    Worker processes are sent the elastic model with what was observed. A resumed run observes
    again: the same weights and data give the same moments.
    """
    observe_inputs(
        context.elastic,
        context.space.decode(context.space.original),
        (inputs for inputs, _ in context.request.data.calibration.batches(64)),
    )
