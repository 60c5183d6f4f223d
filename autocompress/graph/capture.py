"""Capture any ``nn.Module`` once, as a graph whose layers keep the user's names.

``torch.export`` does the tracing (it follows Python code that symbolic tracing cannot); this
module turns its flat aten graph back into one with layers.
"""

from __future__ import annotations

import contextlib
import copy
import io
import linecache
import logging
import operator
import traceback
from collections.abc import Container, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn

from autocompress.errors import CaptureError
from autocompress.graph.capture_check import check_capture
from autocompress.graph.constants import fold_overwritten
from autocompress.graph.layers import (
    INPUT_ARGUMENT,
    LAYER_BUILDERS,
    PARAMETER_ARGUMENTS,
    UnsupportedLayer,
)
from autocompress.graph.modules import put_module

_TORCH_ROOT = str(Path(torch.__file__).parent)
_OWN_ROOT = str(Path(__file__).parent)
#: What is kept of what the tracer knows of a node.
_KEPT_META = ("module_path", "rank", "free")
_ARITHMETIC = frozenset(
    getattr(torch.ops.aten, name).Tensor for name in ("add", "sub", "mul", "div")
)
#: Where a captured graph says why its rows have one length.
_FIXED = "fixed_length"


def trace(
    model: nn.Module, example_inputs: Sequence[torch.Tensor], *, free_lengths: bool = True
) -> fx.GraphModule:
    """The model as a normalised graph in evaluation mode, with a free batch dimension.

    Rows of integers (token ids) are captured with a free length, too, where the model allows it;
    :func:`free_axes` tells, and :func:`fixed_length` why not.

    Args:
        model: any module whose forward takes tensors and returns one tensor.
        example_inputs: one tensor per input, batch first, any batch size.
        free_lengths: whether a free length is tried.

    Raises:
        CaptureError: the model cannot be run or traced; names the user's line.
    """
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            raise CaptureError(
                f"{name} of the model is {tensor.dtype}; a search starts from torch.float32: call "
                "model.float() first"
            )
    own = copy.deepcopy(model).cpu().eval()
    reason = ""
    if free_lengths and any(_is_row(x) for x in example_inputs):
        try:
            captured = _captured(own, example_inputs, lengths=True)
        except CaptureError as error:  # it may need just this length
            reason = str(error)
        else:
            if not any(1 in axes for axes in _free(captured)):
                captured.meta[_FIXED] = "the model works with rows of this length alone"
            return captured
    captured = _captured(own, example_inputs, lengths=False)
    if reason:
        captured.meta[_FIXED] = reason
    return captured


def fixed_length(module: fx.GraphModule) -> str:
    """Why a graph that :func:`trace` gave takes rows of one length alone.

    Empty where their length is free, where there are no rows of integers, and where none was tried.
    """
    reason: str = module.meta.get(_FIXED, "")
    return reason


def free_axes(node: fx.Node) -> tuple[int, ...]:
    """The axes of a captured graph's input whose size may change: the batch, at times a length."""
    axes: tuple[int, ...] = node.meta.get("free", (0,))
    return axes


def _free(module: fx.GraphModule) -> list[tuple[int, ...]]:
    return [free_axes(node) for node in module.graph.nodes if node.op == "placeholder"]


