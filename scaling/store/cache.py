"""The user's private cache: token stores, compiled programs, measured speeds. Nothing in it is
needed to read a result.
"""

from __future__ import annotations

import os
from pathlib import Path

from scaling.errors import DISK, ScalingError


def cache_root() -> Path:
    """SCALING_CACHE, or the platform's cache folder for this user."""
    given = os.environ.get("SCALING_CACHE")
    if given:
        return Path(given).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("scaling")


def cache_folder(name: str) -> Path:
    """A folder of the cache, made private (0700) to this user. Raises ScalingError (74) when it
    cannot be made.
    """
    folder = cache_root() / name
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for part in (cache_root(), folder):
            _own(part)
    except OSError as error:
        raise ScalingError(
            f"cannot use the cache: {error.strerror}",
            where=str(folder),
            remedy="set SCALING_CACHE to a folder of your own",
            exit_code=DISK,
        ) from error
    return folder


def _own(folder: Path) -> None:
    """Compiled programs are executed: refuse a cache that another user owns, and close it to
    others.
    """
    status = folder.stat()
    if hasattr(os, "getuid") and status.st_uid != os.getuid():
        raise ScalingError(
            "the cache belongs to another user",
            where=str(folder),
            remedy="set SCALING_CACHE to a folder of your own",
        )
    if status.st_mode & 0o077:
        folder.chmod(0o700)
