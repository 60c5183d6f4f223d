"""Which pairs of weight and activation bits exist, how they are stored and what computes them."""

from __future__ import annotations

from dataclasses import dataclass

from autocompress.errors import RequestError

#: Largest absolute code of a symmetric weight of so many bits; 2 bits are ternary, 1 bit a sign.
LEVELS = {8: 127, 6: 31, 5: 15, 4: 7, 3: 3, 2: 1, 1: 1}
#: Values of a codebook whose indices take 4 bits; those of larger ones take 8.
SMALL_CODEBOOK = 16
#: Bits of the smallest ONNX element that holds them. What they leave free, packing takes back.
CONTAINER_BITS = {8: 8, 6: 8, 5: 8, 4: 4, 3: 4, 2: 2, 1: 2}


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
        return self.activation_bits <= 8

    @property
    def file_bits(self) -> int:
        """Bits that one weight takes in the ONNX file."""
        return CONTAINER_BITS.get(self.weight_bits, self.weight_bits)


def _integers(bits: int, activation_bits: int) -> Form:
    """Weights of so many bits in the container that holds them."""
    held = CONTAINER_BITS[bits]
    opset = 25 if held == 2 else 21
    if activation_bits > 8:
        stored = f"int{held} weights -> Cast -> Mul(scale)"
        return Form(bits, activation_bits, stored, "float32", opset)
    cast = "" if held == 8 else "Cast(int8) -> "
    clip = "" if activation_bits == 8 else f" with Clip to {2**activation_bits - 1}"
    stored = f"int{held} weights -> {cast}DequantizeLinear, uint8 QDQ{clip}"
    return Form(bits, activation_bits, stored, "int8", opset)


FORMS: dict[tuple[int, int], Form] = {
    (form.weight_bits, form.activation_bits): form
    for form in (
        Form(32, 32, "float32 weights", "float32"),
        Form(16, 32, "float16 weights -> Cast", "float32"),
        *(_integers(bits, activations) for activations in (32, 8, 6, 4) for bits in LEVELS),
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
    if activation_bits not in (4, 6, 8, 32):
        advice = "activations are 4, 6 or 8 bits (with weights of 8 or fewer) or 32 (floats)"
    elif activation_bits <= 8 and weight_bits > 8:
        advice = (
            f"{activation_bits}-bit activations need weights of 8 bits or fewer; use "
            f"weight_bits=8, or activation_bits=32 to keep {weight_bits}-bit weights"
        )
    else:
        bits = sorted(w for w, a in FORMS if a == activation_bits)
        wider = [b for b in bits if b >= weight_bits]
        advice = f"weights are stored with {bits} bits; the next wider is {wider[0]}"
    raise RequestError(
        f"{where}weight_bits={weight_bits} with activation_bits={activation_bits} has no deployed "
        f"form: {advice}"
    )
