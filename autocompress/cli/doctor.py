"""``autocompress doctor``."""

from __future__ import annotations

import typer

from autocompress.cli import options

_WORDS = {"ok": "ok  ", "warn": "warn", "fail": "FAIL"}


def doctor(as_json: options.AsJson = False) -> None:
    """Check this installation and machine; exit code 0 unless something fails."""
    import json

    from autocompress.cli.checks import run_checks

    findings = []
    for finding in run_checks():
        findings.append(finding)
        if as_json:
            print(json.dumps(finding.to_json()), flush=True)
            continue
        print(f"{_WORDS[finding.status]}  {finding.name:<22} {finding.detail}", flush=True)
        if finding.advice:
            print(f"      {'':<22} {finding.advice}")
    failed = sum(finding.status == "fail" for finding in findings)
    warned = sum(finding.status == "warn" for finding in findings)
    if not as_json:
        print(f"\n{len(findings)} checks: {failed} failed, {warned} with a warning")
    if failed:
        raise typer.Exit(1)
