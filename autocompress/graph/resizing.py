"""Input resolution as a choice: images are resized inside the model, first of all.

So a candidate takes the data that the original takes, whatever it computes at, and what is said of
its accuracy and latency holds for the file as it is, resizing included.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import fx, nn

from autocompress.errors import RequestError
from autocompress.graph.model_graph import Resizing

_OPERATORS = frozenset({"aten.upsample_bilinear2d.vec", "aten.upsample_bilinear2d.default"})


class Resize(nn.Module):
    """Images at a height that a candidate chooses; as they are until it does.

    The width goes with the height. Interpolation is bilinear without antialiasing, which leaves out
    no pixel down to half the size. What follows has to work at every size, as convolutions before a
    global mean do.

    Args:
        heights: what is offered, in pixels, the largest first; those from the input's own height on
            are left out.
    """

    def __init__(self, heights: Sequence[int]) -> None:
        super().__init__()
        if not heights or list(heights) != sorted(set(heights), reverse=True) or heights[-1] < 1:
            raise RequestError(f"heights are {tuple(heights)}; give some, the largest first")
        self.heights = tuple(int(h) for h in heights)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(n, channels, h, w)``, kept; the node that this leaves is what candidates change."""
        size = (int(x.shape[2]), int(x.shape[3]))
        return nn.functional.interpolate(x, size, mode="bilinear", align_corners=False)


def usual_heights(height: int, least: int = 16) -> tuple[int, ...]:
    """Heights to offer for images: down to half, in steps of 4 up to 64 pixels, of 16 above.

    Args:
        height: of the images.
        least: the smallest to offer.
    """
    step = 4 if height <= 64 else 16
    lowest = max(least, -(-height // 2))
    return tuple(h for h in range((height - 1) // step * step, 0, -step) if h >= lowest)


def find_resizings(
    module: fx.GraphModule, model: nn.Module, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, Resizing]:
    """Every :class:`Resize` of the model, located in the graph."""
    found: dict[str, Resizing] = {}
    for node in module.graph.nodes:
        if str(node.target) not in _OPERATORS:
            continue
        path = (node.meta.get("module_path") or ("",))[-1]
        owner = model.get_submodule(path) if path else model
        if not isinstance(owner, Resize):
            continue
        height, width = shapes[node.name][2:]
        heights = (height, *(h for h in owner.heights if h < height))
        sizes = {h: (h, max(1, round(width * h / height))) for h in heights}
        found[path] = Resizing(path, node.all_input_nodes[0].name, node.name, sizes)
    return found
