"""Tensors of an ONNX graph as it declares them, with a free batch dimension."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from autocompress.export.extents import Extent

#: Name of the free dimension of inputs and outputs.
BATCH = "batch"


def value_info(name: str, extent: Extent, dtype: torch.dtype | None = None) -> Any:
    """The ``onnx.ValueInfoProto`` of a value; dimensions that grow otherwise are left open.

    Args:
        name: of the value.
        extent: its shape at any batch size.
        dtype: its element type, where that is not the extent's.
    """
    from onnx import helper

    element = str(dtype or extent.dtype).removeprefix("torch.")
    shape = [
        BATCH if slope == 1 and constant == 0 else None if slope else constant
        for slope, constant in zip(extent.slopes, extent.constants, strict=True)
    ]
    return helper.make_tensor_value_info(
        name, int(helper.np_dtype_to_tensor_dtype(np.dtype(element))), shape
    )
