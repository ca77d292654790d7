"""A folder is claimed, resumed or refused; nothing of others' is removed."""

import json

import pytest

from obverse.errors import FormatError, InputError
from obverse.run.store import Store, read_record, verify

RUN = {"inputs": ["a"], "seed": 0}


def finish(store):
    (store.folder / "image.ome.tif").write_bytes(b"image")
    store.finish({"obverse": "0"})


def test_a_new_folder_is_made_and_finished(tmp_path):
    store = Store(tmp_path / "a" / "out", RUN)
    finish(store)
    assert not store.work.exists()
    assert verify(store.folder) == []
    assert set(read_record(store.folder)["outputs"]) == {"image.ome.tif"}


def test_a_changed_output_is_found(tmp_path):
    store = Store(tmp_path / "out", RUN)
    finish(store)
    (store.folder / "image.ome.tif").write_bytes(b"imagf")
    assert verify(store.folder) == ["image.ome.tif"]


def test_a_finished_run_is_not_overwritten_unasked(tmp_path):
    finish(Store(tmp_path / "out", RUN))
    with pytest.raises(InputError, match="--overwrite"):
        Store(tmp_path / "out", RUN)
    Store(tmp_path / "out", RUN, overwrite=True)


def test_a_folder_of_other_files_is_refused_even_with_overwrite(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(InputError, match="other files"):
        Store(tmp_path, RUN, overwrite=True)
    assert (tmp_path / "thesis.tex").read_text() == "precious"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["thesis.tex"]


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(InputError, match="is a file"):
        Store(tmp_path / "out", RUN)


def test_an_interrupted_run_resumes_only_with_the_same_fingerprint(tmp_path):
    store = Store(tmp_path / "out", RUN)
    (store.work / "0000.arrays.safetensors").write_bytes(b"tile")
    store.abandon()
    with pytest.raises(InputError, match="--resume"):
        Store(tmp_path / "out", RUN)
    with pytest.raises(InputError, match="others"):
        Store(tmp_path / "out", {**RUN, "seed": 1}, resume=True)
    assert (Store(tmp_path / "out", RUN, resume=True).work / "0000.arrays.safetensors").exists()
    assert not (Store(tmp_path / "out", RUN, overwrite=True).work / "0000.arrays.safetensors").exists()


def test_an_interrupted_overwrite_resumes(tmp_path):
    finish(Store(tmp_path / "out", RUN))
    store = Store(tmp_path / "out", RUN, overwrite=True)
    (store.work / "0000.arrays.safetensors").write_bytes(b"tile")
    assert (Store(tmp_path / "out", RUN, resume=True).work / "0000.arrays.safetensors").exists()


def test_a_work_folder_of_others_is_refused_and_untouched(tmp_path):
    (tmp_path / ".work").mkdir()
    (tmp_path / ".work" / "thesis.tex").write_text("precious")
    for overwrite in (False, True):
        with pytest.raises(InputError, match="other files"):
            Store(tmp_path, RUN, overwrite=overwrite)
    assert (tmp_path / ".work" / "thesis.tex").read_text() == "precious"


def test_a_run_that_computed_nothing_leaves_nothing(tmp_path):
    Store(tmp_path / "out", RUN).abandon()
    assert list(tmp_path.iterdir()) == []


def test_a_record_of_foreign_outputs_is_refused(tmp_path):
    for outputs in ('["a"]', '{"/etc/hostname": "0"}'):
        (tmp_path / "run.json").write_text('{"obverse": "0", "outputs": ' + outputs + "}")
        with pytest.raises(FormatError):
            verify(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[1]", "{}", "\udcff", "9" * 5000])
def test_a_damaged_record_is_refused(tmp_path, content):
    (tmp_path / "run.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(FormatError):
        read_record(tmp_path)


def test_the_record_is_json(tmp_path):
    finish(Store(tmp_path / "out", RUN))
    assert json.loads((tmp_path / "out" / "run.json").read_text())["obverse"] == "0"
