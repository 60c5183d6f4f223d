from __future__ import annotations

import torch
from torch import nn

from autocompress.core.candidate import Candidate
from autocompress.elastic.model import ElasticModel
from autocompress.elastic.realise import realise
from autocompress.graph.folding import fold_batch_norm
from autocompress.graph.inspect import inspect_model
from benchmarks._batch_norms import with_batch_norms
from tests.unit.networks import EVERYTHING, ResNet, example, space


def _images(seed: int) -> torch.Tensor:
    return torch.randn(64, *example().shape[1:], generator=torch.Generator().manual_seed(seed))


def _folded() -> torch.fx.GraphModule:
    torch.manual_seed(3)
    model = ResNet().train()
    for seed in range(3):
        model(_images(seed))
    graph = inspect_model(model.eval(), (example(),))
    return fold_batch_norm(realise(ElasticModel(graph), Candidate()))


def test_they_change_nothing_in_evaluation_mode_and_little_in_training() -> None:
    folded, images = _folded(), _images(7)
    restored = with_batch_norms(folded, [images])
    with torch.no_grad():
        expected = folded(images)
        torch.testing.assert_close(restored(images), expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(restored.train()(images), expected, rtol=1e-3, atol=1e-3)


def test_every_convolution_has_one_and_the_given_module_is_not_changed() -> None:
    folded = _folded()
    before = {name: value.clone() for name, value in folded.state_dict().items()}
    restored = with_batch_norms(folded, [_images(7)])
    kinds = [type(module) for module in restored.modules()]
    assert kinds.count(nn.BatchNorm2d) == kinds.count(nn.Conv2d) > 0
    assert all(torch.equal(folded.state_dict()[name], value) for name, value in before.items())


def test_it_is_captured_and_folds_to_what_it_was() -> None:
    folded, images = _folded(), _images(7)
    graph = inspect_model(with_batch_norms(folded, [images]), (example(),))
    again = fold_batch_norm(realise(ElasticModel(graph), Candidate()))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in again.modules())
    with torch.no_grad():
        torch.testing.assert_close(again(images), folded(images), rtol=1e-4, atol=1e-5)


def test_layers_in_factors_get_one_behind_the_last() -> None:
    found = space("resnet")
    choice = next(c for c in found.choices if c.name.startswith("rank:") and len(c.options) > 1)
    genome = found.original
    genome[list(found.choices).index(choice)] = 1
    elastic = ElasticModel(found.graph, found.specialised(found.techniques, EVERYTHING).techniques)
    plain = fold_batch_norm(realise(elastic, found.decode(genome)).eval())
    inputs = torch.randn(16, *found.graph.example_inputs[0].shape[1:])
    restored = with_batch_norms(plain, [inputs])
    kinds = [type(module) for module in restored.modules()]
    assert kinds.count(nn.BatchNorm2d) < kinds.count(nn.Conv2d)
    with torch.no_grad():
        torch.testing.assert_close(restored(inputs), plain(inputs), rtol=1e-4, atol=1e-5)
