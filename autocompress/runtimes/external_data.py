"""Which ONNX files may be opened: only those that keep to their own folder."""

from __future__ import annotations

import stat
from pathlib import Path

from autocompress.errors import DeviceError, VerificationError


def check_external_data(path: Path) -> None:
    """Refuse models whose external data is anything but a regular, single-link file beside them.

    Raises:
        VerificationError: a tensor's data lies outside the model's folder, or is a link.
        DeviceError: the file is no readable ONNX model.
    """
    import onnx

    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:
        raise DeviceError(f"{path} is no readable ONNX model: {error}") from error
    folder = path.parent.resolve()
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key != "location":
                continue
            target = folder / entry.value
            inside = target.resolve().is_relative_to(folder)
            status = target.lstat() if target.is_symlink() or target.exists() else None
            if (
                not inside
                or status is None
                or not stat.S_ISREG(status.st_mode)
                or status.st_nlink != 1
            ):
                raise VerificationError(
                    f"{path.name} keeps tensor {tensor.name!r} in {entry.value!r}, which is not a "
                    "regular single-link file in the model's folder; save the model in one file"
                )
