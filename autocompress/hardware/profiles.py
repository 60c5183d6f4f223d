"""Finds profiles: by name among the built-in ones, by path, or this machine's own ("local")."""

from __future__ import annotations

from pathlib import Path

from autocompress.errors import ProfileError, RequestError
from autocompress.hardware.profile import ID_PATTERN, PROFILE_FILE, HardwareProfile

LOCAL = "local"


def built_in_folder() -> Path:
    """The folder of the profiles that come with the package."""
    return Path(__file__).resolve().parent.parent / "hw_profiles"


def list_profiles() -> list[str]:
    """Names that :func:`load_profile` knows: the built-in profiles, then ``"local"``."""
    folder = built_in_folder()
    found = sorted(
        path.parent.name
        for path in folder.glob(f"*/{PROFILE_FILE}")
        if ID_PATTERN.fullmatch(path.parent.name)
    )
    return [*found, LOCAL]


def load_profile(name: str | Path | HardwareProfile) -> HardwareProfile:
    """A profile by name, by the path of its folder, or ``"local"`` for this machine.

    Raises:
        RequestError: there is no such profile.
        ProfileError: its files are corrupt or truncated.
    """
    if isinstance(name, HardwareProfile):
        return name
    if str(name) == LOCAL:
        from autocompress.hardware.local import local_profile

        return local_profile()
    if isinstance(name, str) and ID_PATTERN.fullmatch(name):
        folder = built_in_folder() / name
        if (folder / PROFILE_FILE).is_file():
            return _checked(folder, name)
    folder = Path(name).expanduser()
    if folder.name == PROFILE_FILE:
        folder = folder.parent
    if folder.is_dir():
        return HardwareProfile.load(folder)
    raise RequestError(
        f"unknown device {str(name)!r}; use one of {', '.join(list_profiles())}, "
        f"or the path of a folder with a {PROFILE_FILE}"
    )


def _checked(folder: Path, name: str) -> HardwareProfile:
    profile = HardwareProfile.load(folder)
    if profile.id != name:
        raise ProfileError(f"{folder} holds the profile {profile.id!r}; its folder must match")
    return profile
