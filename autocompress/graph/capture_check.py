"""Whether a captured graph computes what its model computes."""

from __future__ import annotations

import re
from collections.abc import Container, Sequence

import torch
from torch import fx, nn

from autocompress.errors import CaptureError

_LINE = re.compile(r'File "([^"]+)", line (\d+), in (\S+)\n\s*(.*)')
#: Largest difference, relative to the largest output.
TOLERANCE = 1e-3


def check_capture(
    model: nn.Module,
    captured: nn.Module,
    exported: torch.export.ExportedProgram,
    inputs: Sequence[torch.Tensor],
    folded: Container[str] = (),
) -> None:
    """Compare both on inputs of another batch size than was captured.

    Args:
        model: the original, in evaluation mode.
        captured: its graph.
        exported: what the graph was made from; tells the lines of the user's code.
        inputs: batch first; replaced by random numbers, unless the model refuses those.
        folded: names of the nodes of ``exported`` that were computed beforehand.

    Raises:
        CaptureError: the outputs differ, only one batch size works, or the output is no batch.
    """
    drawn = random_like(inputs)
    expected = _run(model, drawn)
    if isinstance(expected, str):  # the model may refuse random numbers
        drawn = list(inputs)
        expected = _run(model, drawn)
    if isinstance(expected, torch.Tensor) and not agree(expected, _run(model, drawn)):
        return  # the model draws random numbers in evaluation mode: nothing to compare with
    if isinstance(expected, torch.Tensor) and (
        expected.dim() == 0 or len(expected) != len(drawn[0])
    ):
        raise CaptureError(
            f"the model gives outputs of shape {tuple(expected.shape)} for {len(drawn[0])} "
            f"examples; the first dimension must be the batch"
        )
    found = _run(captured, drawn)
    if not agree(expected, found):
        raise CaptureError(_reason(expected, found, exported, folded))


def _run(model: nn.Module, inputs: Sequence[torch.Tensor]) -> torch.Tensor | str:
    try:
        with torch.no_grad():
            result: torch.Tensor = model(*[x.clone() for x in inputs])
    except Exception as error:  # whatever the user's operators raise is part of the answer
        return str(error).strip().partition("\n")[0]
    return result


def random_like(inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Random numbers in place of inputs; the same at every call.

    Normal ones for floating-point inputs; for integers the values that are there, drawn anew for
    every place, since nobody knows which others the model takes.
    """
    generator = torch.Generator().manual_seed(0)

    def draw(x: torch.Tensor) -> torch.Tensor:
        if x.is_floating_point():
            return torch.randn(x.shape, generator=generator, dtype=x.dtype)
        return x.flatten()[torch.randint(x.numel(), x.shape, generator=generator)]

    return [draw(x) for x in inputs]


def agree(first: torch.Tensor | str, second: torch.Tensor | str) -> bool:
    """Whether two outputs are equal up to rounding; never when one is an error's text."""
    if isinstance(first, str) or isinstance(second, str):
        return False
    if first.shape != second.shape or first.dtype != second.dtype:
        return False
    finite = first[torch.isfinite(first)] if first.is_floating_point() else first
    largest = float(finite.abs().max()) if finite.numel() else 0.0
    return torch.allclose(
        first, second, rtol=TOLERANCE, atol=TOLERANCE * largest + 1e-6, equal_nan=True
    )


def _reason(
    expected: torch.Tensor | str,
    found: torch.Tensor | str,
    exported: torch.export.ExportedProgram,
    folded: Container[str],
) -> str:
    if isinstance(expected, str):
        return (
            f"the model works with two examples but not with three ({expected}): the batch size "
            f"is written into its code; take it from x.shape[0] instead"
        )
    if isinstance(found, str) or expected.shape != found.shape:
        got = found if isinstance(found, str) else f"shape {tuple(found.shape)}"
        return (
            f"the captured graph works for one batch size only (three examples give {got} instead "
            f"of shape {tuple(expected.shape)}): a loop over the batch, or a batch size written "
            f"into the code, cannot be deployed; use operators that work on whole batches"
        )
    place = _overwritten_view(exported, folded)
    return (
        f"the captured graph does not compute what the model computes (largest difference "
        f"{float((expected - found).abs().max()):.3g})"
        + (f"; look at {place}: " if place else ": ")
        + "overwriting part of a tensor in place, such as x[:, :4] += 1, cannot be captured where "
        "the tensor depends on the inputs; make a new tensor instead, for example with torch.cat "
        "or torch.where"
    )


def _overwritten_view(exported: torch.export.ExportedProgram, folded: Container[str]) -> str:
    """The user's line of the last in-place operator that writes a view, or into a copy."""
    place = ""
    for node in exported.graph.nodes:
        name = str(node.target).removeprefix("aten.").partition(".")[0]
        writes = node.op == "call_function" and name.endswith("_") and not name.startswith("_")
        if not writes or node.name in folded:
            continue
        lines = _LINE.findall(str(node.meta.get("stack_trace", "")))
        if lines and (name == "copy_" or _is_view(node)):
            file, line, function, code = lines[-1]
            place = f'File "{file}", line {line}, in {function}: `{code.strip()}`'
    return place


def _is_view(node: fx.Node) -> bool:
    """Whether the tensor that ``node`` overwrites shares its memory with another."""
    source = node.args[0] if node.args else None
    if not isinstance(source, fx.Node) or not isinstance(source.target, torch._ops.OpOverload):
        return False
    viewed = source.target._schema.returns
    return bool(viewed and viewed[0].alias_info is not None) or any(
        isinstance(user.target, torch._ops.OpOverload)
        and user.target._schema.returns
        and user.target._schema.returns[0].alias_info is not None
        for user in source.users
        if user is not node
    )
