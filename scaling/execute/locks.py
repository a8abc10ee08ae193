"""A lock of a folder that one process holds at a time: of the kernel where the file system has
them, else a file.

Lustre without `-o flock`, some SMB and FUSE mounts have no flock (ENOSYS, EOPNOTSUPP, ENOLCK).
There the lock is a file that only one process can create; one that a killed process left is removed
after `ABANDONED_SECONDS` without change.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from scaling import files
from scaling.errors import STOPPED, ScalingError

WAIT_SECONDS = 60.0
ABANDONED_SECONDS = 50.0
POLL_SECONDS = 0.01
UNSUPPORTED = files.UNSUPPORTED | {errno.ENOLCK}
READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)


@contextlib.contextmanager
def hold(path: Path) -> Iterator[None]:
    """Hold the lock file `path`; not to be taken twice. Raises ScalingError (75) when another
    process holds it for longer than a minute, DiskError (74).
    """
    exclusive = path.with_name(f"{path.name}.exclusive")
    with contextlib.ExitStack() as release:
        with files.as_disk_error(path, "lock"):
            descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
            release.callback(os.close, descriptor)
            began, seen = time.monotonic(), (0, 0.0)
            while not (is_held := try_lock(descriptor)):
                now = time.monotonic()
                if is_held is None:
                    try:
                        os.close(os.open(exclusive, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
                        release.callback(exclusive.unlink, missing_ok=True)
                        break
                    except FileExistsError:
                        with contextlib.suppress(FileNotFoundError):
                            stamp = exclusive.stat().st_mtime_ns
                            seen = seen if seen[0] == stamp else (stamp, now)
                            if now - seen[1] > ABANDONED_SECONDS:
                                exclusive.unlink(missing_ok=True)
                if now - began > WAIT_SECONDS:
                    raise ScalingError(
                        "another process holds the folder",
                        where=path,
                        remedy="try again",
                        exit_code=STOPPED,
                    )
                time.sleep(POLL_SECONDS)
        yield


def try_lock(descriptor: int) -> bool | None:
    """Whether the kernel locked the file now; None where its file system has no locks. Raises
    OSError.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        return None
    return True


def is_locked(path: Path) -> bool:
    """Whether a living process of this machine holds the lock file; True where that cannot be
    asked.

    Works in a read-only folder. Raises DiskError.
    """

    def ask() -> bool:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            if error.errno not in READ_ONLY:
                raise
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return not try_lock(descriptor)
        except OSError as error:
            if error.errno != errno.EBADF:  # NFS: a lock needs a file opened for writing
                raise
            return True
        finally:
            os.close(descriptor)

    try:
        return files.retry(path, ask)
    except (FileNotFoundError, NotADirectoryError):
        return False
