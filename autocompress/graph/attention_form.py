"""Attention in a captured graph: ``softmax(q k^T * scale + mask) v`` for each head.

Found both as one call and written out with two matrix products (Vaswani et al. 2017,
arXiv:1706.03762).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn

from autocompress.graph.movement import Path, base_name, factor_of, moves, passes, path_to, places

_PRODUCTS = frozenset({"matmul", "bmm"})
#: What may be done to scores before the softmax, with one number or a mask.
_SCORE_OPERATORS = frozenset({"add", "sub", "mul", "div", "masked_fill"})


class NotFollowedError(ValueError):
    """This attention stays as it is; the message says why."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a run of the graph showed.

    Attributes:
        shapes: of every tensor, by node.
        numbers: every size that the graph computes, by node.
        booleans: the nodes whose tensors are boolean.
        infinite: the nodes whose tensors held minus infinity.
        hidden: the nodes whose tensors, read as masks, had rows that leave nothing to look at.
    """

    shapes: Mapping[str, tuple[int, ...]]
    numbers: Mapping[str, int]
    booleans: frozenset[str] = frozenset()
    infinite: frozenset[str] = frozenset()
    hidden: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Attention:
    """The calls that an attention consists of.

    Attributes:
        operands: queries, keys and values as they enter; keys with their features last, but for
            ``transposed``.
        transposed: whether keys enter with features before positions.
        scores: operators between the product with the keys and the softmax, in order, each with
            the place of the scores among its arguments.
        mask: what the one call adds to the scores, or excludes by.
        causal: whether the one call hides later positions.
        scale: factor of the scores.
        dropouts: on the attention's weights, in order.
        end: the node with the result for each head.
    """

    operands: tuple[fx.Node, fx.Node, fx.Node]
    end: fx.Node
    transposed: bool = False
    scores: tuple[tuple[fx.Node, int], ...] = ()
    mask: fx.Node | None = None
    causal: bool = False
    scale: float = 1.0
    dropouts: tuple[fx.Node, ...] = ()


@dataclass(frozen=True, slots=True)
class Heads:
    """Where an operand comes from.

    Attributes:
        layer: the linear layer's call that projects it.
        channels: the layer's outputs by head, shape ``(heads, head_dim)``.
        batch_first: whether the layer's rows are examples first, then positions; else the other
            way round.
        length: positions.
        batch: examples.
        factor: what its elements are multiplied with.
    """

    layer: fx.Node
    channels: torch.Tensor = field(compare=False)
    batch_first: bool
    length: int
    batch: int
    factor: float


def find_attentions(
    module: fx.GraphModule, facts: Facts
) -> Iterator[Attention | tuple[fx.Node, str]]:
    """Every attention in execution order; in place of one that cannot be read, why."""
    for node in module.graph.nodes:
        if node.op != "call_function":
            continue
        try:
            if base_name(node) == "scaled_dot_product_attention":
                yield _one_call(node, facts)
            elif base_name(node) == "softmax":
                found = _written_out(module, node, facts)
                if found is not None:
                    yield found
        except Exception as error:
            yield node, why(error)


def why(error: Exception) -> str:
    """Why an attention stays as it is, from whatever was raised while it was followed."""
    if isinstance(error, NotFollowedError):
        return str(error)
    first = str(error).strip().partition("\n")[0]
    return f"it could not be followed ({type(error).__name__}: {first})"


def _one_call(node: fx.Node, facts: Facts) -> Attention:
    names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
    given: dict[str, Any] = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
    if given.get("enable_gqa") or given.get("dropout_p"):
        raise NotFollowedError("several heads share keys, or it drops at random when deployed")
    query, key, value = (given[name] for name in names[:3])
    mask = given.get("attn_mask")
    scale = given.get("scale")
    if mask is not None:
        _same_for_heads(mask, facts.shapes[query.name], facts)
    return Attention(
        (query, key, value), node, mask=mask, causal=bool(given.get("is_causal")),
        scale=float(scale) if scale is not None else facts.shapes[query.name][-1] ** -0.5,
    )  # fmt: skip


def _written_out(module: fx.GraphModule, softmax: fx.Node, facts: Facts) -> Attention | None:
    """None where the softmax is no attention's."""
    shape = facts.shapes.get(softmax.name, ())
    if len(shape) not in (3, 4) or int(softmax.args[1]) % len(shape) != len(shape) - 1:  # type: ignore[arg-type]
        return None
    end, dropouts = _reader(module, softmax)
    if end is None:
        return None
    product, chain = _scores(softmax.args[0])
    if product is None:
        raise NotFollowedError("its scores are no plain product of queries and keys")
    scale = 1.0
    while chain and (factor := factor_of(module, chain[0][0])) is not None:
        scale, chain = scale * factor, chain[1:]
    for one, place in chain:
        for argument in one.all_input_nodes:
            if argument is not one.args[place] and argument.name in facts.shapes:
                _same_for_heads(argument, shape, facts)
    query, key = product.args
    return Attention(
        (query, key, end.args[1]), end, transposed=True, scores=chain, scale=scale,  # type: ignore[arg-type]
        dropouts=dropouts,
    )  # fmt: skip


