"""Capture the model or the space, and say what is left alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, replace

import torch
from torch import nn

from autocompress.agent.bounds import not_proven, within_limits
from autocompress.agent.checks import check_against_data, check_choices
from autocompress.agent.context import Context
from autocompress.agent.costs import measure_costs
from autocompress.agent.planner import Plan, make_plan
from autocompress.compression.registry import make_techniques
from autocompress.core.capabilities import Capabilities, with_storage_forms
from autocompress.elastic.model import ElasticModel
from autocompress.elastic.realise import realise
from autocompress.elastic.registry import load_space
from autocompress.elastic.space import ElasticSpace
from autocompress.errors import RequestError
from autocompress.evaluation.evaluator import CandidateEvaluator, Effort
from autocompress.hardware.profiles import load_profile

STAGE = "inspect"


def run(context: Context) -> None:
    """Leaves space, elastic model, teacher, profile, evaluator and plan in the context."""
    request = context.request
    # once there, the copy that the run was priced by
    context.profile = load_profile(
        context.folder.device if context.folder.has_device else request.device
    )
    context.request = request = within_limits(request, context.profile)
    context.space = space_of(context)
    if not context.space.graph.layers:
        raise RequestError(
            f"there is nothing to compress in {context.space.name!r}: it has no convolution and no "
            "linear layer"
        )
    check_choices(context.space)
    context.elastic = ElasticModel(context.space.graph, context.space.techniques).eval()
    context.teacher = realise(context.elastic, context.space.decode(context.space.original))
    check_against_data(context.teacher, request.data, request.task)
    context.evaluator = CandidateEvaluator(
        context.elastic, request.data, request.task, effort=Effort(),
        original=context.space.decode(context.space.original),
        trained=not context.from_scratch, teacher=context.teacher,
        checkpoints=context.folder.checkpoints,
        threads=1,
    )  # fmt: skip
    stored = context.folder.read_json("plan.json", Plan.from_json)
    if stored is None:
        _report(context)
        context.plan = make_plan(request.budget, measure_costs(context), workers=request.workers)
        context.folder.write_json("plan.json", context.plan.to_json())
        for sentence in context.plan.sentences:
            context.decide("plan", "spread the budget", sentence, **context.plan.to_json())
    else:
        if context.origin is not None:
            _report_device(context)
        context.plan = stored
        context.evaluator.threads = context.plan.threads
        torch.set_num_threads(context.plan.threads)
    context.evaluator.effort = context.plan.effort
    if context.origin is None:  # a plan that is taken over is not carried out again
        context.tell("plan", "note", "plan", {"plan": context.plan.to_json()})


def space_of(context: Context) -> ElasticSpace:
    """The space of the run's request; the same for the same run folder."""
    request = context.request
    capabilities = capabilities_for(context)
    techniques = make_techniques(request.techniques)
    subject = request.subject
    if isinstance(subject, ElasticSpace):
        return subject.specialised(techniques, capabilities, request.held)
    if isinstance(subject, str):
        classes = request.data.num_classes
        if classes is None:
            raise RequestError(
                f"space {subject!r} builds classifiers, but the data has no class labels; "
                f"give a model of your own for this task"
            )
        return load_space(
            subject, input_shape=request.data.input_shape, num_classes=classes,
            vocabulary=request.data.vocabulary,
            techniques=techniques, capabilities=capabilities, seed=request.seed,
            held=request.held,
        )  # fmt: skip
    if isinstance(subject, nn.Module):
        example = request.data.example()[0]
        return ElasticSpace.from_model(
            subject, (example,), techniques=techniques, capabilities=capabilities,
            held=request.held,
        )  # fmt: skip
    raise RequestError(
        f"a space of type {type(subject).__name__} cannot be searched; "
        f"make it with ElasticSpace.from_model, or give its name"
    )


def capabilities_for(context: Context) -> Capabilities:
    """What the space offers: what the device can exploit, given what was asked for.

    Settled once: a run that starts from another has the other's space, whose candidates it takes
    over, whatever its own device can exploit.
    """
    stored = context.folder.read_json("capabilities.json", Capabilities.from_json)
    if stored is not None:
        return stored
    device = context.profile.capabilities
    asked = {name.partition(":")[0] for name in context.request.techniques or ()}
    packed = context.wants_packed or bool(asked & {"sparsity", "clustering"})
    offered = device.precisions
    if context.wants_packed:
        offered = with_storage_forms(offered)
    found = replace(device, stores_packed=packed, precisions=offered)
    context.folder.write_json("capabilities.json", asdict(found))
    return found


def _report(context: Context) -> None:
    graph, space = context.space.graph, context.space
    refusals = space.refusals
    listed = [refusal.to_json() for refusal in refusals]
    context.folder.write_json("graph.json", {**graph.to_json(), "refusals": listed})
    parameters = sum(layer.parameters for layer in graph.layers.values())
    macs = sum(op.macs for op in graph.operations(space.decode(space.original)))
    context.decide(
        STAGE,
        "space",
        f"{space.name}: {len(graph.layers)} layers, {parameters:,} weights, "
        f"{macs / 1e6:.1f} million multiply-accumulates; {len(space.choices)} choices, "
        f"10^{space.log10_size:.0f} candidates.",
        choices={c.name: list(c.options) for c in space.choices},
        techniques=[t.name for t in space.techniques],
    )
    if space.held:
        still = [c.name for c in space.choices if len(c.options) == 1]
        context.decide(
            STAGE,
            "hold choices",
            f"{len(still)} choices are not searched, as was asked ({', '.join(space.held)}): they "
            "stay as the original has them.",
            held=list(space.held), choices=still,
        )  # fmt: skip
    _report_device(context)
    for skipped in graph.skipped:
        context.decide(
            STAGE, "leave alone", f"{skipped.name}: {skipped.reason}.", name=skipped.name
        )
    for technique in space.techniques:
        refused = [r for r in refusals if r.technique == technique.name]
        if refused:
            reasons = Counter(r.reason for r in refused)
            said = "; ".join(f"{reason} ({n})" for reason, n in reasons.most_common(3))
            context.decide(
                STAGE,
                "not offered",
                f"{technique.name} is not offered in {len(refused)} places: {said}.",
                refusals=[r.to_json() for r in refused],
            )
    for note in context.request.data.notes:
        context.decide(STAGE, "data", f"Data: {note}.")


def _report_device(context: Context) -> None:
    """What the device has room for, and what its profile cannot prove."""
    profile = context.profile
    if profile.limits.bounds:
        bounds = {c.metric: c.bound for c in profile.limits.bounds}
        room = " and ".join(f"{metric} <= {bound:,.0f}" for metric, bound in bounds.items())
        context.decide(
            STAGE,
            "keep to the device's limits",
            f"{profile.id} has room for {room}; candidates beyond it are not tried.",
            **bounds,
        )
    if not profile.proves_constraints:
        expected = not_proven(context.request, profile)
        context.decide(
            STAGE,
            "prove nothing",
            f"The profile of {profile.id} is {profile.kind}: no figure of it was measured. "
            + ("Bounds on " + ", ".join(c.metric for c in expected) if expected else "Bounds")
            + " can be expected to be met, not proven.",
            kind=profile.kind, sources=list(profile.provenance.sources),
        )  # fmt: skip
