"""Hardware-aware architecture search and model compression in one verified search.

Public names are loaded on first use, so that ``import autocompress`` stays light: torch, ray,
onnxruntime and optuna are imported only by what needs them.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autocompress.agent.result import SearchResult as SearchResult
    from autocompress.agent.result import Solution as Solution
    from autocompress.api import plan as plan
    from autocompress.api import resume as resume
    from autocompress.api import search as search
    from autocompress.api import sensitivity as sensitivity
    from autocompress.core.budget import Budget as Budget
    from autocompress.core.candidate import Candidate as Candidate
    from autocompress.core.candidate import LayerPolicy as LayerPolicy
    from autocompress.core.candidate import Recipe as Recipe
    from autocompress.core.objective import Constraint as Constraint
    from autocompress.core.objective import Objective as Objective
    from autocompress.elastic.registry import list_spaces as list_spaces
    from autocompress.evaluation.data import Data as Data
    from autocompress.evaluation.sensitivity.result import Sensitivity as Sensitivity
    from autocompress.evaluation.task import Task as Task
    from autocompress.export import pack as pack
    from autocompress.export import unpack as unpack
    from autocompress.export import verify as verify
    from autocompress.hardware import list_profiles as list_profiles
    from autocompress.hardware import load_profile as load_profile
    from autocompress.measurement import measure_device as measure_device

__version__ = "0.1.0"

_HOME = {
    "Budget": "autocompress.core.budget",
    "Candidate": "autocompress.core.candidate",
    "Constraint": "autocompress.core.objective",
    "Data": "autocompress.evaluation.data",
    "LayerPolicy": "autocompress.core.candidate",
    "Objective": "autocompress.core.objective",
    "Recipe": "autocompress.core.candidate",
    "SearchResult": "autocompress.agent.result",
    "Sensitivity": "autocompress.evaluation.sensitivity.result",
    "Solution": "autocompress.agent.result",
    "Task": "autocompress.evaluation.task",
    "list_profiles": "autocompress.hardware",
    "list_spaces": "autocompress.elastic.registry",
    "load_profile": "autocompress.hardware",
    "measure_device": "autocompress.measurement",
    "pack": "autocompress.export",
    "plan": "autocompress.api",
    "resume": "autocompress.api",
    "search": "autocompress.api",
    "sensitivity": "autocompress.api",
    "unpack": "autocompress.export",
    "verify": "autocompress.export",
}

__all__ = [
    "Budget",
    "Candidate",
    "Constraint",
    "Data",
    "LayerPolicy",
    "Objective",
    "Recipe",
    "SearchResult",
    "Sensitivity",
    "Solution",
    "Task",
    "__version__",
    "list_profiles",
    "list_spaces",
    "load_profile",
    "measure_device",
    "pack",
    "plan",
    "resume",
    "search",
    "sensitivity",
    "unpack",
    "verify",
]


class _Face(ModuleType):
    """This package, with ``search`` staying the function.

    The sub-package ``autocompress.search`` has the same name; importing it would bind the module
    over the function. ``from autocompress.search.store import ...`` is not touched by this.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Face


def __getattr__(name: str) -> Any:
    """Load a public name on first use (PEP 562)."""
    try:
        home = _HOME[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
