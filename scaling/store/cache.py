"""The user's private cache: token stores, compiled programs, measured speeds. Nothing in it is
needed to read a result.
"""

from __future__ import annotations

import os
from pathlib import Path

from scaling.errors import BAD_INPUT, DISK, ScalingError


def cache_root() -> Path:
    """SCALING_CACHE, or the platform's cache folder for this user."""
    given = os.environ.get("SCALING_CACHE")
    if given:
        return Path(given).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("scaling")


def cache_folder(name: str) -> Path:
    """A folder of the cache, made private (0700) to this user. Raises ScalingError when another
    user owns it (compiled programs are executed), or (74) when it cannot be made.
    """
    folder, exit_code, problem = cache_root() / name, DISK, ""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for part in (cache_root(), folder):
            status = part.stat()
            if status.st_uid != os.getuid():
                problem, exit_code = "the cache belongs to another user", BAD_INPUT
                break
            if status.st_mode & 0o077:
                part.chmod(0o700)
    except OSError as error:
        problem = f"cannot use the cache: {error.strerror}"
    if problem:
        raise ScalingError(
            problem,
            where=folder,
            remedy="set SCALING_CACHE to a folder of your own",
            exit_code=exit_code,
        )
    return folder
