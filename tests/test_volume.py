"""Volumes keep their physical meaning, and refuse what has none."""

import pickle

import numpy as np
import pytest

from obverse.errors import InputError
from obverse.volume import Volume


def stack(axes="TCZYX", shape=(1, 2, 3, 4, 5)):
    spacing = tuple({"Z": 0.3, "Y": 0.1, "X": 0.11}.get(a) for a in axes)
    units = tuple("um" if s else None for s in spacing)
    array = np.arange(np.prod(shape), dtype=float).reshape(shape)
    return Volume(
        array, axes, spacing, units, metadata={"channels": [{"name": "a"}, {"name": "b"}]}, provenance=("made",)
    )


def test_image_is_channel_first_whatever_the_order_of_the_axes():
    expected = stack().image()
    assert expected.shape == (2, 3, 4, 5)
    for axes in ("ZCYX", "XYZC", "YXCZ"):
        array = expected.transpose(["CZYX".index(a) for a in axes])
        assert np.array_equal(Volume(array, axes).image(), expected)
    assert Volume(np.zeros((4, 5)), "YX").image().shape == (1, 4, 5)


@pytest.mark.parametrize(
    "axes, shape", [("TCZYX", (1, 2, 3, 4, 5)), ("XYC", (4, 5, 2)), ("ZYX", (3, 4, 5)), ("YX", (4, 5))]
)
def test_like_undoes_image(axes, shape):
    volume = stack(axes, shape)
    back = volume.like(volume.image() * 2, "doubled")
    assert np.array_equal(back.array, volume.array * 2)
    assert (back.axes, back.spacing, back.units, back.metadata) == (
        volume.axes,
        volume.spacing,
        volume.units,
        volume.metadata,
    )
    assert back.provenance == ("made", "doubled") and volume.provenance == ("made",)


def test_select_and_crop_keep_spacing_and_names():
    volume = stack()
    channel = volume.select("C", 1)
    assert channel.axes == "TZYX" and channel.metadata["channels"] == [{"name": "b"}]
    assert np.array_equal(channel.array, volume.array[:, 1])
    part = volume.cropped((slice(0, 1), slice(1, 3), slice(None), slice(2, 4)))
    assert np.array_equal(part.image(), volume.image()[0:1, 1:3, :, 2:4]) and part.spacing == volume.spacing
    assert np.shares_memory(part.array, volume.array)


def test_spacing_converts_units_and_says_when_it_does_not_know():
    volume = stack()
    assert volume.spacing_in("Z", "nm") == 300.0 and volume.spacing_in("X", "um") == 0.11
    assert volume.spacing_in("C", "nm") is None and volume.spacing_in("Q", "nm") is None
    assert Volume(np.zeros((4, 5)), "YX", (1.0, 1.0), ("pixel", "pixel")).spacing_in("X", "nm") is None


@pytest.mark.parametrize(
    "arguments",
    [
        (np.zeros((4, 5)), "X"),
        (np.zeros((4, 5)), "XX"),
        (np.zeros((4, 5)), "yx"),
        (np.array(["a", "b"]), "X"),
        (np.zeros((4, 5)), "YX", (1.0,)),
        (np.zeros((4, 5)), "YX", (0.0, 1.0)),
        (np.zeros((4, 5)), "YX", (np.nan, 1.0)),
    ],
)
def test_what_does_not_fit_is_refused(arguments):
    with pytest.raises(InputError, match="expects"):
        Volume(*arguments)


@pytest.mark.parametrize(
    "array, word",
    [
        (np.zeros((0, 5)), "empty"),
        (np.full((4, 5), 7.0), "constant"),
        (np.array([[0.0, np.nan]]), "NaN"),
        (np.array([[0.0, np.inf]]), "NaN"),
        (np.array([[0.0, 1j]]), "real"),
    ],
)
def test_values_that_no_reconstruction_can_use_are_refused(array, word):
    with pytest.raises(InputError, match=word):
        Volume(array, "YX").check_values()


def test_good_values_pass_the_same_check():
    stack().check_values()


def test_time_series_are_not_images():
    with pytest.raises(InputError, match="time point"):
        stack("TYX", (3, 4, 5)).image()


def test_a_volume_cannot_be_changed_and_survives_pickling():
    volume = stack()
    with pytest.raises(AttributeError):
        volume.axes = "XYZCT"  # type: ignore[misc]
    copy = pickle.loads(pickle.dumps(volume))  # noqa: S301
    assert np.array_equal(copy.array, volume.array) and copy.spacing == volume.spacing
