"""Placing modules in a tree of modules by their path."""

from __future__ import annotations

from torch import nn


def put_module(root: nn.Module, path: str, module: nn.Module) -> None:
    """Make ``module`` the submodule of ``root`` at ``path``, such as "layer1.0.conv1".

    Missing parents become plain containers. What lies below the path already stays, unless
    ``module`` has a child of that name itself.
    """
    *parents, leaf = path.split(".")
    for part in parents:
        child = root._modules.get(part)
        if child is None:
            child = nn.Module()
            root.add_module(part, child)
        root = child
    existing = root._modules.get(leaf)
    for name, child in existing.named_children() if existing is not None else ():
        if name not in module._modules:
            module.add_module(name, child)
    setattr(root, leaf, module)
