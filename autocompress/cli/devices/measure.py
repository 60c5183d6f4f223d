"""``autocompress devices measure``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autocompress.cli import options


def measure(
    space: Annotated[
        str, typer.Option("--space", help="Measure the kernels that this space reaches.")
    ] = "tiny_cnn",
    shape: Annotated[
        str, typer.Option("--input", metavar="CxHxW", help="Shape of one input.")
    ] = "3x32x32",
    classes: Annotated[int, typer.Option("--classes", min=2, help="Outputs.")] = 10,
    runtime: Annotated[
        str, typer.Option("--runtime", help="What executes the models, such as openvino.")
    ] = "onnxruntime",
    threads: Annotated[int, typer.Option("--threads", min=1, help="The runtime's threads.")] = 1,
    budget: Annotated[
        str, typer.Option("--budget", metavar="TIME", help="Begin no kernel after so long.")
    ] = "5m",
    identifier: Annotated[
        str | None, typer.Option("--id", help="Save the table as a profile of this name, too.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="The folder for it.")] = Path(),
    seed: options.Seed = 0,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure this machine kernel by kernel; what its table has already is not timed again."""
    import json

    from autocompress.cli.devices.measuring import measure_space, profile_folder, save_profile
    from autocompress.core.budget import parse_seconds
    from autocompress.core.events import Event
    from autocompress.report.display import make_display
    from autocompress.report.units import seconds as duration

    target = profile_folder(identifier, out) if identifier is not None else None
    with make_display(options.progress_mode(as_json, quiet)) as display:

        def tell(done: int, total: int) -> None:
            display(Event("measure", "progress", "kernels", {"done": done, "total": total}))

        display(Event("measure", "stage_started", f"sampling {space}"))
        found = measure_space(
            space,
            input_shape=_shape(shape),
            classes=classes,
            threads=threads,
            seconds=parse_seconds(budget),
            runtime=runtime,
            seed=seed,
            progress=tell,
        )
    saved = save_profile(found.profile, target) if target is not None else None
    if as_json:
        values = {"kind": "result", "reached": found.reached, "measured": found.done}
        more = {"left": found.left, "seconds": found.seconds, "profile": saved and str(saved)}
        print(json.dumps(values | more))
        return
    print(
        f"{found.reached} kernels are within reach of {space}; {found.done} were measured in "
        f"{duration(found.seconds)}, {found.left} are left\n{found.profile.summary}"
    )
    if saved is not None:
        print(f"profile  {saved}; use it with --device {saved}")


def _shape(text: str) -> tuple[int, ...]:
    from autocompress.errors import RequestError

    parts = text.lower().split("x")
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise RequestError(f"--input is {text!r}; write the shape of one input, such as 3x32x32")
    return tuple(int(part) for part in parts)
