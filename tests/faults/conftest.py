"""What the tests of killed and interrupted runs share."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import save_file

from tests.integration.runs import Setup, trained_cnn, write_fixed_profile


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained model's weights."""
    path = tmp_path_factory.mktemp("weights") / "cnn.safetensors"
    save_file(trained_cnn().state_dict(), path)
    return path


@pytest.fixture(scope="session")
def fixed_profile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a profile that is not of the machine at hand."""
    folder = tmp_path_factory.mktemp("profiles") / "fixed_cpu"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUTOCOMPRESS_CACHE", str(tmp_path_factory.mktemp("cache")))
        write_fixed_profile(folder)
    return folder


@pytest.fixture(scope="session")
def cnn(fixed_profile: Path, weights: Path) -> Setup:
    """A search of the user's model."""
    return Setup(fixed_profile, weights)
