"""Advice about unknown names."""

from __future__ import annotations

import pytest

from autocompress.hardware.remedies import remedy

KNOWN = ("hot_us", "memory_bytes", "mhz", "threads", "max_energy_mj", "us_per_mb")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("hot_ms", "write 'hot_us' and multiply the figure by 1000"),
        ("hot_ns", "write 'hot_us' and multiply the figure by 0.001"),
        ("memory_gb", "write 'memory_bytes' and multiply the figure by 1e+09"),
        ("hz", "write 'mhz' and multiply the figure by 1e-06"),
        ("max_energy_j", "write 'max_energy_mj' and multiply the figure by 1000"),
        ("us_per_kb", "write 'us_per_mb' and multiply the figure by 1000"),
        ("hot_mj", "did you mean 'hot_us'"),
        ("hot", "did you mean 'hot_us'"),
        ("treads", "did you mean 'threads'"),
        ("colour", "remove it, or use one of hot_us, memory_bytes"),
        ("x" * 10**6, "remove it"),
    ],
    ids=lambda text: text[:12],
)
def test_remedies(name: str, words: str) -> None:
    assert words in remedy(name, KNOWN)
