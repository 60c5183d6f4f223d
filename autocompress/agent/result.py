"""What a search gives back: the verified front, the baseline, every trial."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from autocompress.core.candidate import Candidate
from autocompress.errors import InfeasibleError, RequestError, StorageError
from autocompress.evaluation.agreement import Agreement
from autocompress.evaluation.text.tokenizer import FILE as VOCABULARY
from autocompress.report.html import write_report
from autocompress.report.run_folder import RunView, read_run, rows_of
from autocompress.search.store import read_trials

if TYPE_CHECKING:
    from torch import fx, nn

    from autocompress.agent.request import Request
    from autocompress.agent.run_folder import RunFolder
    from autocompress.core.budget import Budget
    from autocompress.core.events import Observer
    from autocompress.core.objective import Objective
    from autocompress.core.space import SearchSpace
    from autocompress.evaluation.data import Data
    from autocompress.evaluation.task import Task


class Solution:
    """One verified deployable model.

    Args:
        folder: ``models/<id>`` of a run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = folder / "manifest.json"
        try:
            self.manifest: dict[str, Any] = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise StorageError(f"{path} cannot be read: {error}") from error

    @property
    def id(self) -> str:
        """The candidate's id."""
        return str(self.manifest["id"])

    @property
    def path(self) -> Path:
        """The ONNX file."""
        return self.folder / "model.onnx"

    @property
    def candidate(self) -> Candidate:
        """What was chosen for every layer."""
        return Candidate.from_json(self.manifest["candidate"])

    @property
    def metrics(self) -> dict[str, Any]:
        """Measured and estimated figures; names as the columns of ``pareto.csv``."""
        return dict(self.manifest["metrics"])

    def explain(self) -> pd.DataFrame:
        """A row per layer: bits, width, sparsity, rank, bytes, estimated milliseconds."""
        return pd.DataFrame(self.manifest["layers"])

    def save(self, path: str | Path) -> Path:
        """Copy the ONNX file to ``path`` and its manifest next to it, and the vocabulary of texts.

        Raises:
            StorageError: it cannot be written there.
        """
        target = Path(path)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.path, target)
            shutil.copyfile(self.folder / "manifest.json", target.with_suffix(".manifest.json"))
            if "tokens" in self.manifest:
                words = self.folder / VOCABULARY
                shutil.copyfile(words, target.with_suffix(f".{VOCABULARY}"))
        except OSError as error:
            raise StorageError(f"cannot write {target}: {error}") from error
        return target

    def session(self) -> Any:
        """A session of the model in the runtime it was checked in, with one thread.

        ``run({name: array})`` gives its outputs.
        """
        from autocompress.export.manifest import runtime_name
        from autocompress.runtimes.registry import load_runtime

        return load_runtime(runtime_name(self.manifest)).load(self.path)

    def __repr__(self) -> str:
        shown = {k: self.metrics.get(k) for k in ("accuracy", "latency_ms", "size_bytes")}
        return f"Solution({self.id}, {shown})"


