"""What the operating system said, as a `PrunecError` that says what to do."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prunec.diagnostics import PrunecError

_DENIED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


@contextmanager
def os_errors(path: Path) -> Iterator[None]:
    """Turn an OSError inside the block into PC604 (not allowed), PC605 (disk full) or PC606 (anything else)."""
    try:
        yield
    except OSError as reason:
        raise explain(reason, path) from reason


def explain(reason: OSError, path: Path) -> PrunecError:
    """The PrunecError for one OSError that came up while writing `path`."""
    where = str(path)
    # numpy's tofile says "262144 requested and 16384 written", without an errno, when the disk fills up
    if reason.errno in _FULL or (reason.errno is None and "requested and" in str(reason)):
        return PrunecError(
            "PC605", "the disk is full; nothing was written", where=where, hint="free some space or choose another -o"
        )
    if reason.errno in _DENIED:
        return PrunecError(
            "PC604", f"cannot write here: {reason.strerror}", where=where, hint="choose another place with -o"
        )
    text = reason.strerror or str(reason)
    return PrunecError("PC606", f"cannot write the package: {text}", where=where, hint="choose another place with -o")
