"""A kernel's time from its sizes, learnt from measured kernels of its kind, with its own doubt.

A roofline-like mean (non-negative coefficients of padded multiply-accumulates, bytes and output
positions) corrected by a Gaussian process on the logarithm of what it misses (Rasmussen and
Williams 2006, "Gaussian Processes for Machine Learning", chapter 2, exponential covariance). Its
settings are those under which each row is best predicted from all others (leave-one-out predictive
likelihood, ibid. section 5.4.2), so the doubt it states is the error it was seen to make.

Runtimes work in blocks of channels, so time over channels is a staircase: multiply-accumulates are
counted with channels rounded up to a block, and odd channel counts are told apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
import numpy.typing as npt

from autocompress.hardware.table import LatencyRow
from autocompress.measurement.kernels import KernelSignature

Floats = npt.NDArray[np.float64]
#: Channels that vector units take at once.
BLOCK = 16
#: Shortest time that is told from nothing, microseconds.
_LEAST_US = 0.05
_LENGTHS = (1.0, 2.0, 4.0, 8.0, 16.0)
#: Repeatability of a measured row, as a share.
_NOISES = (0.02, 0.05, 0.1)
#: Rows beyond which only some are used, evenly spread: the cost grows with their cube.
_MOST = 600


def kind_of(kernel: KernelSignature) -> str:
    """Kernels that share a regression: one operator on one type, depthwise and dense apart."""
    weight, attributes = kernel.weight, dict(kernel.attributes)
    group = attributes.get("group", 1)
    form = ""
    if weight is not None and isinstance(group, int) and group > 1:
        form = "depthwise" if weight.shape[1] == 1 else "grouped"
    first = next((t.dtype for t in kernel.inputs if t is not None), "")
    return f"{kernel.op}|{first}|{form}|{attributes.get('perm', '')}"


class KernelRegression:
    """Times of one kind of kernels.

    Args:
        rows: measured kernels of the kind, at least two.
    """

    def __init__(self, rows: Sequence[LatencyRow]) -> None:
        if len(rows) > _MOST:
            rows = [rows[i] for i in np.linspace(0, len(rows) - 1, _MOST).astype(int)]
        times = np.maximum(_LEAST_US, np.array([row.hot_us for row in rows]))
        work = np.array([_work(row.kernel) for row in rows])
        self._coefficients = _non_negative(work, times)
        missed = np.log(times / self._mean(work))
        self._centre = float(np.median(missed))
        self._places = np.array([_place(row.kernel) for row in rows])
        self._settle(missed - self._centre)
        ctx = np.array([max(row.ctx_us, row.hot_us) for row in rows])
        self.ctx_ratio = float(np.median(ctx / times))

    def predict(self, kernel: KernelSignature) -> tuple[float, float]:
        """Microseconds, and the standard deviation of their logarithm."""
        near = _covariance(_distances(self._places, _place(kernel)[None, :])[:, 0], self._length)
        mean = float(self._mean(_work(kernel)[None, :])[0])
        correction = self._centre + float(near @ self._weights)
        variance = self._scale * max(0.0, 1.0 + self._noise - float(near @ self._inverse @ near))
        return max(_LEAST_US, mean * float(np.exp(correction))), float(np.sqrt(variance))

    def _mean(self, work: Floats) -> Floats:
        return np.maximum(_LEAST_US, work @ self._coefficients)

    def _settle(self, missed: Floats) -> None:
        """Take the settings under which each row is best predicted from the others."""
        distances = _distances(self._places, self._places)
        best = np.inf
        for length in _LENGTHS:
            alike = _covariance(distances, length)
            for noise in _NOISES:
                share = (2.0 * noise) ** 2  # relative to the process's own variance, about 0.5**2
                inverse = np.linalg.inv(alike + share * np.eye(len(missed)))
                weights = inverse @ missed
                variances = 1.0 / np.diag(inverse)
                scale = max(1e-4, float(np.mean((weights * variances) ** 2 / variances)))
                loss = float(np.sum(np.log(variances * scale)))
                if loss < best:
                    best = loss
                    self._length, self._noise, self._scale = length, share, scale
                    self._inverse, self._weights = inverse, weights


def _covariance(distances: Floats, length: float) -> Floats:
    return np.asarray(np.exp(-distances / length), dtype=np.float64)


def _distances(first: Floats, second: Floats) -> Floats:
    squares = ((first[:, None, :] - second[None, :, :]) ** 2).sum(axis=2)
    return np.asarray(np.sqrt(squares), dtype=np.float64)


def _sizes(kernel: KernelSignature) -> tuple[int, int, int, int]:
    """Channels out and in, positions of the output, elements of the filter window."""
    weight, out = kernel.weight, kernel.outputs[0]
    if weight is None:
        channels = out.shape[1] if len(out.shape) > 1 else 1
        return max(1, channels), 1, prod(out.shape) // max(1, channels), 1
    area = prod(weight.shape[2:]) if len(weight.shape) == 4 else 1
    channels = max(1, weight.shape[0])
    return channels, weight.shape[1], max(1, prod(out.shape) // channels), area


def _work(kernel: KernelSignature) -> Floats:
    """What takes time: once, multiply-accumulates in whole blocks, bytes, output positions."""
    channels, _, positions, _ = _sizes(kernel)
    padded = -(-channels // BLOCK) * BLOCK / channels if kernel.weight is not None else 1.0
    moved = kernel.weight_bytes + kernel.activation_bytes
    return np.array([1.0, kernel.macs * padded, moved, positions], dtype=np.float64)


def _place(kernel: KernelSignature) -> Floats:
    """Where a kernel lies among its kind; one unit is a factor of two, or a telling difference."""
    channels, depth, positions, area = _sizes(kernel)
    attributes = dict(kernel.attributes)
    strides = attributes.get("strides", (1,))
    stride = strides[0] if isinstance(strides, tuple) and strides else 1
    read = sum(t.size_bytes for t in kernel.inputs if t is not None and not t.constant)
    written = sum(t.size_bytes for t in kernel.outputs)
    sizes = (kernel.macs, kernel.weight_bytes, read, written, channels, depth, positions)
    return np.array(
        [
            *(np.log2(1.0 + size) for size in sizes),
            1.5 * np.log2(1.0 + area),
            1.5 * (float(stride) - 1.0),
            2.0 * (channels % BLOCK != 0),
            2.0 * (depth % BLOCK != 0),
            2.0 * (channels % 8 != 0),
            1.0 * ("activation" in attributes),
            float(sum(t is not None and not t.constant for t in kernel.inputs)),
        ],
        dtype=np.float64,
    )


def _non_negative(work: Floats, times: Floats) -> Floats:
    """Non-negative coefficients of ``work`` for the smallest relative error."""
    scale = np.maximum(work.max(axis=0), 1.0)
    design = work / scale / times[:, None]
    active = [i for i in range(work.shape[1]) if work[:, i].any()]
    coefficients = np.zeros(work.shape[1])
    while active:
        part = design[:, active]
        ridge = 1e-6 * np.eye(len(active))
        solved = np.linalg.solve(part.T @ part + ridge, part.T @ np.ones(len(times)))
        if (solved >= 0).all():
            coefficients[active] = solved
            break
        active = [i for i, value in zip(active, solved, strict=True) if value > 0]
    if not coefficients.any():
        coefficients[0] = float(np.median(times))
        return coefficients
    return np.asarray(coefficients / scale, dtype=np.float64)