def _scores(node: Any) -> tuple[fx.Node | None, tuple[tuple[fx.Node, int], ...]]:
    """The product of queries and keys, and what is done to it before the softmax."""
    if not isinstance(node, fx.Node) or node.op != "call_function":
        return None, ()
    if base_name(node) in _PRODUCTS:
        return node, ()
    if base_name(node) in _SCORE_OPERATORS and not node.kwargs:
        for place in (0, 1) if base_name(node) in {"add", "mul"} else (0,):
            product, before = _scores(node.args[place])
            if product is not None:
                return product, (*before, (node, place))
    return None, ()


def _reader(module: fx.GraphModule, softmax: fx.Node) -> tuple[fx.Node | None, tuple[fx.Node, ...]]:
    """The product that reads the weights, and the dropouts before it."""
    node = softmax
    dropouts: list[fx.Node] = []
    while len(node.users) == 1:
        user = next(iter(node.users))
        if user.op == "call_function" and base_name(user) in _PRODUCTS:
            return (user if user.args[0] is node else None), tuple(dropouts)
        if passes(module, user):
            dropouts.append(user)
        elif base_name(user) not in {"contiguous", "clone"}:
            break
        node = user
    return None, ()


def _same_for_heads(mask: fx.Node, shape: Sequence[int], facts: Facts) -> None:
    """Refuse what gives each head other scores."""
    own = facts.shapes[mask.name]
    if len(own) < 3 or own[-3] == 1:
        return
    if len(shape) == 3:
        raise NotFollowedError("its mask has an entry for each example and head")
    if len(own) != 4 or not _repeats_heads(mask, facts):
        raise NotFollowedError("each head's scores are shifted by a tensor of its own")


def _repeats_heads(mask: fx.Node, facts: Facts) -> bool:
    """Whether a mask holds the same elements for every head."""
    nodes: list[fx.Node] = []
    node = mask
    while moves(node):
        nodes.insert(0, node)
        node = node.args[0]  # type: ignore[assignment]
    if not nodes or node.name not in facts.shapes:
        return False
    found = places(nodes, facts.shapes[node.name], facts.numbers)[-1]
    return bool((found == found[:, :1]).all())


def may_hide_all(mask: fx.Node, facts: Facts) -> bool:
    """Whether a row of a mask may leave nothing to look at.

    What depends on the model's inputs may, if it is boolean or can hold minus infinity: where that
    was seen, or where minus infinity is among what the mask is computed from (example inputs
    without padding show none). A constant may only where it does.
    """
    seen: set[fx.Node] = set()
    left = [mask]
    constant, infinite = True, mask.name in facts.booleans
    while left:
        node = left.pop()
        if node in seen or base_name(node) == "sym_size":
            continue
        seen.add(node)
        if node.op in {"placeholder", "call_module"}:
            constant = False
            continue
        left.extend(node.all_input_nodes)
        infinite |= node.name in facts.infinite
        infinite |= -math.inf in (*node.args, *node.kwargs.values())
    return mask.name in facts.hidden if constant else infinite


