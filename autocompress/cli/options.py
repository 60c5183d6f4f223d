"""Options that several commands share, and how their texts become values."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from autocompress.cli.faults import JSON_ASKED
from autocompress.core.budget import Budget, parse_seconds
from autocompress.core.objective import parse_constraints, parse_objectives
from autocompress.errors import RequestError

if TYPE_CHECKING:
    from torch import nn

    from autocompress.report.run_folder import RunView


def existing(path: Path, kind: str) -> Path:
    """``path``, if there is such a file.

    Raises:
        RequestError: there is none; the message asks for a file of that kind.
    """
    if not path.is_file():
        raise RequestError(f"there is no file {path}; give the path of {kind}")
    return path


Space: TypeAlias = Annotated[
    str | None,
    typer.Option("--space", metavar="NAME", help="A search space; see: autocompress spaces."),
]
Model: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="FILE.py:FUNCTION",
        help="Your own model: a function in a file that returns a torch.nn.Module.",
    ),
]
Weights: TypeAlias = Annotated[
    Path | None,
    typer.Option("--weights", help="Weights for --model: .safetensors, .pt or .pth."),
]
Data: TypeAlias = Annotated[
    str,
    typer.Option(
        "--data",
        help="digits, mnist:DIR, cifar10:DIR, parquet:DIR, images:DIR, sst2:DIR or text:DIR.",
    ),
]
Device: TypeAlias = Annotated[
    str,
    typer.Option(
        "--device", help="A device's name, the path of its profile, or local[:RUNTIME][:THREADS]."
    ),
]
BudgetText: TypeAlias = Annotated[
    str, typer.Option("--budget", metavar="TIME", help="Time for the whole run: 90s, 10m, 1h30m.")
]
Trials: TypeAlias = Annotated[
    int | None, typer.Option("--trials", min=1, help="End the search after so many trials, too.")
]
Models: TypeAlias = Annotated[
    int | None,
    typer.Option("--models", min=1, help="Train in full and verify so many at the most."),
]
Objectives: TypeAlias = Annotated[
    str,
    typer.Option("--objectives", metavar="A,B[,C]", help="Two to four metrics, by commas."),
]
Constraints: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--constraint",
        metavar="METRIC=BOUND",
        help="A bound such as latency_ms=2.0 or accuracy_drop=0.01; may be repeated.",
    ),
]
Techniques: TypeAlias = Annotated[
    str | None,
    typer.Option("--techniques", metavar="A,B", help="Only these; otherwise all that pay."),
]
Held: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--hold",
        metavar="CHOICES",
        help="Choices that are not searched: architecture, or names such as 'width:*'; may be "
        "repeated.",
    ),
]
Strategy: TypeAlias = Annotated[
    str, typer.Option("--strategy", help="How candidates are proposed: auto or a name.")
]
Executor: TypeAlias = Annotated[
    str, typer.Option("--executor", help="Where trials run: local or ray.")
]
Workers: TypeAlias = Annotated[
    int, typer.Option("--workers", min=1, help="Trials evaluated at the same time.")
]
Seed: TypeAlias = Annotated[int, typer.Option("--seed", min=0, help="Same seed, same trials.")]


def _note_json(context: typer.Context, asked: bool) -> bool:
    context.meta[JSON_ASKED] = asked
    return asked


AsJson: TypeAlias = Annotated[
    bool,
    typer.Option("--json", help="One JSON object a line on standard output.", callback=_note_json),
]
Quiet: TypeAlias = Annotated[bool, typer.Option("--quiet", "-q", help="Only the result.")]
RunFolder: TypeAlias = Annotated[Path, typer.Argument(metavar="RUN", help="The run folder.")]

DEFAULT_OBJECTIVES = "accuracy,latency_ms,size_bytes"


def subject(space: str | None, model: str | None, weights: Path | None) -> str | nn.Module:
    """The space's name, or the user's model with its weights.

    Raises:
        RequestError: neither or both are given, or the model cannot be loaded.
    """
    if (space is None) == (model is None):
        raise RequestError(
            "give either --space NAME (see: autocompress spaces) or --model FILE.py:FUNCTION"
        )
    if space is not None:
        if weights is not None:
            raise RequestError("--weights belongs to --model; a search space has no weights")
        return space
    from autocompress.cli.models import load_model

    return load_model(str(model), weights)


def model_again(
    view: RunView, model: str | None, weights: Path | None, *, command: str = "resume"
) -> nn.Module | None:
    """The model of a run that is resumed, or retargeted; None for a run of a named space.

    Raises:
        RequestError: the run is of the user's own model, which is not given, or the reverse.
    """
    of_a_space = view.section("request").get("kind", "space") == "space"
    if of_a_space and (model is not None or weights is not None):
        raise RequestError(
            f"{view.directory} is a run of the search space {view.model!r}; "
            "leave --model and --weights out"
        )
    if of_a_space:
        return None
    if model is None:
        command = view.section("run").get("command", "")
        raise RequestError(
            f"{view.directory} is a run of your own model; give it again, as in the command that "
            f"began it: autocompress {command} {view.directory} --model FILE.py:FUNCTION "
            f"[--weights FILE]; that command was: {command}"
        )
    from autocompress.cli.models import load_model

    return load_model(model, weights)


def request(
    *,
    device: str,
    budget: str,
    trials: int | None,
    models: int | None,
    objectives: str,
    constraints: Sequence[str] | None,
    techniques: str | None,
    held: Sequence[str] | None,
    strategy: str,
    executor: str,
    workers: int,
    seed: int,
) -> dict[str, Any]:
    """The keyword arguments that ``search`` and ``plan`` of the API share.

    Raises:
        RequestError: a text cannot be read, or names what does not exist.
    """
    names = listed(objectives)
    parse_objectives(names)
    return {
        "device": device,
        "budget": Budget(seconds=parse_seconds(budget), trials=trials, models=models),
        "objectives": tuple(names),
        "constraints": constraint_values(constraints or ()),
        "techniques": tuple(listed(techniques)) if techniques is not None else None,
        "held": tuple(held or ()),
        "strategy": strategy,
        "executor": executor,
        "workers": workers,
        "seed": seed,
    }


def constraint_values(texts: Sequence[str]) -> dict[str, float] | None:
    """``{"latency_ms": 2.0}`` from ``["latency_ms=2.0"]``; None without any.

    Raises:
        RequestError: a text has another form, repeats a metric or names an unknown one.
    """
    values: dict[str, float] = {}
    for text in texts:
        name, sign, bound = text.partition("=")
        name = name.strip()
        try:
            value = float(bound)
        except ValueError:
            sign = ""
            value = 0.0
        if not sign or not name:
            raise RequestError(f"constraint {text!r}: write METRIC=BOUND, such as latency_ms=2.0")
        if name in values:
            raise RequestError(f"constraint {name} is given twice; give it once")
        values[name] = value
    parse_constraints(values)
    return values or None


def progress_mode(as_json: bool, quiet: bool) -> str:
    """The display that the options ask for."""
    return "json" if as_json else "none" if quiet else "auto"


def listed(text: str) -> list[str]:
    """The words between commas."""
    return [part.strip() for part in text.split(",") if part.strip()]
