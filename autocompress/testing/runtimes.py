# ruff: noqa: S101 - these are tests, shipped to whoever writes a runtime
"""The contract of :class:`~autocompress.runtimes.base.Runtime`, as tests to inherit.

Example::

    class TestMine(RuntimeContract):
        def make(self):
            return MyRuntime()

        def artifact(self, folder):
            return a_path_in(folder)  # y = relu(w @ x + b), float32, one input of shape (1, n)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np
import pytest

from autocompress.errors import DeviceError, RequestError
from autocompress.measurement.protocol import TimingProtocol
from autocompress.measurement.timer import time_call
from autocompress.runtimes.base import Runtime, Session


class RuntimeContract(ABC):
    """Inherit it, name the class ``Test…``, give :meth:`make` and :meth:`artifact`."""

    @abstractmethod
    def make(self) -> Runtime:
        """A fresh runtime."""

    @abstractmethod
    def artifact(self, folder: Path) -> Path:
        """A float model of one layer, with one input and one output, written into ``folder``."""

    def open(self, folder: Path) -> Session:
        """The artifact, loaded."""
        return self.make().load(self.artifact(folder))

    def test_it_says_what_it_is(self) -> None:
        """Measured figures are keyed by name, version and options."""
        runtime = self.make()
        assert isinstance(runtime, Runtime)
        assert runtime.name in runtime.fingerprint
        assert runtime.version in runtime.fingerprint
        assert runtime.fingerprint == self.make().fingerprint

    def test_it_says_what_can_be_exploited(self) -> None:
        """A search space needs floats to start from."""
        precisions = self.make().capabilities.precisions
        assert precisions[0].weight_bits == 32
        assert len(set(precisions)) == len(precisions)

    def test_it_describes_its_tensors(self, tmp_path: Path) -> None:
        """Inputs and outputs have names, element types and shapes."""
        session = self.open(tmp_path)
        for spec in (*session.inputs, *session.outputs):
            assert spec.name
            assert spec.zeros().dtype == np.dtype(spec.dtype)

    def test_equal_inputs_have_equal_outputs(self, tmp_path: Path) -> None:
        """Running is repeatable, and a mapping is as good as a sequence."""
        session = self.open(tmp_path)
        x = np.linspace(-1, 1, session.inputs[0].zeros().size, dtype=np.float32)
        x = x.reshape(session.inputs[0].zeros().shape)
        first = session.run([x])
        second = session.run({session.inputs[0].name: x})
        assert len(first) == len(session.outputs)
        np.testing.assert_array_equal(first[0], second[0])

    def test_a_bound_call_can_be_timed(self, tmp_path: Path) -> None:
        """What is timed runs without arguments, as often as one likes."""
        session = self.open(tmp_path)
        bound = session.bound({spec.name: spec.zeros() for spec in session.inputs})
        calls = 0

        def call() -> None:
            nonlocal calls
            calls += 1
            bound()

        protocol = TimingProtocol("test", batch_us=10, min_runs=5, min_seconds=0, passes=2)
        timing = time_call(call, protocol)
        assert 0 < timing.runs <= calls  # those that were disturbed do not count
        assert calls >= 5
        assert 0 < timing.low_us <= timing.value_us <= timing.high_us

    def test_bytes_are_as_good_as_a_path(self, tmp_path: Path) -> None:
        """Models that are only timed are never written to a file."""
        path = self.artifact(tmp_path)
        sessions = [self.make().load(path), self.make().load(path.read_bytes())]
        x = sessions[0].inputs[0].zeros() + np.float32(0.5)
        first, second = (session.run([x])[0] for session in sessions)
        np.testing.assert_array_equal(first, second)

    def test_no_threads(self, tmp_path: Path) -> None:
        """Zero threads is a wrong request, not the runtime's own choice."""
        with pytest.raises(RequestError, match="threads is 0"):
            self.make().load(self.artifact(tmp_path), threads=0)

    def test_wrong_number_of_inputs(self, tmp_path: Path) -> None:
        """It says how many there should be."""
        with pytest.raises(RequestError, match="1"):
            self.open(tmp_path).run([])

    def test_what_is_no_artifact(self, tmp_path: Path) -> None:
        """A damaged file is the device's error, not a traceback from below."""
        path = tmp_path / "damaged"
        path.write_bytes(b"this is no model")
        with pytest.raises(DeviceError):
            self.make().load(path)

    def test_it_lists_what_it_executes(self, tmp_path: Path) -> None:
        """Every kernel has an operator and at least one result with a known shape."""
        kernels = self.make().kernels(self.artifact(tmp_path))
        assert kernels
        for kernel in kernels:
            assert kernel.op_type
            assert kernel.outputs
            assert all(d is not None for spec in kernel.outputs for d in spec.shape)

    def test_it_says_what_its_layers_multiply(self, tmp_path: Path) -> None:
        """So that a layer which was to run in integers, and does not, is found."""
        runtime = self.make()
        kernels = runtime.kernels(self.artifact(tmp_path))
        assert [kind for kernel in kernels for kind in runtime.layers(kernel)] == ["float"]
