"""Shared weights from the run folder's checkpoints."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file

from autocompress.elastic.model import ElasticModel
from autocompress.errors import StorageError


def load_weights(elastic: ElasticModel, path: Path) -> bool:
    """Put a checkpoint into the shared weights; False when there is none.

    Raises:
        StorageError: the file is damaged, or belongs to another model.
    """
    if not path.is_file():
        return False
    try:
        elastic.weights.load_state_dict(load_file(path))
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        raise StorageError(
            f"the checkpoint {path} is damaged or of another model "
            f"({str(error).strip().splitlines()[0]}); give the model that the run was begun with, "
            f"or delete the file and resume"
        ) from error
    return True
