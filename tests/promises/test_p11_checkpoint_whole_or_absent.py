"""P11: a file is whole or absent. Whatever fails while it is written, the previous one survives and nothing is left.

Root may write into read-only folders, so failures of the system are simulated where the system would raise them.
"""

import builtins
import errno
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from obverse.errors import InputError
from obverse.io.safe import atomic_write, write_safetensors
from obverse.posterior import LowRankDiagonal, Posterior
from obverse.solvers.result import Status


def posterior(value: float) -> Posterior:
    covariance = LowRankDiagonal(torch.eye(16)[:, :2], torch.ones(2), torch.ones(16), (1, 4, 4))
    return Posterior(torch.full((1, 4, 4), value), Status(True, "closed-form", "Known."), covariance=covariance)


class FullDisk:
    """A file that takes a few bytes and then reports that no space is left."""

    def __init__(self, file, room: int = 100):
        self.file, self.room = file, room

    def write(self, data) -> int:
        self.room -= len(data)
        if self.room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self.file.write(data)

    def __getattr__(self, name):
        return getattr(self.file, name)


def full_disk(monkeypatch):
    real = builtins.open
    monkeypatch.setattr(builtins, "open", lambda path, mode="r", *rest: FullDisk(real(path, mode, *rest)))


def failing(name: str, code: int):
    def install(monkeypatch):
        def fail(*_, **__):
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(os, name, fail)

    return install


def read_only_folder(monkeypatch):
    real = builtins.open

    def refuse(path, mode="r", *rest):
        if set(mode) & set("wxa+"):
            raise PermissionError(errno.EROFS, os.strerror(errno.EROFS))
        return real(path, mode, *rest)

    monkeypatch.setattr(builtins, "open", refuse)


FAILURES = {
    "disk full": (full_disk, "No space left"),
    "disk full at fsync": (failing("fsync", errno.ENOSPC), "No space left"),
    "input/output error at fsync": (failing("fsync", errno.EIO), "error"),
    "read-only folder": (read_only_folder, "Read-only"),
    "failed rename": (failing("replace", errno.EACCES), "denied"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_the_previous_file_survives_and_the_failure_is_told(name, tmp_path, monkeypatch):
    path = tmp_path / "posterior.safetensors"
    posterior(1.0).save(path)
    before = path.read_bytes()
    install, words = FAILURES[name]
    with monkeypatch.context() as patch:
        install(patch)
        with pytest.raises(InputError, match=words):
            posterior(2.0).save(path, overwrite=True)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path], "no temporary file may be left"
    posterior(2.0).save(path, overwrite=True)
    assert float(Posterior.load(path).mean.mean()) == 2.0, "and without the failure the same call succeeds"


@pytest.mark.parametrize("name", FAILURES)
def test_without_a_previous_file_there_is_none_afterwards(name, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        FAILURES[name][0](patch)
        with pytest.raises(InputError):
            posterior(2.0).save(tmp_path / "posterior.safetensors")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, RuntimeError])
def test_an_interruption_half_way_leaves_the_previous_file(error, tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"before")
    with pytest.raises(error), atomic_write(path, overwrite=True) as file:
        file.write(b"half")
        raise error
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_the_data_reach_the_disk_before_the_name_does(tmp_path, monkeypatch):
    order = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, _name=name, _real=real: (order.append(_name), _real(*a))[1])
    write_safetensors(tmp_path / "a", {})
    assert order[:2] == ["fsync", "replace"]


WRITER = """
import sys, torch
sys.path.insert(0, sys.argv[2])
from obverse.io.safe import write_safetensors
count = 0
while True:
    write_safetensors(sys.argv[1], {"a": torch.full((200_000,), float(count))}, overwrite=True)
    count += 1
    if count == 2:
        print("ready", flush=True)
"""


def test_a_killed_writer_leaves_a_whole_file(tmp_path):
    from obverse.io.safe import read_safetensors

    path, root = tmp_path / "a", os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    for delay in (0.0, 0.013, 0.031):
        command = [sys.executable, "-c", WRITER, str(path), root]
        writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None and writer.stdout.readline() == "ready\n"
        time.sleep(delay)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        array = read_safetensors(path)[0]["a"]
        assert len(array) == 200_000 and array.min() == array.max()


def test_a_plain_write_would_not_keep_this_promise(tmp_path, monkeypatch):
    """Negative control: the simulated disk does destroy a file that is written in place."""
    path = tmp_path / "a"
    path.write_bytes(b"before" * 100)
    with monkeypatch.context() as patch:
        full_disk(patch)
        file = open(path, "wb")
        with pytest.raises(OSError):
            file.write(b"x" * 90)
            file.write(b"x" * 90)
        file.close()
    assert path.read_bytes() != b"before" * 100
