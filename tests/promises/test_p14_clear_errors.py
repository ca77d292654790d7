"""P14: bad input gets one clear message, exit code 2, no traceback and no partial output."""

import numpy as np
import pytest
import tifffile

from tests.conftest import micrograph

DATA, PSF = micrograph()


def broken(value):
    data = DATA.astype(np.float32)
    data[5, 7] = value
    return data


# what is wrong: (data, PSF, further arguments, what the message must name)
TABLE = {
    "NaN": (broken(np.nan), PSF, [], "NaN"),
    "infinite": (broken(np.inf), PSF, [], "infinite"),
    "constant": (np.full_like(DATA, 7), PSF, [], "constant"),
    "all zero": (np.zeros_like(DATA), PSF, [], "constant"),
    "one row": (DATA[:1], PSF, [], "expected|expects"),
    "complex": (DATA.astype(np.complex64), PSF, [], "complex"),
    "negative counts": (DATA.astype(np.float32) - 500, PSF, ["--set", "background=0"], "negative"),
    "psf of zeros": (DATA, np.zeros_like(PSF), [], "PSF|point-spread"),
    "psf with NaN": (DATA, np.where(PSF == PSF.max(), np.nan, PSF), [], "NaN"),
    "psf larger than the data": (DATA, np.ones((400, 400), np.float32), [], "PSF|point-spread"),
    "3-D psf for 2-D data": (DATA, np.stack([PSF] * 5), [], "PSF|point-spread"),
    "unknown setting": (DATA, PSF, ["--set", "sigmaa=1"], "sigmaa"),
    "setting out of range": (DATA, PSF, ["--set", "rank=-1"], "rank"),
    "unknown method": (DATA, PSF, ["--method", "magic"], "magic"),
    "unknown option": (DATA, PSF, ["--frobnicate"], "frobnicate"),
    "negative seed": (DATA, PSF, ["--seed", "-1"], "seed"),
    "endless seed": (DATA, PSF, ["--seed", "1" + "0" * 30], "seed"),
    "negative gain": (DATA, PSF, ["--set", "gain=-1"], "gain"),
    "memory not a size": (DATA, PSF, ["--memory", "lots"], "memory size"),
    "memory too small": (DATA, PSF, ["--memory", "1kB"], "--memory"),
}


@pytest.mark.parametrize("name", TABLE)
def test_bad_input(name, obverse, tmp_path):
    data, psf, more, words = TABLE[name]
    tifffile.imwrite(tmp_path / "data.tif", data)
    tifffile.imwrite(tmp_path / "psf.tif", psf)
    done = obverse("reconstruct", tmp_path / "data.tif", "--psf", tmp_path / "psf.tif", "-o", tmp_path / "out", *more)
    check_refusal(done, words)
    assert not (tmp_path / "out").exists(), "a partial output was left"


def check_refusal(done, words):
    import re

    assert done.code == 2, (done.code, done.stderr)
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert re.search(words, lines[0]), lines[0]


def test_no_psf_and_no_optics(obverse, tmp_path):
    tifffile.imwrite(tmp_path / "data.tif", DATA)
    check_refusal(obverse("reconstruct", tmp_path / "data.tif", "-o", tmp_path / "out"), "psf|PSF|point-spread")
    assert not (tmp_path / "out").exists()


def test_a_missing_file(obverse, tmp_path):
    check_refusal(obverse("reconstruct", tmp_path / "none.tif", "-o", tmp_path / "out"), "none.tif")
    assert not (tmp_path / "out").exists()


def test_a_reference_of_another_size(obverse, files, tmp_path):
    tifffile.imwrite(tmp_path / "reference.tif", DATA[:20])
    done = obverse(
        "reconstruct",
        files["2d"],
        "--psf",
        files["psf2d"],
        "--reference",
        tmp_path / "reference.tif",
        "-o",
        tmp_path / "out",
    )
    check_refusal(done, "reference")


def test_the_same_message_as_json(obverse, tmp_path):
    done = obverse("reconstruct", tmp_path / "none.tif", "-o", tmp_path / "out", "--json")
    assert done.code == 2 and done.answer["exit_code"] == 2 and "none.tif" in done.answer["error"]


def test_good_input_is_not_refused(obverse, tmp_path):
    tifffile.imwrite(tmp_path / "data.tif", DATA)
    tifffile.imwrite(tmp_path / "psf.tif", PSF)
    done = obverse("reconstruct", tmp_path / "data.tif", "--psf", tmp_path / "psf.tif", "-o", tmp_path / "out")
    assert done.code == 0, done.stderr
