"""Tensors of an ONNX graph as it declares them, with free dimensions."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from autocompress.graph.extents import Extent

#: Name of the free dimension of inputs and outputs.
BATCH = "batch"
#: That of rows of any length.
LENGTH = "length"


def value_info(name: str, extent: Extent, dtype: torch.dtype | None = None) -> Any:
    """The ``onnx.ValueInfoProto`` of a value; dimensions that grow otherwise are left open.

    Args:
        name: of the value.
        extent: its shape at any batch size and length.
        dtype: its element type, where that is not the extent's.
    """
    from onnx import helper

    element = str(dtype or extent.dtype).removeprefix("torch.")
    shape = [
        BATCH if extent.is_batch(axis)
        else LENGTH if extent.is_length(axis)
        else None if extent.is_free(axis) else constant
        for axis, constant in enumerate(extent.constants)
    ]  # fmt: skip
    return helper.make_tensor_value_info(
        name, int(helper.np_dtype_to_tensor_dtype(np.dtype(element))), shape
    )
