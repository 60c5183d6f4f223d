"""Finds profiles: by name, built-in before imported, by path, or this machine's own ("local")."""

from __future__ import annotations

from pathlib import Path

from autocompress.core.cores import usable_cores
from autocompress.core.local_device import LOCAL, LocalDevice
from autocompress.core.places import profiles_folder
from autocompress.errors import ProfileError, RequestError
from autocompress.hardware.profile import (
    ID_PATTERN,
    PROFILE_FILE,
    HardwareProfile,
    is_free_id,
)


def built_in_folder() -> Path:
    """The folder of the profiles that come with the package."""
    return Path(__file__).resolve().parent.parent / "hw_profiles"


def list_profiles() -> list[str]:
    """Names that :func:`load_profile` knows: built-in profiles, imported ones, ``"local"``."""
    built_in = names_in(built_in_folder())
    imported = [name for name in names_in(profiles_folder()) if name not in built_in]
    return [*built_in, *imported, LOCAL]


def names_in(folder: Path) -> list[str]:
    """The profiles of a folder, sorted; ``"local"`` is nobody's name."""
    return sorted(
        path.parent.name
        for path in folder.glob(f"*/{PROFILE_FILE}")
        if is_free_id(path.parent.name)
    )


def load_profile(name: str | Path | HardwareProfile) -> HardwareProfile:
    """A profile by name, by the path of its folder or archive, or ``"local"`` for this machine.

    ``"local:openvino"`` is this machine with another runtime, ``"local:2"`` with more threads, and
    ``"local:openvino:2"`` with both.

    Names are looked up among the built-in profiles, then in the user's own folder
    (:func:`autocompress.core.places.profiles_folder`).

    Raises:
        RequestError: there is no such profile.
        ProfileError: its files are corrupt, truncated or not understood.
    """
    if isinstance(name, HardwareProfile):
        return name
    if not isinstance(name, str | Path):
        raise RequestError(
            f"device is {name!r}; give a name, the path of a profile, or a HardwareProfile"
        )
    if isinstance(name, str) and (local := LocalDevice.parse(name)) is not None:
        return _this_machine(local)
    found = find_profile(name)
    if found.is_dir():
        profile = HardwareProfile.load(found)
    else:
        from autocompress.hardware.archive import read_archive

        profile = read_archive(found)
    if found.parent in (built_in_folder(), profiles_folder()) and profile.id != found.name:
        raise ProfileError(
            f"{found} holds the profile {profile.id!r}; its folder must have the same name"
        )
    return profile


def _this_machine(device: LocalDevice) -> HardwareProfile:
    from autocompress.hardware.local import local_profile
    from autocompress.runtimes.registry import load_runtime

    if device.threads > usable_cores():
        raise RequestError(
            f"device is {device.name!r}, and {usable_cores()} processors of this machine are for "
            "this process; ask for at most as many threads"
        )
    return local_profile(threads=device.threads, runtime=load_runtime(device.runtime))


def find_profile(name: str | Path) -> Path:
    """The folder or the ``.acprofile`` file of a profile.

    Raises:
        RequestError: there is no such profile.
    """
    if isinstance(name, str) and ID_PATTERN.fullmatch(name):
        for folder in (built_in_folder(), profiles_folder()):
            if (folder / name / PROFILE_FILE).is_file():
                return folder / name
    path = Path(name).expanduser()
    if path.name == PROFILE_FILE:
        path = path.parent
    if path.is_dir() or (path.suffix == ".acprofile" and path.is_file()):
        return path
    raise RequestError(
        f"unknown device {str(name)!r}; use one of {', '.join(list_profiles())}, "
        f"or the path of a folder with a {PROFILE_FILE} or of an .acprofile file"
    )
