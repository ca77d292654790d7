"""P18: one bad file does not stop a batch."""

import shutil

import pytest


@pytest.fixture
def folder(files, tmp_path):
    """Two good files, one of noise bytes, one empty, one truncated."""
    there = tmp_path / "in"
    there.mkdir()
    shutil.copy(files["2d"], there / "a_good.ome.tif")
    (there / "b_bad.tif").write_bytes(bytes(range(256)) * 8)
    (there / "c_empty.tif").write_bytes(b"")
    whole = files["2d"].read_bytes()
    (there / "d_cut.tif").write_bytes(whole[: len(whole) // 2])
    shutil.copy(files["2d"], there / "e_good.ome.tif")
    return there


def test_the_good_are_done_and_the_rest_are_listed(obverse, files, folder, tmp_path):
    done = obverse("reconstruct", folder, "--psf", files["psf2d"], "-o", tmp_path / "out", "--json")
    assert done.code == 3
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a_good", "e_good"]
    for name in ("a_good", "e_good"):
        assert (tmp_path / "out" / name / "report.html").is_file()
    failed = [name.rsplit("/", 1)[-1] for name in done.answer["failed"]]
    assert failed == ["b_bad.tif", "c_empty.tif", "d_cut.tif"]
    for name in failed:
        assert name in done.stderr
    assert "Traceback" not in done.stderr


def test_without_a_bad_file_the_batch_succeeds(obverse, files, folder, tmp_path):
    good = [folder / "a_good.ome.tif", folder / "e_good.ome.tif"]
    assert obverse("reconstruct", *good, "--psf", files["psf2d"], "-o", tmp_path / "out").code == 0


def test_a_folder_without_images_is_refused(obverse, tmp_path):
    (tmp_path / "in").mkdir()
    done = obverse("reconstruct", tmp_path / "in", "-o", tmp_path / "out")
    assert done.code == 2 and "found none" in done.stderr
