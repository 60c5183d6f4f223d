"""``autocompress resume``."""

from __future__ import annotations

from autocompress.cli import options


def resume(
    run: options.RunFolder,
    model: options.Model = None,
    weights: options.Weights = None,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Go on with a run that was interrupted; does only what is missing.

    A run of your own model needs --model again: a run folder never says which code to run.
    """
    from autocompress.report.run_folder import read_run

    view = read_run(run)  # a folder that is no run is refused before anything heavy is loaded
    subject = options.model_again(view, model, weights)
    from autocompress.api import resume as go_on
    from autocompress.cli.outcome import show_outcome

    result = go_on(run, subject, progress=options.progress_mode(as_json, quiet))
    show_outcome(result.run_dir, as_json=as_json, quiet=quiet)
