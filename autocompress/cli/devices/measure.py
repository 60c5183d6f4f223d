"""``autocompress devices measure``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autocompress.cli import options


def measure(
    space: Annotated[
        str | None,
        typer.Option("--space", help="Measure the kernels that this space reaches: tiny_cnn."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="FILE.py:FUNCTION", help="Instead: those of your model."),
    ] = None,
    shape: Annotated[
        str,
        typer.Option("--input", metavar="CxHxW", help="Shape of one input; L@IDS for token ids."),
    ] = "3x32x32",
    classes: Annotated[int, typer.Option("--classes", min=2, help="Outputs.")] = 10,
    runtime: Annotated[
        str | None,
        typer.Option("--runtime", help="Here: what executes the models, such as openvino."),
    ] = None,
    threads: Annotated[
        str, typer.Option("--threads", metavar="N", help="The runtime's threads; remote also A,B.")
    ] = "1",
    budget: Annotated[
        str | None,
        typer.Option(
            "--budget",
            metavar="TIME",
            help="Begin no kernel after so long: 5m here, no limit elsewhere.",
        ),
    ] = None,
    identifier: Annotated[
        str | None, typer.Option("--id", help="Save the table as a profile of this name, too.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="The folder for it.")] = Path(),
    ssh: Annotated[
        str | None,
        typer.Option("--ssh", metavar="USER@HOST[:PORT]", help="Measure a device behind ssh."),
    ] = None,
    ssh_option: Annotated[
        list[str] | None,
        typer.Option("--ssh-option", metavar="KEY=VALUE", help="One more of ssh; repeatable."),
    ] = None,
    adb: Annotated[
        str | None,
        typer.Option("--adb", metavar="SERIAL", help="Measure a device behind adb; or: any."),
    ] = None,
    remote_python: Annotated[
        str | None,
        typer.Option("--remote-python", help="The device's Python; default: python3."),
    ] = None,
    remote_dir: Annotated[
        str | None, typer.Option("--remote-dir", help="Where on the device; default: its home.")
    ] = None,
    kernels: Annotated[
        int | None,
        typer.Option("--kernels", min=1, help="Remote: the most frequent so many, not all."),
    ] = None,
    networks: Annotated[
        int | None,
        typer.Option("--networks", min=0, help="Remote: so many whole networks; default: 12."),
    ] = None,
    rounds: Annotated[
        int | None,
        typer.Option("--rounds", min=1, help="Remote: everything is timed so often; default: 3."),
    ] = None,
    seed: options.Seed = 0,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure this machine kernel by kernel, or a device behind ssh or adb.

    What was measured already is not timed again: the same command goes on where it stopped.
    """
    from autocompress.cli.devices import measuring, remote
    from autocompress.cli.devices.request import NETWORKS, SpaceRequest, chosen
    from autocompress.cli.devices.texts import (
        input_shape,
        none_given,
        thread_counts,
        vocabulary,
    )
    from autocompress.core.budget import parse_seconds
    from autocompress.measurement.pack import ROUNDS
    from autocompress.report.display import make_display

    here = ssh is None and adb is None
    if here:
        none_given(
            {
                "--ssh-option": ssh_option or None,
                "--remote-python": remote_python,
                "--remote-dir": remote_dir,
                "--kernels": kernels,
                "--networks": networks,
                "--rounds": rounds,
            },
            "it is for a device elsewhere; add --ssh or --adb, or leave it out",
        )
    else:
        none_given({"--runtime": runtime}, "on a device elsewhere it is onnxruntime; leave it out")
    wanted = SpaceRequest(
        chosen(space, model, "tiny_cnn"),
        input_shape(shape),
        classes,
        kernels,
        NETWORKS if networks is None else networks,
        thread_counts(threads),
        ROUNDS if rounds is None else rounds,
        seed,
        vocabulary(shape),
    )
    seconds = parse_seconds(budget) if budget is not None else None
    display = make_display(options.progress_mode(as_json, quiet))
    if here:
        measuring.measure_here(
            wanted,
            runtime=runtime or "onnxruntime",
            seconds=seconds,
            identifier=identifier,
            out=out,
            display=display,
            as_json=as_json,
        )
        return
    remote.measure_there(
        wanted,
        transport=remote.make_transport(ssh, ssh_option or (), adb),
        python=remote_python or "python3",
        folder=remote_dir,
        seconds=seconds,
        identifier=identifier,
        out=out,
        display=display,
        as_json=as_json,
    )
