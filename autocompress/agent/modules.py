"""A run's finalised models as torch modules."""

from __future__ import annotations

from torch import fx

from autocompress.agent.context import Context
from autocompress.agent.decisions import DecisionLog
from autocompress.agent.request import Request
from autocompress.agent.run_folder import RunFolder
from autocompress.agent.stages.inspect import space_of
from autocompress.core.candidate import Candidate
from autocompress.elastic.model import ElasticModel
from autocompress.errors import StorageError
from autocompress.evaluation.evaluator import CandidateEvaluator, Effort
from autocompress.hardware.profiles import load_profile


def restored(source: RunFolder, request: Request, candidate: Candidate) -> fx.GraphModule:
    """The module that a finalised candidate was exported from, in evaluation mode.

    Args:
        source: the run's folder.
        request: what the run was asked for.
        candidate: one that the run has finalised.

    Raises:
        StorageError: the run has no weights of it.
    """
    context = Context(request, source, DecisionLog(source))
    context.profile = load_profile(source.device if source.has_device else request.device)
    space = space_of(context)
    evaluator = CandidateEvaluator(
        ElasticModel(space.graph, space.techniques).eval(), request.data, request.task,
        effort=Effort(), original=space.decode(space.original), trained=space.trained,
        checkpoints=source.checkpoints,
    )  # fmt: skip
    try:
        return evaluator.restore(candidate).model
    except StorageError as error:
        raise StorageError(
            f"{source.path} has no weights of {candidate.id} to make a module of: {error}"
        ) from error
