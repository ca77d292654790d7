"""Settings: layers in order, names checked, files read without running code."""

import pytest

from obverse.errors import FormatError, InputError
from obverse.run.config import as_yaml, instrument, parse_assignments, read_config, resolve


def test_later_layers_win():
    assert resolve("microscopy", {"rank": 3}, {"rank": 5}).rank == 5


def test_what_config_prints_reads_back_to_the_same_settings(tmp_path):
    settings = resolve("microscopy", {"rank": 7, "background": 101.5})
    path = tmp_path / "settings.yaml"
    path.write_text(as_yaml(settings))
    assert resolve("microscopy", read_config(path)) == settings


def test_an_unknown_setting_is_an_error_that_lists_the_known():
    with pytest.raises(InputError, match="got 'rnak'") as error:
        resolve("microscopy", {"rnak": 3})
    assert "rank" in str(error.value)


def test_a_value_out_of_range_names_its_field():
    with pytest.raises(InputError, match="'rank': greater than or equal to 1 or 'auto'; got -3") as error:
        resolve("microscopy", {"rank": -3})
    assert "constrained" not in str(error.value)


def test_an_unknown_instrument_lists_the_known():
    with pytest.raises(InputError, match="microscopy"):
        instrument("telescope")


def test_assignments_are_read_as_yaml():
    assert parse_assignments(["a=3", "b = auto", "c=[1, 2]", "d=1.5", "e=x=y"]) == {
        "a": 3,
        "b": "auto",
        "c": [1, 2],
        "d": 1.5,
        "e": "x=y",
    }


@pytest.mark.parametrize(
    "text", ["rank", "=3", "a={", "axes=2024-13-45", "a=" + "[" * 9999, "a=!!python/object/apply:os.system ['true']"]
)
def test_bad_assignments(text):
    with pytest.raises(InputError, match="--set"):
        parse_assignments([text])


@pytest.mark.parametrize(
    "content", [b"a: [", b"- 1\n- 2", b"\xff\xfe\x00", b"a: !!python/object/apply:os.system ['true']", b"&a [*a" * 10]
)
def test_bad_files(tmp_path, content):
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    with pytest.raises(FormatError):
        read_config(path)


def test_a_missing_file_and_a_huge_one(tmp_path):
    with pytest.raises(InputError, match="found none"):
        read_config(tmp_path / "none.yaml")
    huge = tmp_path / "huge.yaml"
    huge.write_bytes(b"#" * 2_000_000)
    with pytest.raises(FormatError, match="at most"):
        read_config(huge)
