"""P19: an existing output is not overwritten unasked, and nothing phones home."""

import socket
import subprocess
import sys

import pytest


def test_an_existing_output_is_refused_and_untouched(obverse, files, tmp_path):
    command = ("reconstruct", files["2d"], "--psf", files["psf2d"], "-o", tmp_path / "out")
    assert obverse(*command).code == 0
    before = {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()}
    refused = obverse(*command)
    assert refused.code == 2 and "--overwrite" in refused.stderr
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()} == before
    assert obverse(*command, "--overwrite").code == 0


def test_an_input_in_the_output_folder_is_never_replaced(obverse, files, tmp_path):
    (tmp_path / "image.ome.tif").write_bytes(files["2d"].read_bytes())
    done = obverse("reconstruct", tmp_path / "image.ome.tif", "--psf", files["psf2d"], "-o", tmp_path, "--overwrite")
    assert done.code == 2 and "does not hold the input" in done.stderr
    assert (tmp_path / "image.ome.tif").read_bytes() == files["2d"].read_bytes()


def test_a_run_works_with_sockets_blocked(files, tmp_path):
    """A whole run in a process in which making any socket is an error."""
    code = (
        "import socket\n"
        "def refuse(*a, **k): raise SystemExit('a socket was made')\n"
        "socket.socket.__init__ = refuse\n"
        "from obverse.cli import main\n"
        "import sys\n"
        "main(sys.argv[1:])\n"
    )
    arguments = ["reconstruct", files["2d"], "--psf", files["psf2d"], "-o", tmp_path / "out"]
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_block_is_real():
    with pytest.raises(AssertionError, match="tried to connect"):
        socket.create_connection(("127.0.0.1", 9))
