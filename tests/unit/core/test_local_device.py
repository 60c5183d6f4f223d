"""The names of this machine."""

from __future__ import annotations

import pytest

from autocompress.core.local_device import LocalDevice
from autocompress.errors import RequestError


@pytest.mark.parametrize(
    ("text", "runtime", "threads", "name", "words"),
    [
        ("local", "onnxruntime", 1, "local", ""),
        ("local:1", "onnxruntime", 1, "local", ""),
        ("local:onnxruntime:1", "onnxruntime", 1, "local", ""),
        ("local:2", "onnxruntime", 2, "local:2", "2 threads"),
        ("local:openvino", "openvino", 1, "local:openvino", "openvino"),
        ("local:openvino:4", "openvino", 4, "local:openvino:4", "openvino, 4 threads"),
    ],
)
def test_names_of_this_machine(
    text: str, runtime: str, threads: int, name: str, words: str
) -> None:
    device = LocalDevice.parse(text)
    assert device == LocalDevice(runtime, threads)
    assert (device.name, device.words) == (name, words)
    assert LocalDevice.parse(device.name) == device


@pytest.mark.parametrize("text", ["raspberry_pi_5", "", "my/local:2", "localhost", "Local"])
def test_other_devices(text: str) -> None:
    assert LocalDevice.parse(text) is None


@pytest.mark.parametrize(
    "text", ["local:", "local:0", "local:-1", "local:2:openvino", "local:openvino:1:1", "local: 2"]
)
def test_names_that_go_on_in_another_way(text: str) -> None:
    with pytest.raises(RequestError, match="local:RUNTIME:THREADS, such as local:openvino:2"):
        LocalDevice.parse(text)
