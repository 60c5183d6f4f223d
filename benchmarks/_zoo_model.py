"""One model of torchvision, from its constructor to a verified file: a child process of ``zoo``.

``python -m benchmarks._zoo_model NAME --seed N`` prints one line of JSON. The model gets random
weights and statistics that hide no mistake; then one random candidate of its space (depth, widths,
bit-widths) is looked at twice, in floats and as drawn:

- ``captured``: the space exists;
- ``elastic``: something can be narrowed or skipped, and the elastic model computes what the
  realised one computes;
- ``exported``: both files are written and open;
- ``verified``: elastic, realised and running model compute the same from inputs that matter: floats
  to 1e-4 of the largest output, each quantised tensor to one step from the runtime's own inputs.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
import traceback
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from torch import fx, nn

from autocompress.compression.quantization import simulate_quantization
from autocompress.compression.registry import make_techniques
from autocompress.core.candidate import Candidate
from autocompress.elastic.batch_norm import reestimate_batch_norm
from autocompress.elastic.model import ElasticModel
from autocompress.elastic.realise import realise
from autocompress.elastic.space import ElasticSpace
from autocompress.export.onnx_export import export_onnx
from autocompress.export.stepwise import steps_apart
from autocompress.graph.folding import fold_batch_norm
from autocompress.runtimes.registry import load_runtime

#: Largest difference, as a share of the largest output.
TOLERANCE = 1e-4
#: Pixels of the models that cannot do with the usual ones, or need a window or patch to fit.
PIXELS = {"inception_v3": 96, "maxvit_t": 224, "vit_h_14": 56}
USUAL_PIXELS = 64
#: Bytes of address space for one model: others use the machine, too.
MEMORY = 14 << 30


@dataclass
class Row:
    """What became of one model.

    Attributes:
        name: torchvision's.
        pixels: height and width of its inputs.
        captured: the space exists.
        elastic: it holds several architectures, and candidates run as they are realised.
        exported: the files are written and open.
        verified: they compute what torch computes.
        groups: channel groups whose width is free, and all of them.
        blocks: residual blocks that can be skipped.
        elastic_share: share of all parameters in layers that a free group, or a skippable block,
            makes smaller.
        elastic_diff: elastic against realised, as a share of the largest output.
        float_diff: torch against the runtime, in floats, likewise.
        steps: the same of the quantised file, in steps of any quantised tensor; -1 without any.
        reason: why it got no further.
        seconds: spent on it.
        peak_mb: resident memory of the process at its highest.
    """

    name: str
    pixels: int
    captured: bool = False
    elastic: bool = False
    exported: bool = False
    verified: bool = False
    groups: tuple[int, int] = (0, 0)
    blocks: int = 0
    elastic_share: float = 0.0
    elastic_diff: float = -1.0
    float_diff: float = -1.0
    steps: int = -1
    reason: str = ""
    seconds: float = 0.0
    peak_mb: float = 0.0


def look_at(name: str, seed: int) -> Row:
    """Everything about one model; what fails is its row's reason."""
    started = time.perf_counter()
    row = Row(name, PIXELS.get(name, USUAL_PIXELS))
    try:
        with torch.no_grad():
            _fill(row, seed)
    except Exception as error:  # whatever it is, it is why this model got no further
        traceback.print_exc()
        said = str(error).strip().partition("\n")[0]
        if isinstance(error, MemoryError):
            said = f"it needs more than {MEMORY >> 30} GiB"
        row.reason = f"{type(error).__name__}: {said}"
    row.seconds = time.perf_counter() - started
    row.peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return row


