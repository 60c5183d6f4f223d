"""What a sensitivity analysis gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from autocompress.evaluation.sensitivity.estimates import ALL
from autocompress.evaluation.sensitivity.interactions import COLUMNS, interactions_summary


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """The loss of every layer under every setting alone, without training.

    Attributes:
        table: a row per layer (or channel group, or stage) and setting, see below.
        skipped: layers that cannot take a technique or setting: ``layer``, ``technique``,
            ``setting``, ``reason``.
        agreement: how well each cheap score ranks the measured rows; see
            :func:`autocompress.evaluation.sensitivity.estimates.agreement`.
        reference: the original's ``loss`` and ``metric`` on the same examples, under "kept"; under
            "reestimated" those with batch norm statistics re-estimated, which settings that change
            more than bit-widths are compared with.
        examples: how many examples losses were measured on.
        score_examples: how many of them gradients were taken on.
        seconds: what it took.
        notes: what was left out or replaced, one sentence each.
        interactions: a row per pair of settings that was asked for, see below; empty without.

    The table's columns:

    - ``layer``, ``technique``, ``setting``: such as "layer1.0.conv1", "quantization", "w4a8";
      ``gene`` and ``option`` are the same in the words of a search space;
    - ``loss_change``: the loss under the setting less the reference's, on the same examples;
    - ``metric_drop``: how much worse the metric is, in its unit; negative when it is better;
    - ``measured``: whether both are true, or estimated from the cheap scores, and then
      ``estimated_from`` which;
    - ``loss``, ``metric``: as measured; NaN in estimated rows;
    - ``size_bytes_saved``, ``macs_saved``: against the original; the ONNX file as estimated, so
      zeros save nothing in it (only the packed file gets smaller);
    - ``latency_ms_saved``, ``energy_mj_saved``: by a device's profile, where one is given;
    - the cheap scores (:meth:`autocompress.evaluation.sensitivity.scores.Scorer.scores`);
    - ``error``: why a setting could not be measured.

    The columns of ``interactions``: ``first_layer``, ``first_setting``, ``second_layer`` and
    ``second_setting`` name the pair and ``picked`` says why it was looked at; ``joint_loss_change``
    is true, as ``first_loss_change`` and ``second_loss_change`` are, and ``interaction`` is the
    first less both others: above 0 the two are worse together than they are alone. The same of the
    metric: ``joint_metric_drop``, ``metric_interaction``. ``measured`` is False where time did not
    suffice (figures are NaN then), or where ``error`` says what was wrong.
    """

    table: pd.DataFrame
    skipped: pd.DataFrame
    agreement: pd.DataFrame
    reference: Mapping[str, Mapping[str, float]]
    examples: int
    score_examples: int
    seconds: float
    notes: tuple[str, ...] = field(default=())
    interactions: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=list(COLUMNS)))

    @property
    def measured(self) -> pd.DataFrame:
        """The rows whose loss was truly measured."""
        return self.table[self.table["measured"]]

    def summary(self) -> str:
        """What was found, in a few lines for a person."""
        rows = len(self.table)
        measured = int(self.table["measured"].sum())
        estimated = int((self.table["estimated_from"] != "").sum())
        failed = int((self.table["error"] != "").sum())
        unknown = rows - measured - estimated - failed
        kept = self.reference["kept"]
        lines = [
            f"{rows} settings of {self.table['layer'].nunique()} layers, groups and stages: "
            f"{measured} measured on {self.examples} examples, {estimated} estimated, "
            f"{failed} failed, {unknown} without a figure, in {self.seconds:.0f} s",
            f"original: loss {kept['loss']:.4g}, metric {kept['metric']:.4g}",
        ]
        lines += [f"rank agreement of {said}" for said in self._agreements()]
        lines += interactions_summary(self.interactions)
        if len(self.skipped):
            reasons = self.skipped.groupby("technique", sort=False).size()
            said = ", ".join(f"{name} {count}" for name, count in reasons.items())
            lines.append(f"cannot take a setting (see skipped): {said}")
        return "\n".join([*lines, *self.notes])

    def _agreements(self) -> list[str]:
        """For all rows and each technique, the scores with Kendall's tau and Spearman's rho."""
        found = []
        for technique, part in self.agreement.groupby("technique", sort=False):
            known = part[part["kendall"].notna()].sort_values(
                "kendall", ascending=False, kind="stable"
            )
            if known.empty:
                continue
            pairs = zip(known["score"], known["kendall"], known["spearman"], strict=True)
            said = ", ".join(f"{s} {tau:.2f} / {rho:.2f}" for s, tau, rho in pairs)
            name = "all techniques" if technique == ALL else str(technique)
            found.append(f"{name} ({int(known['rows'].max())} rows, tau / rho): {said}")
        return found

    def plot(self, column: str = "loss_change") -> Any:
        """A heat map, layers by settings, as a ``plotly.graph_objects.Figure``.

        Estimated cells are marked by "~". The colours of losses are cut at their 95th percentile.

        Raises:
            RequestError: there is no such column of figures.
        """
        from autocompress.evaluation.sensitivity.plot import heat_map

        return heat_map(self.table, column)

    def plot_interactions(self, column: str = "interaction") -> Any:
        """A heat map of the pairs, settings by settings, as a ``plotly.graph_objects.Figure``.

        Raises:
            RequestError: no pairs were asked for or measured, or there is no such column.
        """
        from autocompress.evaluation.sensitivity.plot import interaction_map

        return interaction_map(self.interactions, column)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "table": self.table.to_dict("records"),
            "skipped": self.skipped.to_dict("records"),
            "agreement": self.agreement.to_dict("records"),
            "reference": {name: dict(values) for name, values in self.reference.items()},
            "examples": self.examples,
            "score_examples": self.score_examples,
            "seconds": self.seconds,
            "notes": list(self.notes),
            "interactions": self.interactions.to_dict("records"),
        }

    def __repr__(self) -> str:
        measured = int(self.table["measured"].sum())
        return f"Sensitivity({len(self.table)} settings, {measured} measured)"
