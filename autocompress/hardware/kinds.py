"""Kinds of work that kernels are: devices are fast at some and slow at others."""

from __future__ import annotations

from autocompress.measurement.kernels import KernelSignature

KERNEL_KINDS = ("dense float", "dense integer", "depthwise", "linear", "other")


def kind_of(kernel: KernelSignature) -> str:
    """One of :data:`KERNEL_KINDS`."""
    weight = kernel.weight
    if weight is None:
        return "other"
    if len(weight.shape) != 4:
        return "linear"
    group = dict(kernel.attributes).get("group", 1)
    if isinstance(group, int) and group > 1 and weight.shape[1] == 1:
        return "depthwise"
    return "dense integer" if weight.dtype in ("int8", "uint8") else "dense float"