def _captured(
    model: nn.Module, example_inputs: Sequence[torch.Tensor], *, lengths: bool
) -> fx.GraphModule:
    # a batch of one would be specialised into the graph
    inputs = tuple(_batch(x, 2) for x in example_inputs)
    exported = _export(model, inputs, lengths=lengths)
    normaliser = _Normaliser(model, exported)
    captured = normaliser.run()
    folded = {node.name for node in normaliser.folding.nodes}
    check_capture(model, captured, exported, tuple(_batch(x, 3) for x in example_inputs), folded)
    free = _free(captured)
    if any(1 in axes for axes in free):
        shorter = (
            x[:, : max(2, x.shape[1] // 2)] if 1 in axes else x
            for x, axes in zip(example_inputs, free, strict=True)
        )
        try:
            check_capture(model, captured, exported, tuple(_batch(x, 3) for x in shorter), folded)
        except CaptureError as error:  # its words are about batches
            raise CaptureError("the model, or the graph of it, fails on shorter rows") from error
    return captured


def _is_row(x: torch.Tensor) -> bool:
    """Whether it holds rows of integers that may be of another length."""
    return x.dim() == 2 and not x.is_floating_point() and x.shape[1] > 2


def _batch(x: torch.Tensor, size: int) -> torch.Tensor:
    one = x.detach().cpu()[:1]
    return one.expand(size, *one.shape[1:]).clone()


def _export(
    model: nn.Module, inputs: tuple[torch.Tensor, ...], *, lengths: bool
) -> torch.export.ExportedProgram:
    try:
        with torch.no_grad():
            output = model(*inputs)
    except Exception as error:
        raise CaptureError(
            f"the model does not run on its example inputs of shapes "
            f"{[tuple(x.shape) for x in inputs]}: {_where(error)}. "
            f"Give data of the shape that the model expects, or another model"
        ) from error
    if not isinstance(output, torch.Tensor):
        raise CaptureError(
            f"the model returns a {type(output).__name__}; autocompress needs a model that "
            f"returns one tensor: wrap it in a module that picks the output to keep"
        )
    free = torch.export.Dim.AUTO
    dynamic = tuple({0: free, 1: free} if lengths and _is_row(x) else {0: free} for x in inputs)
    try:
        with _quiet():
            return torch.export.export(model, inputs, dynamic_shapes=dynamic, strict=False)
    except Exception as error:
        raise CaptureError(
            f"the model runs but cannot be captured: {_where(error)}. "
            f"Control flow that depends on tensor values cannot be deployed as one graph: "
            f"replace it by torch.where, or move it outside the model"
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the pages that torch prints about a graph that fails; our error says the line."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)


def _where(error: BaseException) -> str:
    """The user's own line that failed, and the error's first line."""
    frames = [
        f
        for f in traceback.extract_tb(error.__traceback__)
        if not f.filename.startswith((_TORCH_ROOT, _OWN_ROOT, "<"))
    ]
    reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
    if not frames:
        return reason
    last = frames[-1]
    line = (last.line or linecache.getline(last.filename, last.lineno or 0)).strip()
    return f'File "{last.filename}", line {last.lineno}, in {last.name}: `{line}` ({reason})'


class _Normaliser:
    """Rewrites an exported program's flat graph into one whose layers are modules."""

    def __init__(self, model: nn.Module, exported: torch.export.ExportedProgram) -> None:
        self.model = model
        self.source = exported
        signature = exported.graph_signature
        self.tensors: dict[str, str] = {
            **dict(signature.inputs_to_parameters),
            **dict(signature.inputs_to_buffers),
            **dict(signature.inputs_to_lifted_tensor_constants),
        }
        self.user_inputs = set(signature.user_inputs)
        self.values: dict[str, Any] = {
            **dict(model.named_parameters(remove_duplicate=False)),
            **dict(model.named_buffers(remove_duplicate=False)),
            **exported.constants,
        }
        known = {name: self.values[full] for name, full in self.tensors.items()}
        self.folding = fold_overwritten(exported.graph, known)
        self.varying = _varying(exported.graph, self.user_inputs)
        self.root = nn.Module()
        self.graph = fx.Graph()
        self.made: dict[fx.Node, fx.Node] = {}
        #: layer name -> what the layer is made of; calls made of the same share the layer
        self.names: dict[str, tuple[Any, ...]] = {}

    def run(self) -> fx.GraphModule:
        for node in self.source.graph.nodes:
            if node in self.folding.nodes:
                continue
            self._hold(node)
            if node.op == "placeholder":
                if node.name in self.user_inputs:
                    self.made[node] = self.graph.placeholder(node.name)
                    self._keep_meta(node)
                    sizes = enumerate(node.meta["val"].shape)
                    free = tuple(axis for axis, size in sizes if isinstance(size, torch.SymInt))
                    self.made[node].meta["free"] = free
            elif node.op == "output":
                (values,) = node.args
                result = values[-1]
                self.graph.output(
                    self.made[result] if result in self.made else self._tensor(result)
                )
            elif not self._as_layer(node):
                self._as_function(node)
        module = fx.GraphModule(self.root, self.graph, class_name="CapturedModel")
        module.graph.eliminate_dead_code()
        for node in module.graph.nodes:  # the rest belongs to the tracer, and cannot be copied
            node.meta = {key: node.meta[key] for key in _KEPT_META if key in node.meta}
        module.recompile()
        module.eval()
        return module

    def _hold(self, reader: fx.Node) -> None:
        """What was folded is to ``reader`` a tensor that the model holds."""
        for argument, held in self.folding.read.get(reader, {}).items():
            self.tensors[argument.name] = held.name
            self.values[held.name] = held.value
            self.made.pop(argument, None)

    def _keep_meta(self, node: fx.Node) -> None:
        made = self.made[node]
        made.meta["module_path"] = _module_path(node)
        value = node.meta.get("val")
        if isinstance(value, torch.Tensor):
            made.meta["rank"] = value.dim()

    def _as_layer(self, node: fx.Node) -> bool:
        """Emit ``node`` as a call_module, when it is a layer with plain parameters."""
        target = str(node.target)
        builder = LAYER_BUILDERS.get(target)
        if builder is None:
            return False
        arguments: list[Any] = list(node.args)
        first = arguments.pop(INPUT_ARGUMENT.get(target, 0))
        if not isinstance(first, fx.Node) or first not in self.made:
            return False
        if first not in self.varying and target.startswith(("aten.conv", "aten.linear")):
            return False  # computed once, when a runtime loads the model
        owned: list[str | None] = []
        for i in PARAMETER_ARGUMENTS[target]:
            if i >= len(arguments) or arguments[i] is None:
                owned.append(None)
                continue
            if not isinstance(arguments[i], fx.Node) or arguments[i].name not in self.tensors:
                return False
            owned.append(self.tensors[arguments[i].name])
            arguments[i] = self.values[self.tensors[arguments[i].name]]
        if any(isinstance(a, fx.Node) for a in arguments):
            return False
        try:
            layer = builder(first.meta["val"].dim(), *arguments, **node.kwargs)
        except UnsupportedLayer:
            return False
        known = [name for name in owned if name is not None]
        name = self._layer_name(node, known[0]) if known else self._anonymous(node)
        made = (target, *owned, repr(layer)) if known else (node.name,)
        name = self._free_name(name, made, layer)
        self.made[node] = self._call(name, first, node.name)
        self._keep_meta(node)
        return True

    def _layer_name(self, node: fx.Node, parameter: str) -> str:
        """The calling module's name when it owns the parameter, else one from the parameter's."""
        path = _module_path(node)
        try:
            caller = self.model.get_submodule(path[-1]) if path else self.model
        except AttributeError:  # such as a lambda's own frame
            caller = self.model
        if caller is not self.model and getattr(caller, "weight", None) is self.values[parameter]:
            return path[-1]
        owner, _, leaf = parameter.rpartition(".")
        if owner and leaf in {"weight", "bias", "running_mean", "running_var"}:
            return owner
        return parameter.replace("_weight", "")

    def _anonymous(self, node: fx.Node) -> str:
        """A name for a layer without parameters: dropout."""
        path = _module_path(node)
        return f"{path[-1]}.{node.name}" if path and path[-1] else node.name

    def _free_name(self, name: str, made: tuple[Any, ...], layer: nn.Module) -> str:
        """``name``, shared by calls of the same layer and made unique among different ones."""
        for known, parts in self.names.items():
            if parts == made:
                return known
        while name in self.names:
            name = f"{name}_again"
        self.names[name] = made
        put_module(self.root, name, layer)
        return name

    def _call(self, target: str, first: fx.Node, name: str) -> fx.Node:
        return self.graph.create_node("call_module", target, (self.made[first],), {}, name=name)

    def _as_function(self, node: fx.Node) -> None:
        for argument in node.all_input_nodes:
            if argument not in self.made:
                self.made[argument] = self._tensor(argument)
        if node.target is torch.ops.aten._assert_tensor_metadata.default:
            return
        if _is_broadcast(node):
            self.made[node] = self.made[node.all_input_nodes[0]]
            return
        made = self.graph.node_copy(node, lambda n: self.made[n])
        if node.target is torch.ops.aten.slice.Tensor and made.args[2:3] == (None,):
            made.update_arg(2, 0)  # the same, in a form that the analysis of channels can follow
        if node.target is torch.ops.aten.view.default:
            # how attention's results lie in memory depends on the device and on gradients
            made.target = torch.ops.aten.reshape.default
        functional = _out_of_place(node.target)
        if functional is not None:
            made.target = functional
            # whoever reads the overwritten tensor from here on reads the new one
            self.made[node.all_input_nodes[0]] = made
        self.made[node] = made
        if node.target is operator.getitem or isinstance(node.target, torch._ops.OpOverload):
            self._keep_meta(node)

    def _tensor(self, node: fx.Node) -> fx.Node:
        """A parameter, buffer or constant that no layer owns, as an attribute."""
        full = self.tensors.get(node.name)
        if full is None:
            raise CaptureError(f"the captured graph uses {node.name!r}, whose origin is unknown")
        name = "constants_" + full.replace(".", "_")
        value = self.values[full]
        if not hasattr(self.root, name):
            if isinstance(value, nn.Parameter):
                self.root.register_parameter(name, nn.Parameter(value.detach().clone()))
            else:
                self.root.register_buffer(name, torch.as_tensor(value).detach().clone())
        return self.graph.get_attr(name)


def _varying(graph: fx.Graph, inputs: Container[str]) -> set[fx.Node]:
    """The nodes whose values depend on more of the inputs than their sizes."""
    found: set[fx.Node] = set()
    for node in graph.nodes:
        if node.op == "placeholder":
            varies = node.name in inputs
        else:
            sized = node.target is torch.ops.aten.sym_size.int
            varies = not sized and any(argument in found for argument in node.all_input_nodes)
        if varies:
            found.add(node)
    return found


def _is_broadcast(node: fx.Node) -> bool:
    """Whether a tensor takes another's shape only to meet it, as in ``F.normalize``.

    Arithmetic does that by itself; repeating the values would be a kernel of its own.
    """
    if node.target is not torch.ops.aten.expand_as.default:
        return False
    ranks = {argument.meta["val"].dim() for argument in node.all_input_nodes}
    return len(ranks) == 1 and all(
        user.target in _ARITHMETIC and node.args[1] in user.args for user in node.users
    )


def _out_of_place(target: Any) -> Any:
    """The functional form of an in-place aten operator, or None for any other target."""
    if not isinstance(target, torch._ops.OpOverload):
        return None
    base, _, overload = str(target).removeprefix("aten.").rpartition(".")
    if not base.endswith("_") or base.startswith("_"):
        return None
    packet = getattr(torch.ops.aten, base.removesuffix("_"), None)
    return getattr(packet, overload, None) if packet is not None else None


def _module_path(node: fx.Node) -> tuple[str, ...]:
    """Names of the modules that a node was traced in, outermost first."""
    stack = node.meta.get("nn_module_stack") or {}
    return tuple(path for path, _ in stack.values())
