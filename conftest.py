"""What every test stands on: shape-checked annotations, no network, fixed seeds, passive threads."""

import os
import socket

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if "PYTEST_XDIST_WORKER" in os.environ:
    # The workers are the parallelism: their threads would only wait for one another.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

install_import_hook("obverse", "tests.check")

settings.register_profile("obverse", deadline=None, derandomize=True, max_examples=20)
settings.load_profile("obverse")


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    """Obverse never phones home: any connection attempt inside a test is an error."""

    def refuse(self, address, *_):
        raise AssertionError(f"a test tried to connect to {address}")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(scope="session")
def data_folder():
    """The shared study data, if this machine has them (OBVERSE_DATA)."""
    from pathlib import Path

    folder = os.environ.get("OBVERSE_DATA")
    if not folder:
        pytest.skip("OBVERSE_DATA is not set: this test needs the study data, which are not part of a clone")
    return Path(folder)
