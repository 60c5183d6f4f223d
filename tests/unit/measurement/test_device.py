"""Measuring this machine gives a profile that can be saved and loaded."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from autocompress.errors import RequestError
from autocompress.hardware.profile import HardwareProfile
from autocompress.measurement import device, measure_device
from autocompress.measurement.kernels import KernelSignature
from autocompress.measurement.networks import reference_networks
from autocompress.measurement.protocol import TimingProtocol
from autocompress.runtimes.registry import load_runtime

QUICK = TimingProtocol("quick", warmup=1, batch_us=5, min_runs=3, min_seconds=0, passes=1)


@pytest.mark.parametrize(
    ("runtime", "kernel"),
    [
        ("onnxruntime", "Relu|f32[1,7]|f32[1,7]|"),
        pytest.param(
            "openvino",
            "plain:Relu|f32[1,7]|f32[1,7]|",
            marks=pytest.mark.skipif(
                find_spec("openvino") is None, reason='needs pip install "autocompress[openvino]"'
            ),
        ),
    ],
)
def test_a_whole_profile(
    runtime: str, kernel: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "NETWORKS", QUICK)
    networks = [n for n in reference_networks(12, seed=1) if "digits" in n.name]
    more = KernelSignature.parse(kernel)
    told: list[tuple[str, int, int]] = []
    profile = measure_device(
        "my_board",
        folder=tmp_path,
        kernels=[more],
        calibration=networks[:2],
        validation=networks[2:3],
        runtime=runtime,
        protocol=QUICK,
        rounds=1,
        progress=lambda *state: told.append(state),
    )
    assert more in profile.table
    assert profile.runtime.name == runtime
    assert profile.runtime.lowering == load_runtime(runtime).lowering
    assert profile.capabilities == load_runtime(runtime).capabilities
    assert profile.calibration.networks == 2
    assert profile.validation.networks == 1
    assert told[-1] == ("networks", 3, 3)
    again = HardwareProfile.load(tmp_path / "my_board")
    assert again == profile
    assert len(again.table) == len(profile.table)


@pytest.mark.parametrize("name", ["My Board", "", "../up", "local", "_x"])
def test_names_are_identifiers(name: str) -> None:
    with pytest.raises(RequestError, match="name is"):
        measure_device(name)
