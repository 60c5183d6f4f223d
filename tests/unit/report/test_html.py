from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from autocompress.errors import StorageError
from autocompress.report.html import write_report
from tests.unit.report.run_folders import HOSTILE

MakeRun = Callable[..., Path]
_VOID = {"meta", "img", "br", "link", "input"}


class _Outline(HTMLParser):
    """Checks that elements nest, and collects what accessibility needs."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.attributes: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.append(tag)
        self.attributes.append((tag, values))
        if "id" in values:
            self.ids.append(str(values["id"]))
        if tag == "a":
            self.links.append(str(values["href"]))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def _parse(path: Path) -> _Outline:
    outline = _Outline()
    outline.feed(path.read_text(encoding="utf-8"))
    assert outline.open == []
    return outline


def test_structure_and_accessibility(make_run: MakeRun) -> None:
    page = _parse(write_report(make_run()))
    first = dict(page.attributes)
    assert first["html"]["lang"] == "en"
    assert page.tags.count("title") == page.tags.count("h1") == page.tags.count("main") == 1
    assert page.tags.count("table") == page.tags.count("caption") > 5
    charts = [a for tag, a in page.attributes if "data-figure" in a]
    assert [a["data-figure"] for a in charts] == [
        "front", "layers", "estimates", "course", "trust",
    ]  # fmt: skip
    assert all(a["role"] == "img" and a["aria-label"] for a in charts)
    assert len(page.ids) == len(set(page.ids))
    assert {link[1:] for link in page.links} <= set(page.ids)


def test_figures_of_the_run_are_on_the_page(make_run: MakeRun) -> None:
    text = write_report(make_run()).read_text(encoding="utf-8")
    for expected in (
        "3.4x faster and 9.1x smaller than fp32 at −0.6 points on Fixture CPU.",
        "runtime and torch disagree",
        "loss is NaN at step 12",
        "batch norm is folded away",
        "The table was 12 % too low",
        "0" * 64,
        "25th percentile",
    ):
        assert expected in text


def test_nothing_is_loaded_from_anywhere(make_run: MakeRun) -> None:
    path = write_report(make_run())
    page = _parse(path)
    assert not {"link", "iframe", "object", "embed"} & set(page.tags)
    assert not [a for tag, a in page.attributes if "src" in a]
    assert "default-src 'none'" in path.read_text(encoding="utf-8")


def test_hostile_text_stays_text(make_run: MakeRun) -> None:
    path = write_report(make_run(hostile=True))
    page = _parse(path)
    assert page.tags.count("script") == 3  # the figures' data, plotly, our own
    assert "img" not in page.tags
    assert not [a for _, a in page.attributes if any(name.startswith("on") for name in a)]
    text = path.read_text(encoding="utf-8")
    assert HOSTILE not in text
    assert "&lt;script&gt;alert" in text


@pytest.mark.parametrize("kept", [(), ("baseline.json",), ("study.db",)], ids=str)
def test_a_run_that_was_interrupted_early(make_run: MakeRun, kept: tuple[str, ...]) -> None:
    folder = make_run(status="interrupted")
    for path in folder.iterdir():
        if path.name not in {"run.toml", *kept}:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    path = write_report(folder)
    _parse(path)
    text = path.read_text(encoding="utf-8")
    assert "This run is interrupted" in text
    assert f"autocompress resume {folder}" in text


def test_a_failed_write_leaves_the_old_report(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_run()
    path = write_report(folder)
    path.write_text("old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(StorageError, match="No space left"):
        write_report(folder)
    assert path.read_text() == "old"
    assert not list(folder.glob(".report*"))


def test_the_page_in_a_browser(make_run: MakeRun, tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("no chromium is installed; the report was not opened in a browser")
    path = write_report(make_run(hostile=True))
    run = subprocess.run(
        [
            browser,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--enable-logging=stderr",
            "--v=0",
            "--virtual-time-budget=8000",
            "--window-size=1280,900",
            "--dump-dom",
            path.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    )
    assert not [line for line in run.stderr.splitlines() if "CONSOLE" in line]
    assert len(re.findall(r'class="chart[^"]*js-plotly-plot', run.stdout)) == 5
    assert run.stdout.count("<script") == 3  # no name became one
