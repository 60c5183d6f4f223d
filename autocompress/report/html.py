"""One HTML file that shows a whole run, offline: no network, everything escaped."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from pathlib import Path

from autocompress.core.files import write_atomically
from autocompress.report import sections
from autocompress.report.figures import Figure, course_figure, estimate_figure, front_figure
from autocompress.report.headline import Headline, headline
from autocompress.report.heatmap import heatmap_figure
from autocompress.report.proof import proof_note
from autocompress.report.run_folder import RunView, read_run
from autocompress.report.safe import Html, element, joined, script_json, text
from autocompress.report.trust import trust_figure, trust_table


def write_report(run_dir: str | Path, path: str | Path | None = None) -> Path:
    """Write the report of a run; the file appears complete or not at all.

    Args:
        run_dir: the run folder.
        path: where to write; ``report.html`` in the run folder when None.

    Raises:
        StorageError: the folder is no run, holds a corrupt file, or the file cannot be written.
    """
    view = read_run(run_dir)
    target = Path(path) if path is not None else view.directory / "report.html"
    write_atomically(target, render(view))
    return target


def render(view: RunView) -> str:
    """The report's HTML."""
    import plotly.offline

    figures = [
        front_figure(view),
        heatmap_figure(view),
        estimate_figure(view),
        course_figure(view),
        trust_figure(view),
    ]
    drawn = {figure.key: figure for figure in figures if figure is not None}
    specs = {
        key: [{"name": name, "spec": spec} for name, spec in figure.views]
        for key, figure in drawn.items()
    }
    library = Html(plotly.offline.get_plotlyjs().replace("</script", "<\\/script"))
    script = Html(_asset("report.js"))
    head = headline(view)
    title = f"{view.model} on {view.place}"
    return (
        "<!doctype html>\n"
        + element(
            "html",
            element(
                "head",
                Html('<meta charset="utf-8">'),
                _policy(library, script),
                Html('<meta name="viewport" content="width=device-width, initial-scale=1">'),
                Html('<meta name="color-scheme" content="light dark">'),
                element("title", f"{title} · autocompress report"),
                element("style", Html(_asset("report.css"))),
            ),
            element(
                "body",
                element("a", "Skip to the content", href="#content", class_="skip"),
                _header(view, head),
                element("main", *_body(view, drawn), id="content"),
                _footer(view),
                element("script", script_json(specs), type="application/json", id="figures"),
                element("script", library),
                element("script", script),
            ),
            lang="en",
        )
        + "\n"
    )


def _policy(*scripts: str) -> Html:
    """Nothing is loaded from anywhere, and only these two scripts run."""
    digests = (hashlib.sha256(s.encode()).digest() for s in scripts)
    allowed = " ".join(f"'sha256-{base64.b64encode(d).decode()}'" for d in digests)
    rules = (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
    return Html(f'<meta http-equiv="Content-Security-Policy" content="{rules}">')


def _asset(name: str) -> str:
    return files("autocompress.report").joinpath("assets", name).read_text(encoding="utf-8")


def _header(view: RunView, head: Headline) -> Html:
    run = view.section("run")
    facts = [view.model, view.place, str(run.get("created", ""))[:16].replace("T", " ")]
    line = " · ".join(part for part in facts if part)
    parts = [element("p", line, class_="kicker"), element("h1", head.sentence)]
    if head.best is not None:
        parts.append(element("p", _rule(view, head), class_="quiet"))
    if note := proof_note(view):
        parts.append(element("p", note, class_="banner", role="note"))
    if view.status != "complete":
        parts.append(element("p", _unfinished(view), class_="banner", role="status"))
    links = [
        ("front", "Front"),
        ("models", "Models"),
        ("layers", "Layers"),
        ("estimates", "Estimates"),
        ("search", "Search"),
        ("trust", "Trust"),
        ("failures", "Failures"),
        ("left-alone", "Left alone"),
        ("decisions", "Decisions"),
        ("provenance", "Provenance"),
    ]
    nav = joined(element("a", name, href=f"#{key}") for key, name in links)
    return element("header", *parts, element("nav", nav, aria_label="Sections"))


def _rule(view: RunView, head: Headline) -> Html:
    rows = view.pareto[view.pareto["id"] == head.best]
    name = str(rows["name"].iloc[0] or head.best) if len(rows) else str(head.best)
    n = len(view.pareto)
    models = "one verified model" if n == 1 else f"{n} verified models"
    return joined(["That is ", element("b", name), f", one of {models}: {text(head.rule)}."])


def _unfinished(view: RunView) -> str:
    missing = f" Not there yet: {', '.join(view.missing)}." if view.missing else ""
    return (
        f"This run is {view.status}: the report shows what was finished. "
        f"Continue it with: {view.resume_command}.{missing}"
    )


def _body(view: RunView, drawn: dict[str, Figure]) -> list[Html]:
    return [
        _section("front", "Front", _figure(drawn.get("front"), "No model was measured yet.")),
        _section("models", "Models", sections.models_table(view), sections.model_details(view)),
        _section("layers", "Layers", _figure(drawn.get("layers"), "No model was exported yet.")),
        _section(
            "estimates",
            "Estimated against measured",
            _figure(drawn.get("estimates"), "No latency was both estimated and measured."),
        ),
        _section(
            "search",
            "Course of the search",
            element("p", sections.search_words(view)),
            _figure(drawn.get("course"), "Too few trials to draw a course."),
        ),
        _section(
            "trust",
            "Trust in cheap accuracies",
            trust_table(view),
            _figure(drawn.get("trust"), "No accuracies were compared."),
        ),
        sections.plan(view),
        _section("failures", "Failures and rejections", sections.failures(view)),
        _section("left-alone", "Left alone", sections.left_alone(view)),
        _section("decisions", "Decisions", sections.decisions(view)),
        _section("provenance", "Provenance", sections.provenance(view)),
    ]


def _section(key: str, title: str, *parts: Html) -> Html:
    heading = element("h2", title, id=f"{key}-title")
    return element("section", heading, *parts, id=key, aria_labelledby=f"{key}-title")


def _figure(figure: Figure | None, otherwise: str) -> Html:
    if figure is None:
        return element("p", otherwise)
    names = [name for name, _ in figure.views]
    switch = Html("")
    if len(names) > 1:
        buttons = joined(
            element("button", name, type="button", data_view=i, aria_pressed=str(i == 0).lower())
            for i, name in enumerate(names)
        )
        switch = element("div", buttons, class_="switch", role="group", aria_label="Show")
    chart = element(
        "div",
        class_="chart",
        role="img",
        aria_label=figure.alt,
        data_columns=figure.columns or None,
        data_figure=figure.key,
    )
    silent = Html("<noscript><p>The chart needs scripting; the tables do not.</p></noscript>")
    frame = element("div", chart, class_="scroll chart-frame")
    return element("figure", switch, frame, silent, element("figcaption", figure.caption))


def _footer(view: RunView) -> Html:
    version = view.section("run").get("version") or view.section("versions").get("autocompress", "")
    return element("footer", f"autocompress {version} · run {view.section('run').get('id', '')}")
