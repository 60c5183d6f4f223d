"""What ``joint_vs_staged`` says about its arms: volumes over seeds, ratios of pairs, and doubts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks._volumes import Reference, paired_ratios, spread

Outcome = dict[str, Any]
#: Arms that the joint search is held against.
OTHERS = ("staged", "uniform", "random")
#: An arm that takes this many times its budget spoils the comparison, and is told of.
TOLERATED = 1.1
_ROW = ("arm", "seed", "seconds", "credit", "cpu_seconds", "threads", "failure", "volumes")


def spent(outcome: Outcome) -> float:
    """Seconds that an arm took, relative to what it was given and credited."""
    return float(outcome["seconds"] / (outcome["budget"] + outcome["credit"]))


def compare(outcomes: Sequence[Outcome], reference: Reference) -> dict[str, Any]:
    """Print the comparison; the contract's keys, the same of every volume, and their spread.

    Ratios are of means over the seeds that both arms have, and of each of them. An arm that failed
    on the way is in none of them, and told of: the next call runs it again.

    Args:
        outcomes: of every arm and seed, with ``volumes`` and ``front``.
        reference: what volumes begin at.
    """
    ended = [o for o in outcomes if o["failure"] is None]
    arms = list(dict.fromkeys(o["arm"] for o in ended))
    names = list(outcomes[0]["volumes"])
    result: dict[str, Any] = {f"{arm}_hv": None for arm in ("joint", *OTHERS)}
    spreads: dict[str, Any] = {}
    print("\nmean over seeds (least .. most)")
    for arm in arms:
        found = [o for o in ended if o["arm"] == arm]
        result[f"{arm}_most_spent"] = max(map(spent, found))
        for name in names:
            values = spread([o["volumes"][name] for o in found])
            print(f"{arm:14} {name:20} {values['mean']:10.3f} "
                  f"({values['min']:.3f} .. {values['max']:.3f})")  # fmt: skip
            result[f"{arm}_{name}"] = values.pop("mean")
            spreads[f"{arm}_{name}"] = values
    result |= _ratios(ended, names)
    doubts = _doubts(outcomes)
    for doubt in doubts:
        print(f"WARNING: {doubt}")
    return result | {
        "seeds": len({o["seed"] for o in ended}),
        "doubts": doubts,
        "reference_accuracy": reference.accuracy,
        "reference_latency_ms": reference.latency_ms,
        "reference_size_bytes": reference.size_bytes,
        "spread": spreads,
        "rows": [{**{k: o[k] for k in _ROW}, "models": len(o["front"])} for o in outcomes],
    }


def _ratios(ended: Sequence[Outcome], names: Sequence[str]) -> dict[str, Any]:
    """``joint_over_OTHER`` of ``hv``, and every volume's by seed; printed."""
    found: dict[str, Any] = {}
    print("\njoint relative to, over the same seeds")
    for other in OTHERS:
        by_name: dict[str, Any] = {}
        for name in names:
            mean, by_seed = paired_ratios(_by_seed(ended, "joint", name),
                                          _by_seed(ended, other, name))  # fmt: skip
            by_name[name] = {"ratio": mean, "by_seed": {str(s): r for s, r in by_seed.items()}}
            if mean is not None:
                each = ", ".join(f"{r:.3f}" for r in by_seed.values())
                print(f"{other:14} {name:20} {mean:10.3f} (by seed {each or 'none'})")
        found[f"joint_over_{other}"] = by_name["hv"]["ratio"]
        found[f"joint_over_{other}_by_seed"] = {n: v["by_seed"] for n, v in by_name.items()}
    return found


def _by_seed(outcomes: Sequence[Outcome], arm: str, name: str) -> Mapping[int, float]:
    return {o["seed"]: o["volumes"][name] for o in outcomes if o["arm"] == arm}


def _doubts(outcomes: Sequence[Outcome]) -> list[str]:
    found = []
    for outcome in outcomes:
        who = f"{outcome['arm']}, seed {outcome['seed']}"
        if outcome["failure"] is not None:
            found.append(f"{who}, failed ({outcome['failure']}): it is in no mean and no ratio; "
                         "the same command runs it again")  # fmt: skip
        elif spent(outcome) > TOLERATED:
            found.append(f"{who}, took {spent(outcome):.2f} times its budget: this is no "
                         "comparison at equal budget; give more minutes, or quieter cores"
                         )  # fmt: skip
    return found
