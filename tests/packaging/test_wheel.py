"""The wheel, built, looked into, and used from a clean environment."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=inherited | environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the project as it lies here; nothing is written into the project."""
    out = tmp_path_factory.mktemp("wheel")
    run(
        *(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, ROOT),
        cwd=out,
    )
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def members(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clean environment's interpreter: the wheel installed, its dependencies borrowed from here.

    The dependencies (several gigabytes) are put on its path by a .pth file; autocompress itself is
    not borrowed, since the editable install here works by a .pth file, which is not followed.
    """
    place = tmp_path_factory.mktemp("clean") / "venv"
    venv.create(place, with_pip=False, symlinks=True)
    python = place / "bin" / "python"
    pip: list[str | Path] = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "--disable-pip-version-check",
    ]
    run(*pip, "install", "--no-deps", "--no-index", "--quiet", wheel, cwd=place)
    site = run(
        python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=place
    ).strip()
    borrowed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (Path(site) / "borrowed.pth").write_text("\n".join(sorted(borrowed)) + "\n")
    home = run(python, "-c", "import autocompress; print(autocompress.__file__)", cwd=place)
    assert home.startswith(str(place)), "the clean environment does not use the wheel"
    return python


def test_no_top_level_name_but_autocompress(members: list[str]) -> None:
    top = {name.split("/")[0] for name in members}
    assert {name for name in top if not name.endswith(".dist-info")} == {"autocompress"}


def test_the_links_became_folders(members: list[str]) -> None:
    assert "autocompress/py.typed" in members
    for folder in ("search_spaces", "hw_profiles"):
        mine = {
            str(p.relative_to(ROOT))
            for p in (ROOT / folder).rglob("*")
            if p.is_file() and "__pycache__" not in p.parts
        }
        assert mine
        assert {f"autocompress/{name}" for name in mine} <= set(members)
    assert "autocompress/search_spaces/tiny_cnn.py" in members
    profiles = {n for n in members if n.startswith("autocompress/hw_profiles/")}
    assert any(n.endswith("/profile.toml") for n in profiles)
    assert any(n.endswith("/latency.csv") for n in profiles)


def test_nothing_but_the_package_is_shipped(members: list[str]) -> None:
    unwanted = ("__pycache__", ".pyc", ".sqlite", "study.db", ".mypy_cache")
    assert [name for name in members if any(part in name for part in unwanted)] == []


def test_doctor_runs_from_the_wheel(python: Path, tmp_path: Path) -> None:
    command = python.with_name("autocompress")
    assert command.is_file()
    out = run(command, "doctor", cwd=tmp_path, AUTOCOMPRESS_CACHE=str(tmp_path / "cache"))
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] in out


def test_a_space_and_a_profile_load_from_the_wheel(python: Path, tmp_path: Path) -> None:
    code = (
        "import autocompress as ac\n"
        "from autocompress.elastic.registry import load_space\n"
        "assert 'tiny_cnn' in list(ac.list_spaces()), ac.list_spaces()\n"
        "space = load_space('tiny_cnn', input_shape=(1, 8, 8), num_classes=10)\n"
        "names = list(ac.list_profiles())\n"
        "assert names, 'no built-in profile'\n"
        "profile = ac.load_profile(names[0])\n"
        "print(type(space).__name__, profile)\n"
    )
    assert run(python, "-c", code, cwd=tmp_path)


def test_the_source_archive_builds_the_same_wheel(
    wheel: Path, members: list[str], tmp_path: Path
) -> None:
    run(
        *(sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", tmp_path, ROOT),
        cwd=tmp_path,
    )
    (archive,) = tmp_path.glob("*.tar.gz")
    shutil.unpack_archive(archive, tmp_path / "source", filter="data")
    (source,) = (tmp_path / "source").iterdir()
    out = tmp_path / "again"
    run(
        *(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, source),
        cwd=tmp_path,
    )
    (again,) = out.glob("*.whl")
    with zipfile.ZipFile(again) as rebuilt:
        assert sorted(rebuilt.namelist()) == sorted(members)
