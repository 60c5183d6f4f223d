"""Criteria for channels, by name."""

from __future__ import annotations

from collections.abc import Mapping

from autocompress.compression.importance.activation import ActivationMagnitude
from autocompress.compression.importance.active_share import ActiveShare
from autocompress.compression.importance.base import Criterion
from autocompress.compression.importance.batch_norm_scale import BatchNormScale
from autocompress.compression.importance.hessian import HessianTrace
from autocompress.compression.importance.l1 import L1Magnitude
from autocompress.compression.importance.l2 import L2Magnitude
from autocompress.compression.importance.taylor import Taylor
from autocompress.errors import RequestError

#: The first one is what is used where there is nothing to choose by.
CRITERIA: Mapping[str, Criterion] = {
    criterion.name: criterion
    for criterion in (
        L2Magnitude(),
        L1Magnitude(),
        BatchNormScale(),
        Taylor(),
        ActivationMagnitude(),
        ActiveShare(),
        HessianTrace(),
    )
}


def get_criterion(name: str) -> Criterion:
    """The criterion of a name.

    Raises:
        RequestError: an unknown name.
    """
    if name not in CRITERIA:
        raise RequestError(f"criterion is {name!r}; use one of {', '.join(CRITERIA)}")
    return CRITERIA[name]
