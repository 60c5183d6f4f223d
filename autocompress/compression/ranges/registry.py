"""Methods by name."""

from __future__ import annotations

from autocompress.compression.ranges.base import RangeMethod
from autocompress.compression.ranges.entropy import Entropy
from autocompress.compression.ranges.minmax import MinMax
from autocompress.compression.ranges.percentile import Percentile
from autocompress.compression.ranges.squared_error import SquaredError
from autocompress.errors import RequestError

RANGE_METHODS: dict[str, type[RangeMethod]] = {
    method.name: method for method in (Percentile, MinMax, SquaredError, Entropy)
}


def range_method(name: str) -> RangeMethod:
    """The method of that name.

    Raises:
        RequestError: there is none.
    """
    if name not in RANGE_METHODS:
        raise RequestError(f"calibration is {name!r}; use one of {', '.join(RANGE_METHODS)}")
    return RANGE_METHODS[name]()
