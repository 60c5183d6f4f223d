"""The report's tables and texts, section by section."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from autocompress.core.json_values import finite
from autocompress.report import units
from autocompress.report.headline import is_share, metric_name
from autocompress.report.run_folder import Row, RunView, rows_of
from autocompress.report.safe import Html, element, joined, text

NUMBER = "num"
WIDE = "wide"
KEPT = "kept"


def table(
    caption: str,
    headings: Sequence[str],
    rows: Iterable[Sequence[object]],
    classes: Sequence[str] = (),
) -> Html:
    """A captioned table in a frame that scrolls sideways when it is too wide.

    Args:
        caption: what it holds.
        headings: one per column.
        rows: cells; the first of a row is its heading.
        classes: a class per column, "" for none.
    """
    kinds = [*classes, *[""] * (len(headings) - len(classes))]
    head = joined(
        element("th", name, scope="col", class_=kind or None)
        for name, kind in zip(headings, kinds, strict=True)
    )
    body = []
    for row in rows:
        first, *rest = row
        cells = [element("th", first, scope="row")]
        cells += [
            element("td", cell, class_=kind or None)
            for cell, kind in zip(rest, kinds[1:], strict=True)
        ]
        body.append(element("tr", joined(cells)))
    inner = joined(
        [
            element("caption", element("span", caption)),
            element("thead", element("tr", head)),
            element("tbody", joined(body)),
        ]
    )
    return element(
        "div",
        element("table", inner),
        class_="scroll",
        role="region",
        aria_label=caption,
        tabindex="0",
    )


def models_table(view: RunView) -> Html:
    """Every baseline and verified model: estimate, measurement, gain and what changed."""
    if view.models.empty:
        return element("p", "No model was measured.")
    share = is_share(view)
    headings = [
        "Model",
        metric_name(view),
        "Change" if not share else "Points",
        "Latency, ms",
        "Faster",
        "File",
        "Smaller",
        "Packed",
    ]
    classes = ["", *[NUMBER] * 7]
    rows = [_model_row(view, row, share) for _, row in view.models.iterrows()]
    frame = table(
        "Baselines first, then every verified model. Estimate → measured, in brackets the "
        "latency's range and the accuracy's 95 % interval; faster and smaller than fp32.",
        headings,
        rows,
        classes,
    )
    return element("div", frame, class_="models")


def _model_row(view: RunView, row: pd.Series[Any], share: bool) -> list[object]:
    baseline = row["kind"] == "baseline"
    title: object = str(row["name"] or row["id"])
    if str(row["id"]) in view.manifests:
        title = element("a", title, href=f"#model-{_anchor(row['id'])}")
    if row["changes"]:
        title = joined([title, element("small", row["changes"], class_="changes")])
    drop = units.points(row["accuracy_drop"]) if share else _plain_drop(row)
    return [
        title,
        _accuracy(row, share),
        units.MISSING if baseline and row["id"] == "baseline-fp32" else drop,
        _arrow(
            units.milliseconds(row["latency_estimate_ms"]),
            units.milliseconds(row["latency_ms"]),
            units.interval(row["latency_low_ms"], row["latency_high_ms"]),
        ),
        units.ratio(row["speedup"]),
        _arrow(units.size(row["size_estimate_bytes"]), units.size(row["size_bytes"]), ""),
        units.ratio(row["size_ratio"]),
        units.size(row["packed_bytes"]),
    ]


def _anchor(value: object) -> str:
    return "".join(c if c.isalnum() else "-" for c in str(value))


def _plain_drop(row: pd.Series[Any]) -> str:
    return units.number(-row["accuracy_drop"])


def _accuracy(row: pd.Series[Any], share: bool) -> Html:
    shown = units.percent if share else units.number
    value = element("b", shown(row["accuracy"]))
    low, high = row["accuracy_low"], row["accuracy_high"]
    if not (units.known(low) and units.known(high)):
        return value
    scale = 100 if share else 1
    spread = f"[{units.number(scale * low)}, {units.number(scale * high)}]"
    return joined([value, " ", element("small", spread)])


def _arrow(estimate: str, measured: str, spread: str) -> Html:
    parts: list[object] = []
    if estimate not in (units.MISSING, measured):
        parts.append(element("span", f"{estimate} → ", class_="quiet"))
    parts.append(element("b", measured))
    if spread:
        parts += [" ", element("small", spread)]
    return joined(parts)


def model_details(view: RunView) -> Html:
    """A fold-out for each model: its checks and its layers."""
    order = [str(i) for i in view.models["id"] if str(i) in view.manifests]
    order += [i for i in view.manifests if i not in order]
    names = {str(r["id"]): str(r["name"] or r["id"]) for _, r in view.models.iterrows()}
    return joined(_model_detail(i, names.get(i, i), view.manifests[i]) for i in order)


def _model_detail(identifier: str, name: str, manifest: Row) -> Html:
    checks = rows_of(manifest, "checks")
    passed = sum(check.get("ok") is True for check in checks)
    summary = joined([name, " ", element("small", f"{passed} of {len(checks)} checks passed")])
    path = f"models/{identifier}/model.onnx"
    parts: list[Html] = [element("p", element("code", path), class_="quiet")]
    if checks:
        parts.append(checks_table(f"Checks of {name}", checks))
    layers = rows_of(manifest, "layers")
    if layers:
        parts.append(_layers_table(name, layers))
    return element(
        "details", element("summary", summary), *parts, id=f"model-{_anchor(identifier)}"
    )


def checks_table(caption: str, checks: Sequence[Row]) -> Html:
    """Verification checks: what was looked at, the figure found, the limit."""
    rows = [
        [
            check.get("name", ""),
            verdict(check.get("ok") is True),
            _figure(check.get("value")),
            _figure(check.get("limit")),
            check.get("detail") or "",
        ]
        for check in checks
    ]
    headings = ["Check", "Result", "Found", "Limit", "Detail"]
    return table(caption, headings, rows, ["", "", NUMBER, NUMBER, WIDE])


def verdict(ok: bool) -> Html:
    """Passed or failed, in words; colour is only an addition."""
    return element("span", "passed" if ok else "failed", class_="ok" if ok else "bad")


def _figure(value: object) -> str:
    if value is None:
        return units.MISSING
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _rank(layer: Row) -> str:
    """Such as "cp 16" or "tucker 16x8"; runs of earlier versions have no factorisation."""
    rank, inner = _figure(layer.get("rank")), layer.get("input_rank")
    form = layer.get("factorization")
    return f"{form or ''} {rank}{f'x{inner}' if inner else ''}".strip()


def _layers_table(name: str, layers: Sequence[Row]) -> Html:
    rows = [
        [
            layer.get("name", ""),
            layer.get("kind", ""),
            f"{layer.get('weight_bits', units.MISSING)}/{layer.get('activation_bits', '–')}",
            _of(layer.get("width"), layer.get("original_width")),
            _rank(layer),
            units.percent(_float(layer.get("sparsity"))),
            _figure(layer.get("codebook")),
            units.count(_float(layer.get("macs"))),
            units.size(_float(layer.get("bytes"))),
            units.number(_float(layer.get("latency_estimate_ms"))),
        ]
        for layer in layers
    ]
    headings = [
        "Layer",
        "Kind",
        "Bits w/a",
        "Width",
        "Rank",
        "Zeros",
        "Values",
        "MACs",
        "Bytes",
        "Estimate, ms",
    ]
    return table(f"Layers of {name}", headings, rows, ["", "", *[NUMBER] * 8])


def _float(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _of(part: object, whole: object) -> str:
    if part is None:
        return units.MISSING
    return str(part) if whole in (None, part) else f"{part} of {whole}"


def failures(view: RunView) -> Html:
    """Models that failed verification, and trials that failed, by reason."""
    parts: list[Html] = []
    if view.rejected:
        parts.append(_rejected(view))
    failed_trials = view.trials[view.trials["state"] == "failed"]
    if not failed_trials.empty:
        parts.append(_failed_trials(failed_trials))
    if not parts:
        return element("p", "No model was rejected and no trial failed.")
    return joined(parts)


def _rejected(view: RunView) -> Html:
    rows = []
    for identifier, manifest in view.rejected.items():
        name = str(manifest.get("name") or identifier)
        failed = [c for c in rows_of(manifest, "checks") if c.get("ok") is not True]
        for check in failed or [{"detail": "no reason given"}]:
            found, limit = _figure(check.get("value")), _figure(check.get("limit"))
            rows.append([name, check.get("name", ""), found, limit, check.get("detail") or ""])
    return table(
        "Models that were exported and re-opened but are not returned, with the check that "
        "turned them down.",
        ["Model", "Check", "Found", "Limit", "Detail"],
        rows,
        ["", "", NUMBER, NUMBER, WIDE],
    )


def _failed_trials(failed: pd.DataFrame) -> Html:
    rows: list[tuple[str, int, str]] = []
    for reason, part in failed.groupby("error", sort=False):
        numbers = ", ".join(str(n) for n in part["number"].head(8))
        more = "" if len(part) <= 8 else " …"
        rows.append((str(reason) or "no reason given", len(part), f"{numbers}{more}"))
    rows.sort(key=lambda row: -row[1])
    return table(
        "Trials that failed; the search went on without them.",
        ["Reason", "Trials", "Numbers"],
        rows,
        [WIDE, NUMBER, NUMBER],
    )


def left_alone(view: RunView) -> Html:
    """What the search could not touch, or could not change in every way, with the reason."""
    refusals = rows_of(view.graph, "refusals")
    if refusals:
        return _refusals(refusals)
    rows: list[list[object]] = [
        [row.get("name", ""), "left as it is", row.get("reason", "")]
        for row in rows_of(view.graph, "skipped")
    ]
    for group in rows_of(view.graph, "groups"):
        if group.get("rigid"):
            listed = group.get("layers")
            layers = ", ".join(str(n) for n in listed) if isinstance(listed, list) else ""
            rows.append([layers or group.get("name", ""), "width is fixed", group["rigid"]])
    if not rows:
        if "graph.json" in view.missing:
            return element("p", "The model was not inspected before the run ended.")
        return element("p", "Nothing: every layer and channel group could be compressed.")
    return table(
        "Layers and channel groups that were left alone.",
        ["Layer", "What", "Reason"],
        rows,
        ["", KEPT, WIDE],
    )


def _refusals(refusals: Sequence[Row]) -> Html:
    """One row for each technique, setting and reason, with all the layers that it is about."""
    places: dict[tuple[str, str, str], list[str]] = {}
    for row in refusals:
        key = (str(row.get("technique", "")), str(row.get("setting", "")), str(row.get("reason")))
        places.setdefault(key, []).append(str(row.get("name", "")))
    rows = [
        [
            "any technique" if technique == "any" else technique,
            "all" if setting == "any" else setting,
            reason,
            ", ".join(names),
        ]
        for (technique, setting, reason), names in places.items()
    ]
    return table(
        "Settings that layers and channel groups cannot take.",
        ["Technique", "Setting", "Reason", "Layers"],
        rows,
        ["", KEPT, WIDE, WIDE],
    )


def decisions(view: RunView) -> Html:
    """What was decided on what evidence."""
    if not view.decisions:
        return element("p", "No decision was written.")
    rows = [
        [
            str(row.get("stage", "")),
            joined([str(row.get("sentence") or row.get("decision", "")), _evidence(row)]),
            element("small", str(row.get("time", ""))[:19].replace("T", " ")),
        ]
        for row in view.decisions
    ]
    return table("Decisions, in order.", ["Stage", "Decision", "Time"], rows, ["", WIDE, NUMBER])


def _evidence(row: Row) -> Html:
    evidence = row.get("evidence")
    if not evidence:
        return Html("")
    pretty = json.dumps(finite(evidence), indent=1, ensure_ascii=False, sort_keys=True)
    return element("details", element("summary", "evidence"), element("pre", pretty))


def plan(view: RunView) -> Html:
    """The plan the run started with."""
    sentences = view.plan.get("sentences")
    words = [str(s) for s in sentences] if isinstance(sentences, list) else []
    stages = rows_of(view.plan, "stages")
    if not words and not stages:
        return Html("")
    rows = [
        [stage.get("name", ""), units.seconds(_float(stage.get("seconds"))), stage.get("note", "")]
        for stage in stages
    ]
    listed = table("Time set aside for each stage.", ["Stage", "Time", "Note"], rows, ["", NUMBER])
    body = joined([*(element("p", s) for s in words), listed if rows else Html("")])
    return element("section", element("h2", "Plan"), body, id="plan")


def search_words(view: RunView) -> str:
    """How many trials there were, and what came of them."""
    trials = view.trials
    if trials.empty:
        return "No trial was finished."
    failed = int((trials["state"] == "failed").sum())
    spent = units.seconds(float(trials["seconds"].sum()))
    kinds = ", ".join(f"{n} at {f} fidelity" for f, n in trials["fidelity"].value_counts().items())
    return f"{len(trials)} trials ({kinds}), {failed} failed, {spent} of evaluation."


def provenance(view: RunView) -> Html:
    """Request, versions, machine, device profile, protocol, seeds and hashes."""
    run = {k: v for k, v in view.section("run").items() if k != "command"}
    blocks: list[tuple[str, Mapping[str, Any]]] = [
        ("Run", run),
        ("Request", view.section("request")),
        ("Versions", view.section("versions")),
        ("Machine", view.section("machine")),
        ("Device profile", _profile(view.profile)),
    ]
    first = next(iter(view.manifests.values()), {})
    blocks += [
        ("Measurement protocol", first.get("protocol") or {}),
        ("Measurement environment", first.get("environment") or {}),
    ]
    parts = [_pairs(title, values) for title, values in blocks if values]
    command = view.section("run").get("command")
    if command:
        parts.insert(0, element("pre", str(command)))
    hashes = [
        [f"models/{i}/model.onnx", units.size(_float(m.get("size_bytes"))), m.get("sha256", "")]
        for i, m in view.manifests.items()
    ]
    files = table("Files and their SHA-256.", ["File", "Size", "SHA-256"], hashes, ["", NUMBER])
    return joined([element("div", *parts, class_="pairs"), files if hashes else Html("")])


def _profile(profile: Mapping[str, Any]) -> Mapping[str, Any]:
    """The parts of a profile that say where its figures come from."""
    hidden = {"supports", "calibration", "table", "seal", "schema_version"}
    return {key: value for key, value in profile.items() if key not in hidden}


def _pairs(title: str, values: Mapping[str, Any]) -> Html:
    items = joined(
        joined([element("dt", key), element("dd", value)]) for key, value in _flat(values, "")
    )
    return element("div", element("h3", title), element("dl", items))


def _flat(values: Mapping[str, Any], prefix: str) -> list[tuple[str, Html]]:
    pairs: list[tuple[str, Html]] = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            pairs += _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list):
            pairs.append((f"{prefix}{key}", text(", ".join(str(v) for v in value))))
        elif value is not None:
            pairs.append((f"{prefix}{key}", text(value)))
    return pairs
