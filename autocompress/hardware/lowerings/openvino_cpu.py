"""What OpenVINO's CPU plug-in fuses: read off the executed graphs of OpenVINO 2026.4.

Convolutions and linear layers take in any activation and convolutions the residual addition; each
reads and writes the type that its neighbours want; images lie with their channels last from the
first convolution to where they are flattened; reshapes cost nothing. Two linear layers in a row
may run as one: their kernels are priced apart.
"""

from __future__ import annotations

from autocompress.hardware.lowerings.plain import ACTIVATIONS, Fusion

OPENVINO_CPU = Fusion(
    float_tails=ACTIVATIONS,
    residual=True,
    converts=True,
    zero_points=True,
    channels_last=True,
    views=False,
)