def heads_of(
    module: fx.GraphModule, operand: fx.Node, facts: Facts, *, transposed: bool = False
) -> Heads:
    """Follow an operand back to the linear layer that projects it.

    Args:
        module: the graph.
        operand: enters the attention in the shape ``(n, heads, length, head_dim)`` or
            ``(n * heads, length, head_dim)``.
        facts: of the graph.
        transposed: whether its last two dimensions are the other way round.

    Raises:
        NotFollowedError: it does not come from a linear layer by moving elements alone.
    """
    path = path_to(module, operand)
    layer = path.origin
    if layer.op != "call_module" or not isinstance(
        module.get_submodule(str(layer.target)), nn.Linear
    ):
        raise NotFollowedError(
            f"what it compares does not come straight from a linear layer ({layer.name} is between)"
        )
    numbers = _numbers(path, facts)
    if transposed:
        numbers = numbers.transpose(-2, -1)
    width = facts.shapes[layer.name][-1]
    rows, channels = numbers // width, numbers % width
    if numbers.dim() == 3:  # heads and examples in one dimension, examples first
        heads = max(1, len(torch.unique(channels[:, 0, 0])))
        if len(numbers) % heads:
            raise NotFollowedError("its heads cannot be told from its examples")
        rows, channels = (t.reshape(-1, heads, *t.shape[1:]) for t in (rows, channels))
    if rows.dim() != 4:
        raise NotFollowedError(f"what it compares has {rows.dim()} dimensions")
    by_head, by_row = channels[0, :, 0], rows[:, 0, :, 0]
    if (channels != by_head[None, :, None]).any() or (rows != by_row[:, None, :, None]).any():
        raise NotFollowedError("its heads are no fixed channels of the linear layer before it")
    if len(torch.unique(by_head)) != by_head.numel():
        raise NotFollowedError("several heads share channels")
    batch, length = by_row.shape
    straight = torch.arange(batch * length)
    first = torch.equal(by_row.flatten(), straight)
    if not first and not torch.equal(by_row.T.flatten(), straight):
        raise NotFollowedError("its positions are not in the order of the linear layer before it")
    return Heads(layer, by_head, first, length, batch, path.factor)


def _numbers(path: Path, facts: Facts) -> torch.Tensor:
    if not path.nodes:
        raise NotFollowedError("what it compares is not divided into heads by views alone")
    shape = facts.shapes[path.origin.name]
    return places(path.nodes, shape, facts.numbers)[-1]  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class Joined:
    """Where the results of all heads lie side by side again.

    Attributes:
        node: its last dimension is all heads' results, head by head.
        batch_first: whether its rows are examples first.
    """

    node: fx.Node
    batch_first: bool


def joined_behind(attention: Attention, heads: Heads, width: int, facts: Facts) -> Joined:
    """Follow the result to where its heads are joined.

    Args:
        attention: whose result it is.
        heads: of the queries.
        width: channels of a head's result.
        facts: of the graph.

    Raises:
        NotFollowedError: the heads are not joined, or not one after the other.
    """
    found: Joined | None = None
    for node, numbers in moved_behind(attention.end, facts):
        order = _joins(numbers, heads, width)
        if order is not None:
            found = Joined(node, order)
    if found is None:
        raise NotFollowedError("its heads are not joined one after the other behind it")
    return found


def moved_behind(start: fx.Node, facts: Facts) -> Iterator[tuple[fx.Node, torch.Tensor]]:
    """The nodes behind ``start`` that only move its elements, and where these lie."""
    nodes: list[fx.Node] = []
    node = start
    while len(node.users) == 1 and moves(next(iter(node.users))):
        node = next(iter(node.users))
        nodes.append(node)
    for one, numbers in zip(
        nodes, places(nodes, facts.shapes[start.name], facts.numbers), strict=True
    ):
        if isinstance(numbers, torch.Tensor):
            yield one, numbers


def _joins(numbers: torch.Tensor, heads: Heads, width: int) -> bool | None:
    """In which order rows of joined heads are: examples first or not; None where it is neither."""
    count, batch, length = len(heads.channels), heads.batch, heads.length
    whole = count * width
    if numbers.dim() < 2 or numbers.shape[-1] != whole:
        return None
    if numbers.numel() != batch * length * whole:
        return None
    first = torch.arange(numbers.numel()).reshape(batch, count, length, width).transpose(1, 2)
    rows = numbers.reshape(-1, whole)
    if torch.equal(rows, first.reshape(-1, whole)):
        return True
    if torch.equal(rows, first.transpose(0, 1).reshape(-1, whole)):
        return False
    return None


def turned_behind(
    projection: fx.Node, joined: Joined, heads: Heads, facts: Facts
) -> fx.Node | None:
    """What follows a projection of joined heads in the shape ``(n, length, channels)``, if any.

    Args:
        projection: reads ``joined.node``.
        joined: the order of its rows.
        heads: whose examples and positions these are.
        facts: of the graph.
    """
    shape = (heads.batch, heads.length, facts.shapes[projection.name][-1])
    for node, numbers in moved_behind(projection, facts):
        if tuple(numbers.shape) != shape:
            continue
        turned = numbers if joined.batch_first else numbers.transpose(0, 1)
        if torch.equal(turned.flatten(), torch.arange(turned.numel())):
            return node
    return None


def causal_mask(length: int, keys: int) -> torch.Tensor:
    """0 where a position may look, minus infinity at later ones; shape ``(length, keys)``."""
    return torch.full((length, keys), -math.inf).triu(1)
