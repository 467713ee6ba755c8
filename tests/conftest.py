"""Fixtures for all tests, and what a machine must have for the marked ones."""

from __future__ import annotations

import functools
import importlib.util
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Before numpy is imported: its threads and the test workers would fight over the cores.
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")


# Tests start from nothing; those about the cache name a folder of their own.
os.environ["PRUNEC_CACHE_MB"] = "0"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if importlib.util.find_spec("torch") is None:
        for item in items:
            if item.get_closest_marker("torch"):
                item.add_marker(pytest.mark.skip(reason="torch is not installed: make install-for-tests"))


# A shell that starts the tests in the background has them ignore Ctrl-C, and so would the processes they start.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root."""
    return ROOT


@pytest.fixture(scope="session")
def one_registry() -> Iterator[None]:
    """torch's exporter builds its tables of translations and operators anew for every export; once is enough here."""
    registration = pytest.importorskip("torch.onnx._internal.exporter._registration", reason="needs the [torch] extra")
    with pytest.MonkeyPatch.context() as patch:
        cached = functools.cache(registration.ONNXRegistry.from_torchlib)
        patch.setattr(registration.ONNXRegistry, "from_torchlib", staticmethod(cached))
        from torch._export import utils
        from torch.export import decomp_utils, exported_program

        operators = functools.cache(utils._collect_all_valid_cia_ops)  # a third of a small export; nobody changes it
        for module in (decomp_utils, exported_program):
            patch.setattr(module, "_collect_all_valid_cia_ops", operators)
        yield


@pytest.fixture(scope="session")
def graphs_dir() -> Path:
    """Exported graphs of well-known networks, kept beside the checkout because of their size."""
    folder = ROOT.parent / "shared" / "graphs"
    if not folder.is_dir():
        pytest.skip("the folder of exported graphs is not beside this checkout")
    return folder
