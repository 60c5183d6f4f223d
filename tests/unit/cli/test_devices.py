from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from autocompress.cli.devices import measuring
from autocompress.hardware import list_profiles, load_profile, profiles
from autocompress.hardware.archive import export_profile
from autocompress.hardware.limits import Limits
from autocompress.hardware.machine import describe_machine
from autocompress.hardware.predictor import LatencyPredictor
from autocompress.hardware.profile import HardwareProfile
from autocompress.measurement.networks import reference_networks
from tests.unit.cli.conftest import Outcome
from tests.unit.hardware.profile_files import full_profile
from tests.unit.measurement.remote.packs import run_runner, unpacked

Run = Callable[..., Outcome]


@pytest.fixture
def board(tmp_path: Path) -> Path:
    """A profile without any kernel."""
    folder = tmp_path / "board"
    folder.mkdir()
    HardwareProfile("board", "a test board", "measured", describe_machine()).save(folder)
    return folder


def test_show_a_profile_by_its_path(run: Run, board: Path) -> None:
    outcome = run("devices", "show", board)
    assert outcome.code == 0, outcome.err
    assert outcome.out.startswith("device        board\ndescription   a test board\n")
    assert "w4a32 (smaller, not faster)" in outcome.out
    assert "error band is assumed" in outcome.out
    assert json.loads(run("devices", "show", board, "--json").out)["device"] == "board"


def test_an_unknown_device(run: Run) -> None:
    outcome = run("devices", "show", "pi9")
    assert outcome.code == 2
    assert "unknown device 'pi9'; use one of" in outcome.err


@pytest.mark.parametrize("name", ["profile.toml", "latency.csv"])
def test_a_corrupt_profile(run: Run, board: Path, name: str) -> None:
    path = board / name
    path.write_bytes(path.read_bytes()[:-9])
    outcome = run("devices", "show", board)
    assert outcome.code == 4
    assert str(path) in outcome.err
    assert "Traceback" not in outcome.err


def test_list_goes_on_after_a_corrupt_profile(
    run: Run, board: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profiles, "built_in_folder", lambda: board.parent)
    (board / "latency.csv").unlink()
    outcome = run("devices", "list")
    assert outcome.code == 0
    lines = outcome.out.splitlines()
    assert lines[1].startswith("board   unusable")
    assert lines[2].startswith("local   this machine")
    assert [row["device"] for row in json.loads(run("devices", "list", "--json").out)] == [
        "board",
        "local",
    ]


def test_measure_this_machine_and_keep_the_profile(run: Run, tmp_path: Path) -> None:
    command = ("devices", "measure", "--input", "1x8x8", "--budget", "0.5s")
    outcome = run(*command, "--id", "my_box", "--out", tmp_path)
    assert outcome.code == 0, outcome.err
    assert "kernels are within reach of tiny_cnn" in outcome.out
    profile = load_profile(tmp_path / "my_box")
    assert profile.id == "my_box"
    assert profile.kind == "measured"
    assert len(profile.table) > 0
    again = run(*command, "--id", "my_box", "--out", tmp_path)
    assert again.code == 0, again.err  # the same command goes on
    assert len(load_profile(tmp_path / "my_box").table) >= len(profile.table)