def _fill(row: Row, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(8, 3, row.pixels, row.pixels, generator=generator)
    with torch.enable_grad():
        space = ElasticSpace.from_model(
            disturbed(_model(row.name, row.pixels), images, generator),
            (images[:1],),
            techniques=make_techniques(["pruning", "quantization"]),
        )
    row.captured = True
    _measure_elasticity(row, space)
    elastic = ElasticModel(space.graph, space.techniques).eval()
    drawn = space.decode(space.sample(np.random.default_rng(seed)))
    shown = _look_at_elastic(row, elastic, _in_floats(drawn), images)
    with tempfile.TemporaryDirectory() as folder:
        row.float_diff = _float_diff(elastic, _in_floats(drawn), images, Path(folder))
        row.steps = _steps(elastic, drawn, images, Path(folder))
    row.exported = True
    same = max(row.elastic_diff, row.float_diff) <= TOLERANCE and row.steps <= 1
    row.verified = same and shown
    if not same:
        row.reason = f"outputs differ by {row.float_diff:.1e} in floats, by {row.steps} steps"


def _model(name: str, pixels: int) -> nn.Module:
    settings: dict[str, Any] = {}
    if name in ("googlenet", "inception_v3"):  # their initial weights take a minute to draw
        settings["init_weights"] = False
    if name.startswith("vit_"):
        settings["image_size"] = pixels
    model: nn.Module = torchvision.models.get_model(name, weights=None, **settings)
    return model


def disturbed(model: nn.Module, images: torch.Tensor, generator: torch.Generator) -> nn.Module:
    """``model`` with weights and statistics that hide no mistake.

    Fresh norms are the identity, fresh biases, heads and tokens often zero, layer scales near it:
    channels mixed up in one place would go unnoticed. Statistics are then those of ``images``.
    """
    norms = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)
    with torch.no_grad():
        for module in model.modules():
            for name, parameter in module.named_parameters(recurse=False):
                scale = name == "layer_scale" or (isinstance(module, norms) and name == "weight")
                if scale:
                    parameter.uniform_(0.5, 1.5, generator=generator)
                elif parameter.numel() > 1 and float(parameter.std()) < 1e-6:
                    width = parameter.shape[-1] if parameter.dim() > 1 else 25
                    parameter.normal_(0, width**-0.5, generator=generator)
    model.eval()
    reestimate_batch_norm(model, [images])
    return model


def _measure_elasticity(row: Row, space: ElasticSpace) -> None:
    graph = space.graph
    free = {name for name, group in graph.groups.items() if group.rigid is None}
    touched = {member.module for name in free for member in graph.groups[name].members}
    touched |= {layer for block in graph.blocks for layer in block.layers}
    total = sum(parameter.numel() for parameter in graph.module.parameters())
    row.groups = (len(free), len(graph.groups))
    row.blocks = len(graph.blocks)
    within = sum(layer.parameters for name, layer in graph.layers.items() if name in touched)
    row.elastic_share = within / total


def _look_at_elastic(
    row: Row, elastic: ElasticModel, candidate: Candidate, images: torch.Tensor
) -> bool:
    """Whether the candidate's outputs show anything: they are finite and depend on the inputs."""
    realised = realise(elastic, candidate)(images)
    row.elastic_diff = _apart(realised, elastic.configure(candidate)(images))
    elastic.configure(Candidate())
    varies = float((realised - realised[:1]).abs().max()) > 0
    shown = varies and bool(realised.isfinite().all())
    if not row.groups[0] and not row.blocks:
        row.reason = "nothing in it can be narrowed or skipped"
    elif not shown:
        row.reason = "its outputs do not depend on its inputs, or are not finite"
    elif row.elastic_diff > TOLERANCE:
        row.reason = f"elastic and realised outputs differ by {row.elastic_diff:.1e}"
    row.elastic = not row.reason
    return shown


def _float_diff(
    elastic: ElasticModel, candidate: Candidate, images: torch.Tensor, folder: Path
) -> float:
    model = fold_batch_norm(realise(elastic, candidate))
    path = folder / "float.onnx"
    export_onnx(model, elastic.graph.operations(candidate), (images[:1],), path)
    (found,) = load_runtime().load(path).run([images[:3].numpy()])
    return _apart(model(images[:3]), torch.from_numpy(found))


def _steps(elastic: ElasticModel, candidate: Candidate, images: torch.Tensor, folder: Path) -> int:
    ops = elastic.graph.operations(candidate)
    model: fx.GraphModule = fold_batch_norm(realise(elastic, candidate))
    simulated = simulate_quantization(model, ops, [images])
    exported = export_onnx(simulated, ops, (images[:1],), folder / "quantised.onnx")
    apart = steps_apart(exported, simulated, [images[:3]], load_runtime())
    return max((steps.largest for steps in apart.values()), default=-1)


def _apart(expected: torch.Tensor, found: torch.Tensor) -> float:
    return float((expected - found).abs().max() / expected.abs().max())


def _in_floats(candidate: Candidate) -> Candidate:
    return candidate.with_layers(
        {
            name: replace(policy, weight_bits=32, activation_bits=32)
            for name, policy in candidate.layers.items()
        }
    )


def main() -> None:
    """Print the row of the model that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    row = look_at(options.name, options.seed)
    sys.stdout.flush()
    print(json.dumps(asdict(row)))


if __name__ == "__main__":
    main()
