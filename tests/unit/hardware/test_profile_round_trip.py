"""Whatever a profile may say survives its files and its archive."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autocompress.core.capabilities import Capabilities, Precision
from autocompress.hardware.archive import export_profile, import_profile, read_archive
from autocompress.hardware.calibration import Calibration
from autocompress.hardware.latency_row import LatencyRow
from autocompress.hardware.limits import Limits
from autocompress.hardware.machine import Cluster, Machine
from autocompress.hardware.profile import (
    KINDS,
    HardwareProfile,
    Provenance,
    RuntimeSpec,
    Validation,
)
from autocompress.hardware.table import LatencyTable
from autocompress.measurement.kernels import KernelSignature
from tests.unit.hardware.profile_files import same

NAMES = st.from_regex(r"[a-z0-9][a-z0-9_]{0,20}", fullmatch=True).filter(lambda n: n != "local")
TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)
COUNTS = st.integers(1, 2**40)
SIZES = st.none() | COUNTS
FIGURES = st.floats(0, 1e9)
POSITIVE = st.floats(1e-9, 1e9)
DATES = st.dates().map(lambda day: day.isoformat())
PLAIN = st.recursive(
    st.booleans() | st.integers(-(2**60), 2**60) | FIGURES | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)


@st.composite
def machines(draw: st.DrawFn) -> Machine:
    clusters = draw(
        st.lists(st.builds(Cluster, TEXTS, st.integers(1, 16), st.floats(1, 20_000)), max_size=3)
    )
    cores = sum(cluster.cores for cluster in clusters) or draw(st.integers(1, 512))
    isa = draw(st.lists(TEXTS, unique=True, max_size=4))
    return Machine(
        draw(TEXTS),
        draw(TEXTS),
        tuple(isa),
        cores,
        draw(st.just(0) | st.integers(1024, 2**50)),
        detail=draw(TEXTS),
        soc=draw(st.none() | TEXTS),
        clusters=tuple(clusters),
        flash_bytes=draw(SIZES),
        cooling=draw(st.none() | TEXTS),
    )


@st.composite
def validations(draw: st.DrawFn) -> Validation:
    errors = sorted(draw(st.tuples(FIGURES, FIGURES, FIGURES)))
    shares = sorted(draw(st.tuples(st.floats(0, 1), st.floats(0, 1))))
    return Validation(draw(st.integers(0, 999)), *errors, *shares)


@st.composite
def latency_rows(draw: st.DrawFn) -> LatencyRow:
    # figures that the file can hold: tenths of a nanosecond
    low, ctx, hot, high = (
        round(n / 1e4, 4) for n in sorted(draw(st.tuples(*[st.integers(1, 10**9)] * 4)))
    )
    key = f"{draw(st.sampled_from(('Conv', 'Gemm', 'nchwc:Conv')))}|f32[{draw(COUNTS)}]|u8[1]|"
    name = draw(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,10}", fullmatch=True))
    return LatencyRow(
        KernelSignature.parse(key), hot, ctx, low, high, draw(COUNTS), draw(DATES), name
    )


def _capabilities(credited: bool, **known: Any) -> Capabilities:
    """Factors for what is offered, and none elsewhere."""
    factors = {"2:4": 1.6, "1:4": 4.0, "block:1x4": 1.25}
    speedups = {
        name if ":" in name and "block" not in name else f"{name}@0.7": factors[name]
        for name in known["sparsity_patterns"]
        if credited and name in factors
    }
    return Capabilities(**known, sparsity_speedup=speedups)


PROFILES = st.builds(
    HardwareProfile,
    id=NAMES,
    description=TEXTS,
    kind=st.sampled_from(KINDS),
    machine=machines(),
    runtime=st.builds(
        RuntimeSpec,
        name=TEXTS,
        version=TEXTS,
        threads=st.integers(1, 4096),
        options=st.dictionaries(TEXTS, TEXTS, max_size=3),
        lowering=TEXTS,
        run_us=FIGURES,
        view_us=FIGURES,
    ),
    capabilities=st.builds(
        _capabilities,
        precisions=st.lists(
            st.builds(Precision, st.integers(1, 64), st.integers(1, 64), st.booleans()),
            min_size=1,
            max_size=3,
        ).map(tuple),
        channel_step=COUNTS,
        rank_step=COUNTS,
        credited=st.booleans(),
        sparsity_pays=st.booleans(),
        stores_packed=st.booleans(),
        sparsity_patterns=st.lists(
            st.sampled_from(["2:4", "1:4", "block:1x4", "unstructured"]), max_size=3
        ).map(tuple),
    ),
    limits=st.builds(
        Limits,
        ram_bytes=SIZES,
        flash_bytes=SIZES,
        max_latency_ms=st.none() | POSITIVE,
        max_energy_mj=st.none() | POSITIVE,
    ),
    calibration=st.builds(
        Calibration,
        a=POSITIVE,
        kernel_us=FIGURES,
        t0_us=st.floats(-1e3, 1e3),
        cache_mb=POSITIVE,
        near_mb=POSITIVE,
        near_weight_us_per_mb=FIGURES,
    ),
    validation=validations(),
    provenance=st.builds(
        Provenance,
        date=st.just("") | DATES,
        source=TEXTS,
        protocol=st.dictionaries(TEXTS, PLAIN, max_size=3),
        sources=st.lists(TEXTS, max_size=2).map(tuple),
        base=st.lists(NAMES, max_size=2).map(tuple),
    ),
    table=st.lists(latency_rows(), max_size=4).map(LatencyTable),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(PROFILES)
def test_folders_and_archives(profile: HardwareProfile) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder, path = Path(scratch) / "folder", Path(scratch) / "x.acprofile"
        profile.save(folder)
        assert same(HardwareProfile.load(folder), profile)
        export_profile(profile, path)
        assert same(read_archive(path), profile)
        placed = import_profile(path, Path(scratch) / "mine")
        assert placed.name == profile.id
        for file in folder.iterdir():
            assert (placed / file.name).read_bytes() == file.read_bytes()
        again = export_profile(HardwareProfile.load(placed), Path(scratch) / "y.acprofile")
        assert again.read_bytes() == path.read_bytes()