def test_measure_leaves_another_profile_alone(run: Run, board: Path) -> None:
    outcome = run("devices", "measure", "--id", board.name, "--out", board.parent)
    assert outcome.code == 2
    assert "is there already" in outcome.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param(["--input", "3x32xwide"], "--input is '3x32xwide'", id="shape"),
        pytest.param(["--space", "nope"], "unknown search space 'nope'", id="space"),
        pytest.param(["--id", "My Box"], "--id is 'My Box'", id="name"),
        pytest.param(["--runtime", "nope"], "unknown runtime 'nope'", id="runtime"),
        pytest.param(["--budget", "0s"], "budget is '0s'", id="budget"),
        pytest.param(["--threads", "0"], "--threads is '0'", id="threads"),
        pytest.param(["--threads", "1,2"], "here it is one number", id="two-threads"),
        pytest.param(["--ssh", "a b", "--id", "x"], "--ssh is 'a b'", id="target"),
        pytest.param(["--ssh", "pi@board"], "give the profile a name", id="no-name"),
        pytest.param(["--ssh", "a", "--adb", "b", "--id", "x"], "give either", id="both"),
        pytest.param(["--adb", "a", "--ssh-option", "A=b"], "belongs to --ssh", id="option"),
        pytest.param(["--ssh-option", "A=b"], "--ssh-option is A=b; it is for", id="option-here"),
        pytest.param(["--kernels", "5"], "--kernels is 5; it is for a device else", id="kernels"),
        pytest.param(["--networks", "0"], "--networks is 0; it is for a device", id="networks"),
        pytest.param(["--rounds", "2"], "add --ssh or --adb, or leave it out", id="rounds"),
        pytest.param(["--remote-dir", "x"], "--remote-dir is x", id="remote-dir"),
        pytest.param(["--ssh", "a", "--runtime", "openvino"], "elsewhere it is onnx", id="other"),
    ],
)
def test_measure_refuses_a_wrong_request(run: Run, arguments: list[str], words: str) -> None:
    outcome = run("devices", "measure", *arguments)
    assert outcome.code == 2
    assert words in outcome.err


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A shared profile that nothing speaks against."""
    return export_profile(full_profile(), tmp_path / "board.acprofile")


def test_validate_says_what_holds(run: Run, archive: Path) -> None:
    outcome = run("devices", "validate", archive)
    assert outcome.code == 0, outcome.err
    assert "holds the measured profile board" in outcome.out
    assert "  ok       12 kernels, sorted" in outcome.out
    assert "(seal)" in outcome.out
    assert "estimates of 30 networks" in outcome.out
    assert "warning" not in outcome.out
    found = json.loads(run("devices", "validate", archive, "--json").out)
    assert found["valid"] is True
    assert found["warnings"] == []


def test_validate_warns(run: Run, board: Path) -> None:
    outcome = run("devices", "validate", board)
    assert outcome.code == 0
    assert "warning  validated on 0 networks" in outcome.out
    assert "warning  the latency table is empty" in outcome.out


def test_validate_refuses(run: Run, board: Path, archive: Path) -> None:
    path = board / "profile.toml"
    path.write_text(path.read_text().replace("run_us", "run_ms"))
    outcome = run("devices", "validate", board)
    assert outcome.code == 4
    assert f"{path}, line " in outcome.err
    assert "write 'run_us' and multiply the figure by 1000" in outcome.err
    archive.write_bytes(archive.read_bytes()[:-1])
    assert run("devices", "validate", archive).code == 4
    assert run("devices", "validate", board / "nowhere").code == 2


def test_import_makes_a_name_known(
    run: Run, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOCOMPRESS_PROFILES", str(tmp_path / "mine"))
    outcome = run("devices", "import", archive)
    assert outcome.code == 0, outcome.err
    assert "use it with --device board" in outcome.out
    assert list_profiles()[-2:] == ["board", "local"]
    assert load_profile("board").id == "board"
    again = run("devices", "import", archive)
    assert again.code == 2
    assert "is there already" in again.err
    shown = run("devices", "show", "board")
    assert "clusters      (name Cortex-A76, cores 4, mhz 2400.0)" in shown.out
    assert "max_latency_ms  50.0" in shown.out


def test_import_into_another_folder(run: Run, archive: Path, tmp_path: Path) -> None:
    outcome = run("devices", "import", archive, "--out", tmp_path / "here", "--json")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["device"] == str(tmp_path / "here" / "board")


def test_import_does_not_hide_behind_a_built_in_name(
    run: Run, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full_profile().save(tmp_path / "built_in" / "board")
    monkeypatch.setattr(profiles, "built_in_folder", lambda: tmp_path / "built_in")
    outcome = run("devices", "import", archive)
    assert outcome.code == 2
    assert "a name that a built-in one has" in outcome.err


def test_export(run: Run, board: Path, tmp_path: Path) -> None:
    target = tmp_path / "shared.acprofile"
    outcome = run("devices", "export", board, "-o", target)
    assert outcome.code == 0, outcome.err
    assert load_profile(target).id == "board"
    assert run("devices", "export", board, "-o", tmp_path / "x.zip").code == 2
    assert run("devices", "import", tmp_path / "none.acprofile").code == 2


def test_by_hand(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pack here, run there, import here; a part first, then all of it into the same profile."""
    monkeypatch.setattr(measuring, "SAMPLES", 3)
    archive = tmp_path / "bench.zip"
    sizes = ("--input", "1x8x8", "--kernels", "10", "--networks", "0", "--rounds", "1")
    packed = run("devices", "pack", "tiny_cnn", "-o", archive, *sizes, "--threads", "1,2")
    assert packed.code == 0, packed.err
    assert "10 kernels and 0 networks" in packed.out
    folder = unpacked(archive, tmp_path / "unpacked")
    for code, status, names in (
        (10, "partial", ["my_board"]),
        (0, "complete", ["my_board", "my_board_t2"]),
    ):
        limit = ("--limit-seconds", "0") if code else ()
        assert run_runner(folder, *limit)[0] == code
        results = folder / "results.jsonl"
        outcome = run(
            *("devices", "import-results", results, "--pack", archive),
            *("--id", "my_board", "--out", tmp_path, "--json"),
        )
        assert outcome.code == 0, outcome.err
        lines = [json.loads(line) for line in outcome.out.splitlines()]
        assert [Path(line["profile"]).name for line in lines] == names
        assert {line["status"] for line in lines} == {status}
    assert load_profile(tmp_path / "my_board_t2").runtime.threads == 2
    (tmp_path / "my_board" / "profile.toml").write_text("another profile")
    taken = run(
        "devices",
        "import-results",
        results,
        "--pack",
        archive,
        "--id",
        "my_board",
        "--out",
        tmp_path,
    )
    assert taken.code == 2
    assert "is there already" in taken.err


