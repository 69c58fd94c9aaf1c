"""One process at a time on a file or a folder.

The lock is the kernel's, on an empty file beside what it protects, so that of a killed process is free at once.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: two processes are not told apart there
    fcntl = None


class BusyError(OSError):
    """Another process is at work there; the message says where."""


@contextmanager
def alone_with(path: Path, doing: str = "writing to") -> Iterator[None]:
    """Keep other processes off a file or folder, which need not exist yet. Raises BusyError if one is there."""
    if fcntl is None:
        yield
        return
    whole = path.resolve()  # "." has no name
    lock_path = whole.with_name(whole.name + ".lock")
    lock_path.parent.mkdir(parents=True, exist_ok=True)
    with open(lock_path, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.fstat(lock.fileno()).st_nlink:  # its last holder has just removed it: it locks nothing now
                raise BlockingIOError
        except BlockingIOError:
            raise BusyError(f"another process is {doing} {path}: wait for it, then run this again") from None
        except OSError:
            pass  # a network drive that knows no locks
        try:
            yield
        finally:
            lock_path.unlink(missing_ok=True)
