"""What every built-in analytic profile keeps: loads, says where it comes from, prices soberly."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from autocompress.core.candidate import Candidate
from autocompress.core.objective import Constraint
from autocompress.elastic.space import ElasticSpace
from autocompress.errors import RequestError
from autocompress.evaluation.evaluator import uniform
from autocompress.graph.precision import quantized_tensors
from autocompress.hardware import CandidatePricer, LatencyPredictor, list_profiles, load_profile
from autocompress.hardware.memory_model import USUAL
from autocompress.hardware.profile import PROFILE_FILE, HardwareProfile
from autocompress.hardware.profiles import built_in_folder
from autocompress.measurement.kernels import KernelSignature
from autocompress.search.feasibility import repair
from autocompress.search.pricing import Pricer
from tests.unit import networks
from tests.unit.hardware.helpers import TinySpace


def _kind(name: str) -> str:
    text = (built_in_folder() / name / PROFILE_FILE).read_text(encoding="utf-8")
    return str(tomllib.loads(text)["kind"])


ANALYTIC = [name for name in list_profiles()[:-1] if _kind(name) == "analytic"]
MICROCONTROLLERS = ["esp32_s3", "stm32f4_cortex_m4", "stm32h7_cortex_m7"]


@cache
def space() -> ElasticSpace:
    return networks.space("tiny_cnn")


@cache
def forms() -> dict[str, Candidate]:
    original = space().decode(space().original)
    integers = uniform(list(space().graph.layers), 8, 8).layers
    return {"fp32": original, "int8": Candidate(original.architecture, integers)}


def test_the_devices_that_were_promised() -> None:
    assert set(ANALYTIC) >= {
        "coral_edge_tpu", "esp32_s3", "jetson_nano", "jetson_orin_nano", "phone_cortex_a78",
        "raspberry_pi_4", "raspberry_pi_5", "stm32f4_cortex_m4", "stm32h7_cortex_m7",
    }  # fmt: skip


@pytest.fixture(params=ANALYTIC)
def profile(request: pytest.FixtureRequest) -> HardwareProfile:
    return load_profile(str(request.param))


def test_it_says_that_nobody_measured_it(profile: HardwareProfile) -> None:
    assert not profile.proves_constraints
    assert len(profile.table) == 0
    assert profile.validation.networks == 0
    assert profile.calibration.networks == 0
    assert "never measured" in profile.summary


def test_it_cites_its_sources(profile: HardwareProfile) -> None:
    assert profile.provenance.date
    sources = profile.provenance.sources
    assert len(sources) >= 3
    assert all(source.startswith("https://") and source.endswith(")") for source in sources)
    assert "judged" in profile.provenance.source


def test_it_survives_being_saved(profile: HardwareProfile, tmp_path: Path) -> None:
    profile.save(tmp_path / "copy")
    assert HardwareProfile.load(tmp_path / "copy") == profile


@pytest.mark.parametrize("form", ["fp32", "int8"])
def test_it_prices_with_a_wide_band(profile: HardwareProfile, form: str) -> None:
    ops = space().graph.operations(forms()[form])
    predictor = LatencyPredictor(profile)
    found = predictor.estimate(ops)
    assert 0 < 1.9 * found.low < found.value < found.high / 1.9
    assert found.coverage == pytest.approx(0.0, abs=0.05)
    energy = predictor.energy_mj(predictor.kernels(ops), found.value)
    assert energy is not None
    assert energy > 0
    assert (profile.memory or USUAL).peak_bytes(ops, quantized_tensors(ops)) > 0


def test_more_channels_are_never_cheaper(profile: HardwareProfile) -> None:
    predictor = LatencyPredictor(profile)
    for dtypes in (("f32", "f32"), ("u8", "i8")):
        data, weight = dtypes
        for kernel in ("3,3", "1,1"):
            times = [
                predictor.price(
                    KernelSignature.parse(
                        f"plain:Conv|{data}[1,{n},16,16];c:{weight}[{n},{n},{kernel}]"
                        f"|{data}[1,{n},16,16]|"
                    )
                ).hot_us
                for n in range(1, 257, 5)
            ]
            assert times == sorted(times)


def test_integers_are_faster_where_it_says_so(profile: HardwareProfile) -> None:
    fast = {p.name: p.fast for p in profile.capabilities.precisions}
    assert next(iter(fast)) == "fp32"
    assert "w8a8" in fast
    predictor = LatencyPredictor(profile)
    times = [
        predictor.price(
            KernelSignature.parse(
                f"plain:Conv|{d}[1,256,28,28];c:{w}[256,256,3,3]|{d}[1,256,28,28]|"
            )
        ).hot_us
        for d, w in (("f32", "f32"), ("u8", "i8"))
    ]
    assert (times[0] > 1.5 * times[1]) == fast["w8a8"]


def test_vectorised_prices_are_the_exact_ones(profile: HardwareProfile) -> None:
    tiny = TinySpace()
    pricer = CandidatePricer(tiny, LatencyPredictor(profile), operations=tiny.operations)
    genomes = list(tiny.random(20, seed=3))
    rows = pricer(genomes)
    assert {"energy_mj", "peak_memory_bytes", "latency_ms"} <= set(rows[0])
    for genome, row in zip(genomes, rows, strict=True):
        assert row == pytest.approx(pricer.exact(genome), rel=1e-9)


@pytest.mark.parametrize("name", MICROCONTROLLERS)
def test_a_microcontroller_has_limits_and_keeps_candidates_within(name: str) -> None:
    profile = load_profile(name)
    limits = profile.limits
    assert limits.ram_bytes is not None
    assert profile.memory is not None
    assert profile.memory.weights_in == "flash"
    assert 0 < limits.ram_bytes <= profile.machine.memory_bytes
    bounds = limits.bounds
    assert {c.metric for c in bounds} == {"peak_memory_bytes", "size_bytes"}
    tiny = TinySpace()
    exact = CandidatePricer(tiny, LatencyPredictor(profile), operations=tiny.operations).exact
    before = exact(tiny.original)
    tight = [Constraint(c.metric, 0.7 * before[c.metric]) for c in bounds]
    pricer = Pricer(lambda genomes: [exact(g) for g in genomes], tight)
    assert pricer.violations([tiny.original]).all()
    found = repair(tiny, pricer, tiny.original, rng=np.random.default_rng(0))
    assert found is not None
    priced = exact(found)
    assert all(priced[c.metric] <= c.bound for c in tight)


def test_energy_can_be_searched_for_only_where_it_is_known() -> None:
    from autocompress.agent.preflight import check_priced

    check_priced(["energy_mj", "latency_ms"], load_profile("raspberry_pi_5"))
    with pytest.raises(RequestError, match="has no energy model; use some of accuracy"):
        check_priced(["energy_mj"], load_profile("amd_epyc_zen5_avx512"))