@pytest.fixture
def small_file(tmp_path: Path) -> Path:
    """One linear layer of 6 to 4 features, batch left open."""
    weight = helper.make_tensor("w", TensorProto.FLOAT, (4, 6), [0.5] * 24)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 6])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    node = helper.make_node("Gemm", ["x", "w"], ["y"], transB=1)
    path = tmp_path / "small.onnx"
    onnx.save(helper.make_model(helper.make_graph([node], "g", [x], [y], [weight])), path)
    return path


def test_estimate_a_file(run: Run, small_file: Path) -> None:
    outcome = run(
        "devices", "estimate", small_file, "--device", "stm32f4_cortex_m4", "--per-second", 2
    )
    assert outcome.code == 0, outcome.err
    for words in ("latency", "mJ", "mW on average", "fits       yes", "it proves no bound"):
        assert words in outcome.out


def test_estimate_for_machines(run: Run, small_file: Path, board: Path) -> None:
    outcome = run("devices", "estimate", small_file, "--device", "esp32_s3", "--json")
    found = json.loads(outcome.out)
    assert (found["kind"], found["proves_constraints"], found["fits"]) == ("analytic", False, True)
    assert found["latency_ms"]["low"] < found["latency_ms"]["value"] < found["latency_ms"]["high"]
    assert found["macs"] == 24
    found = json.loads(run("devices", "estimate", small_file, "--device", board, "--json").out)
    assert (found["proves_constraints"], found["energy_mj"]) == (True, None)


def test_a_file_that_does_not_fit(run: Run, small_file: Path, tmp_path: Path) -> None:
    profile = replace(load_profile("stm32f4_cortex_m4"), id="tiny", limits=Limits(10, 20))
    profile.save(tmp_path / "tiny")
    outcome = run("devices", "estimate", small_file, "--device", tmp_path / "tiny")
    assert outcome.code == 0, outcome.err
    assert "no: working memory:" in outcome.out
    assert "flash:" in outcome.out


def test_estimate_without_a_file(run: Run, tmp_path: Path) -> None:
    outcome = run("devices", "estimate", tmp_path / "none.onnx", "--device", "esp32_s3")
    assert outcome.code == 2
    assert "there is no file" in outcome.err


