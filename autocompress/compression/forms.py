"""Which pairs of weight and activation bits exist, how they are stored and what computes them."""

from __future__ import annotations

from dataclasses import dataclass

from autocompress.errors import RequestError

#: Largest absolute code of a symmetric weight of so many bits.
LEVELS = {8: 127, 4: 7, 2: 1}


@dataclass(frozen=True, slots=True)
class Form:
    """A deployed form of a layer.

    Attributes:
        weight_bits: bits per stored weight.
        activation_bits: bits of the layer's input and output activations.
        stored: what the ONNX file holds.
        computes: the arithmetic that runs once the file is loaded.
        opset: ONNX operator set that the form needs.
    """

    weight_bits: int
    activation_bits: int
    stored: str
    computes: str
    opset: int = 21

    @property
    def is_integer(self) -> bool:
        """Whether the layer computes in integers."""
        return self.activation_bits == 8


FORMS: dict[tuple[int, int], Form] = {
    (form.weight_bits, form.activation_bits): form
    for form in (
        Form(32, 32, "float32 weights", "float32"),
        Form(16, 32, "float16 weights -> Cast", "float32"),
        Form(8, 32, "int8 weights -> Cast -> Mul(scale)", "float32"),
        Form(4, 32, "int4 weights -> Cast -> Mul(scale)", "float32"),
        Form(2, 32, "int2 weights -> Cast -> Mul(scale)", "float32", 25),
        Form(8, 8, "int8 weights -> DequantizeLinear, uint8 QDQ", "int8"),
        Form(4, 8, "int4 weights -> Cast(int8) -> DequantizeLinear, uint8 QDQ", "int8"),
        Form(2, 8, "int2 weights -> Cast(int8) -> DequantizeLinear, uint8 QDQ", "int8", 25),
    )
}


def form_of(weight_bits: int, activation_bits: int, layer: str = "") -> Form:
    """The deployed form of a pair of bit-widths.

    Raises:
        RequestError: the pair has none; the message names the nearest that exists.
    """
    form = FORMS.get((weight_bits, activation_bits))
    if form is not None:
        return form
    where = f"layer {layer!r}: " if layer else ""
    if activation_bits not in (8, 32):
        advice = "activations are 8 bits (with weights of 8, 4 or 2) or 32 (floats)"
    elif activation_bits == 8 and weight_bits > 8:
        advice = (
            "8-bit activations need weights of 8, 4 or 2 bits; use weight_bits=8, or "
            f"activation_bits=32 to keep {weight_bits}-bit weights"
        )
    else:
        bits = sorted(w for w, a in FORMS if a == activation_bits)
        below = [b for b in bits if b >= weight_bits]
        advice = f"weights are stored with {bits} bits; the next wider is {below[0]}"
    raise RequestError(
        f"{where}weight_bits={weight_bits} with activation_bits={activation_bits} has no deployed "
        f"form: {advice}"
    )