class SearchResult:
    """The front of verified models, with everything around it.

    Args:
        run_dir: a run folder.
        request: what was asked for, where the caller has it; a run folder holds no model.
    """

    def __init__(self, run_dir: Path, request: Request | None = None) -> None:
        self.run_dir = run_dir
        self._request = request

    @cached_property
    def view(self) -> RunView:
        """Everything that the run folder holds."""
        return read_run(self.run_dir)

    @property
    def pareto(self) -> pd.DataFrame:
        """A row per verified model; estimated and measured columns."""
        frame = self.view.pareto
        return frame.reset_index(drop=True)

    @property
    def baseline(self) -> pd.DataFrame:
        """The original in fp32 and uniform int8, measured in the same way."""
        return self.view.baselines.reset_index(drop=True)

    @cached_property
    def trials(self) -> pd.DataFrame:
        """Every trial, failures and their reasons included; "accuracy" is the task's metric."""
        path = self.run_dir / "study.db"
        records = read_trials(path) if path.is_file() else []
        frame = pd.DataFrame(
            [
                {
                    "number": r.number, "state": r.state, "fidelity": r.fidelity.value,
                    "origin": r.origin, "candidate": r.candidate.id, "error": r.error,
                    "seconds": r.seconds, "attempts": r.attempts, **r.metrics,
                }
                for r in records
            ]
        )  # fmt: skip
        if "accuracy" in frame and not self.view.section("request").get("higher_is_better", True):
            frame["accuracy"] = -frame["accuracy"]  # trials hold it turned: larger is better
        return frame

    @property
    def trust(self) -> pd.DataFrame:
        """How far cheap accuracies agree with dearer ones: a row per comparison that was made.

        ``before`` and ``after`` are the fidelities that were compared: inherited with briefly
        trained accuracy before the search, the search's with that after full training at its end.
        ``spearman`` and ``kendall`` come with the ends of their 95 % bootstrap intervals
        (``spearman_low`` …) and are NaN where they are not known, for which ``unknown`` has the
        reason; ``distinct`` counts the different values of the score with fewer of them.
        ``mean_gap``, ``largest_gap`` and ``mean_change`` are in the metric's unit (0.01 is one
        point of accuracy); ``mean_change`` is positive where the second accuracy is better, also
        of metrics of which smaller is better. The candidates are in ``trust.json``.
        """
        columns = [f.name for f in fields(Agreement)]
        rows = [
            {
                "before": row.get("before"), "after": row.get("after"),
                **{name: (row.get("agreement") or {}).get(name) for name in columns},
                "sentence": row.get("sentence"),
            }
            for row in rows_of(self.view.trust, "comparisons")
        ]  # fmt: skip
        frame = pd.DataFrame(rows, columns=["before", "after", *columns, "sentence"])
        figures = [name for name in columns if name not in ("pairs", "distinct", "unknown")]
        return frame.astype(dict.fromkeys(figures, float))

    @property
    def skipped(self) -> pd.DataFrame:
        """What cannot take a technique or setting: a row each, with the reason.

        Columns ``layer`` (or channel group), ``technique`` ("any" for what none can change),
        ``setting`` ("any" for all of the technique's) and ``reason``. Runs of earlier versions
        hold only what no technique can change.
        """
        graph = self.view.graph
        rows = [
            (row.get("name"), row.get("technique"), row.get("setting"), row.get("reason"))
            for row in rows_of(graph, "refusals")
        ] or [
            (row.get("name"), "any", "any", row.get("reason")) for row in rows_of(graph, "skipped")
        ]
        return pd.DataFrame(rows, columns=["layer", "technique", "setting", "reason"])

    @property
    def solutions(self) -> list[Solution]:
        """The verified models in the order of :attr:`pareto`: the smallest loss first."""
        return [Solution(self.run_dir / "models" / str(i)) for i in self.pareto["id"]]

    def best(
        self,
        *,
        max_latency_ms: float | None = None,
        max_size_bytes: float | None = None,
        max_packed_bytes: float | None = None,
        max_accuracy_drop: float | None = None,
    ) -> Solution:
        """The most accurate verified model within the bounds, by the validation examples.

        Args:
            max_latency_ms: measured where it was measured, else estimated.
            max_size_bytes: of the ONNX file.
            max_packed_bytes: of the entropy-coded file.
            max_accuracy_drop: points lost against the fp32 baseline, as a share.

        Raises:
            InfeasibleError: no verified model is within the bounds; names the nearest.
            RequestError: the run has no verified model.
        """
        frame = self.pareto
        if frame.empty:
            raise RequestError(f"{self.run_dir} holds no verified model; resume the run first")
        latency = frame["latency_ms"].fillna(frame["latency_estimate_ms"])
        fits = pd.Series(True, index=frame.index)
        for bound, values, name in (
            (max_latency_ms, latency, "latency_ms"),
            (max_size_bytes, frame["size_bytes"], "size_bytes"),
            (max_packed_bytes, frame["packed_bytes"], "packed_bytes"),
            (max_accuracy_drop, frame["accuracy_drop"], "accuracy_drop"),
        ):
            if bound is not None:
                within = values <= bound
                if not within.any():
                    raise InfeasibleError(
                        f"no model has {name} <= {bound:g}; the least is {values.min():g}"
                    )
                fits &= within
        if not fits.any():
            raise InfeasibleError("no model meets all the bounds together; relax one of them")
        # by the validation examples: test examples do not choose
        worse = frame.loc[fits, "val_accuracy"]
        if self.view.section("request").get("higher_is_better", True):
            worse = -worse
        ties = worse.index[worse == worse.min()]
        chosen = latency[ties].idxmin()
        return Solution(self.run_dir / "models" / str(frame.loc[chosen, "id"]))

    def module(
        self,
        identifier: str,
        *,
        model: nn.Module | SearchSpace | None = None,
        data: Data | str | None = None,
        task: Task | None = None,
    ) -> fx.GraphModule:
        """A returned model as the torch module that its file was exported from.

        To train it further, or to search on from it. Batch norms are folded; a model that computes
        in integers is fake-quantised. In evaluation mode.

        Args:
            identifier: an id of :attr:`pareto`, but not a baseline's.
            model: the run's model, where this result was opened from its folder.
            data: the run's data, likewise, unless they were given by name.
            task: the run's task, likewise, unless it was classification.

        Raises:
            RequestError: there is no such model, or the run's model or data are needed again.
            StorageError: its weights are gone from the run folder.
        """
        from autocompress.agent.again import open_run
        from autocompress.agent.modules import restored

        known = [solution.id for solution in self.solutions]
        if identifier not in known:
            raise RequestError(
                f"there is no model {identifier!r} in {self.run_dir}; it has "
                f"{', '.join(known) or 'none'}"
            )
        source = open_run(self.run_dir)
        request = self._asked(source, model, data, task, "module(...)")
        solution = Solution(self.run_dir / "models" / identifier)
        return restored(source, request, solution.candidate)

    def _asked(
        self,
        source: RunFolder,
        model: nn.Module | SearchSpace | None,
        data: Data | str | None,
        task: Task | None,
        call: str,
    ) -> Request:
        """What the run was asked for; what its folder does not hold has to be given again."""
        from autocompress.agent.again import request_again
        from autocompress.evaluation.data import Data

        if self._request is not None and all(given is None for given in (model, data, task)):
            return self._request
        again = None if data is None else Data.of(data)
        call = f"autocompress.SearchResult({{run}}).{call}"
        return request_again(source, model, data=again, task=task, call=call)

    def retarget(
        self,
        device: Any = None,
        *,
        constraints: Mapping[str, float] | None = None,
        objectives: Sequence[Objective | str] | None = None,
        budget: Budget | str | float | None = None,
        models: int = 12,
        run_dir: str | Path | None = None,
        model: nn.Module | SearchSpace | None = None,
        data: Data | str | None = None,
        task: Task | None = None,
        progress: bool | str = True,
        callbacks: Sequence[Observer] = (),
    ) -> SearchResult:
        """A new front for another device, or other bounds, from the same weights and evaluations.

        The run's trials are priced for the device; its finalised models and, with the shared
        weights as they are, its other candidates are chosen from anew, exported and verified.
        Nothing is trained, unless there is a budget for it.

        Args:
            device: a name, a path or a profile, as in :func:`autocompress.search`; None keeps the
                table that the run was priced by.
            constraints: bounds; None keeps the run's.
            objectives: two to four; None keeps the run's.
            budget: time to train the candidates that are added in full; None trains nothing.
            models: to verify at the most.
            run_dir: the new run's folder; by default beside this run's.
            model: the run's model, where this result was opened from its folder.
            data: the run's data, likewise, unless they were given by name.
            task: the run's task, likewise, unless it was classification.
            progress: as in :func:`autocompress.search`.
            callbacks: as there.

        Raises:
            RequestError: the request is wrong, or needs the model or data again.
            InfeasibleError: no candidate meets the constraints on this device.
        """
        from autocompress.agent.again import open_run
        from autocompress.agent.retarget import new_folder, retargeted, run_retarget
        from autocompress.core.budget import Budget
        from autocompress.report.display import make_display

        source = open_run(self.run_dir)
        seconds = None if budget is None else Budget.parse(budget).seconds
        if budget is not None and seconds is None:
            raise RequestError(
                f"budget is {budget!r}, but it is the time to train what is added; give seconds"
            )
        request = self._asked(source, model, data, task, "retarget()")
        wanted = retargeted(
            request, source, device, constraints=constraints, objectives=objectives,
            train_seconds=seconds, models=models,
        )  # fmt: skip
        folder = new_folder(source, wanted) if run_dir is None else Path(run_dir)
        with make_display(progress) as display:
            run_retarget(wanted, folder, observers=(display, *callbacks))
        return SearchResult(folder, wanted)

    def report(self, path: str | Path | None = None) -> Path:
        """Write the HTML report; by default into the run folder."""
        return write_report(self.run_dir, Path(path) if path else self.run_dir / "report.html")

    def plot(self) -> Any:
        """The front as a plotly figure."""
        from autocompress.report.plot import plot_front

        return plot_front(self.view)

    def __repr__(self) -> str:
        return f"SearchResult({str(self.run_dir)!r}, {len(self.pareto)} verified models)"