@pytest.fixture(scope="module")
def measured_few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four ONNX files with what they took on a device that is nine times slower, and two more."""
    folder = tmp_path_factory.mktemp("few")
    known = LatencyPredictor(load_profile("amd_epyc_zen5_avx512"))
    lines = ["model,latency_ms"]
    for i, network in enumerate(reference_networks(6, seed=2)):
        (folder / f"n{i}.onnx").write_bytes(network.onnx())
        if i < 4:
            lines.append(f"n{i}.onnx,{9 * known.estimate(network.ops).value!r}")
    (folder / "few.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_adapt_a_known_device(run: Run, measured_few: Path, tmp_path: Path) -> None:
    made = run(
        "devices", "adapt", measured_few / "few.csv", "--from", "amd_epyc_zen5_avx512",
        "--id", "board", "--out", tmp_path, "--suggest", measured_few,
    )  # fmt: skip
    assert made.code == 0, made.err
    assert "started from amd_epyc_zen5_avx512" in made.out
    (line,) = (line for line in made.out.splitlines() if line.startswith("measure next"))
    assert set(line.rpartition(": ")[2].split(", ")) == {"n4.onnx", "n5.onnx"}
    answered = run("devices", "estimate", measured_few / "n5.onnx", "--device", tmp_path / "board",
                   "--json")  # fmt: skip
    assert answered.code == 0, answered.err
    again = run("devices", "adapt", measured_few / "few.csv", "--from", "amd_epyc_zen5_avx512",
                "--id", "board", "--out", tmp_path)  # fmt: skip
    assert again.code == 0, again.err  # with more networks, say


def test_adapt_leaves_a_measured_profile_alone(run: Run, measured_few: Path, board: Path) -> None:
    made = run("devices", "adapt", measured_few / "few.csv", "--from", "amd_epyc_zen5_avx512",
               "--id", board.name, "--out", board.parent)  # fmt: skip
    assert made.code == 2
    assert "is there already" in made.err


def test_adapt_doubts_other_units(run: Run, measured_few: Path, tmp_path: Path) -> None:
    lines = (measured_few / "few.csv").read_text().splitlines()
    rows = [line.split(",") for line in lines[1:]]
    few = measured_few / "microseconds.csv"
    few.write_text("\n".join([lines[0], *(f"{n},{1e3 * float(t)}" for n, t in rows)]) + "\n")
    made = run("devices", "adapt", few, "--from", "amd_epyc_zen5_avx512", "--id", "slow", "--out",
               tmp_path)  # fmt: skip
    assert made.code == 0, made.err
    assert "are the timings in milliseconds?" in made.out


def test_adapt_with_nothing_left_to_suggest(run: Run, measured_few: Path, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    command = ("devices", "adapt", measured_few / "few.csv", "--from", "amd_epyc_zen5_avx512",
               "--id", "board", "--out", tmp_path, "--suggest")  # fmt: skip
    missing = run(*command, tmp_path / "none")
    assert missing.code == 2
    assert "give a folder of *.onnx files" in missing.err
    made = run(*command, tmp_path / "models")
    assert made.code == 0, made.err
    assert "no *.onnx file is left that was not measured" in made.out
    assert (tmp_path / "board").is_dir()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "model,latency_ms\nn0.onnx,fast\n",
            "line 2: latency_ms is 'fast'; it must be a",
        ),
        (
            "model,ms\nn0.onnx,3\n",
            "line 1 names model, ms; columns model and",
        ),
        ("model;latency_ms\nn0.onnx;3\n", "line 1 names model;latency_ms; columns"),
        ("model,latency_ms\nn0.onnx,3\n", "1 measured networks were given; at least 3"),
        ("model,latency_ms\nn0.onnx,-3\n", "line 2: latency_ms is '-3'; it must be a positive"),
        ("model,latency_ms\nn0.onnx,3\nn0.onnx,4\n", "line 3: n0.onnx stands in line 2, too"),
        ("model,latency_ms\nnone.onnx,3\n", "paths start beside the CSV file"),
    ],
)
def test_adapt_refuses(
    run: Run, measured_few: Path, tmp_path: Path, text: str, message: str
) -> None:
    few = measured_few / "bad.csv"
    few.write_text(text)
    outcome = run("devices", "adapt", few, "--from", "amd_epyc_zen5_avx512", "--id", "b", "--out",
                  tmp_path)  # fmt: skip
    assert outcome.code == 2
    assert message in outcome.err
    assert not (tmp_path / "b").exists()


MODELS = Path(__file__).parents[2] / "integration" / "bad_models.py"


def test_pack_a_model_of_ones_own(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "bench.zip"
    outcome = run("devices", "pack", "--model", f"{MODELS}:small", "--input", "1x8x8", "--out", out,
                  "--kernels", 5, "--networks", 2)  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert "kernels and 2 networks" in outcome.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tiny_cnn", "--model", "m.py:f"], "'tiny_cnn' and model 'm.py:f' are both given"),
        ([], "nothing is given to measure; name a space, or --model FILE.py:FUNCTION"),
        (["--model", "m.py"], "--model is 'm.py'; write FILE.py:FUNCTION"),
        (["--model", "none.py:f"], "there is no file none.py"),
    ],
)
def test_pack_refuses(run: Run, tmp_path: Path, words: list[str], message: str) -> None:
    outcome = run("devices", "pack", *words, "--out", tmp_path / "bench.zip")
    assert outcome.code == 2
    assert message in outcome.err
    assert not (tmp_path / "bench.zip").exists()
