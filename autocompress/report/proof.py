"""Says when a run's bounds are expected to be met rather than proven to be."""

from __future__ import annotations

from autocompress.report.run_folder import RunView

#: Kinds of profiles of which no figure was measured.
_UNSEEN = frozenset({"analytic", "simulated"})


def proof_note(view: RunView) -> str:
    """A sentence for a run on a device that nobody measured; empty for others."""
    kind = view.profile.get("kind")
    if kind not in _UNSEEN:
        return ""
    names = {n for text in view.pareto["not_proven"] for n in str(text).split(", ") if n}
    bounds = f"the bounds on {', '.join(sorted(names))}" if names else "any bound on them"
    return (
        f"The profile of {view.device} is {kind}: its latencies are worked out, not measured. "
        f"That the models meet {bounds} is expected, not proven."
    )
