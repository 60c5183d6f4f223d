from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

import autocompress

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("**/*.md")])
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[<>=!~\[; ]", requirement)[0] for requirement in requirements}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)", page.read_text())
    broken = [
        link for link in links if "://" not in link and not (page.parent / link).resolve().exists()
    ]
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_python_snippets_use_public_names(page: Path) -> None:
    for snippet in re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL):
        used = {
            node.attr
            for node in ast.walk(ast.parse(snippet))
            if isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id == "ac"
        }
        assert used <= set(autocompress.__all__)


def test_every_dependency_has_its_reason() -> None:
    text = (ROOT / "docs" / "dependencies.md").read_text()
    always, extras = text.split("## Extras")
    rows = set(re.findall(r"^\| ([a-z0-9][a-z0-9-]*) \|", always, flags=re.MULTILINE)) - {"package"}
    assert rows == names(PROJECT["dependencies"])
    for extra, packages in PROJECT["optional-dependencies"].items():
        (row,) = re.findall(rf"^\| {extra} \| ([^|]*) \|", extras, flags=re.MULTILINE)
        assert set(row.split(", ")) == names(packages)


def test_constraints_are_exact_and_name_no_place() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[^/@ ]+", pin) for pin in pins)
    pinned = {re.sub(r"[-_.]+", "-", pin.split("==")[0]).lower() for pin in pins}
    dev = PROJECT["optional-dependencies"]["dev"]
    assert names(PROJECT["dependencies"]) | names(dev) <= pinned
