"""Names of the files of a package, for those who write and those who read them."""

from __future__ import annotations

FOLDER = "arm64"
ARCHIVE = "libmodel.a"
RUNNER = "runner"
