"""TIFF files of several writers: axes, voxel size, values; and what cannot be known is asked for."""

import numpy as np
import pytest
import tifffile

from obverse.errors import FormatError, InputError
from obverse.io import tiff
from obverse.volume import Volume

STACK = np.random.default_rng(0).integers(0, 60000, (3, 2, 5, 6, 7)).astype(np.uint16)  # T C Z Y X


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("layout", [{}, {"tile": (16, 16)}, {"rowsperstrip": 2}])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_pixels_are_those_that_were_written(tmp_path, compression, big, layout, byteorder):
    path = tmp_path / "a.tif"
    array = STACK[0, 0]
    tifffile.imwrite(
        path, array, compression=compression, bigtiff=big, byteorder=byteorder, photometric="minisblack",
        metadata={"axes": "ZYX"}, **layout,
    )  # fmt: skip
    volume = tiff.read(path)
    assert volume.axes == "ZYX" and np.array_equal(volume.array, array) and volume.array.dtype == np.uint16


@pytest.mark.parametrize("dtype", ["u1", "i2", "u4", "f4", "f8", "c8"])
def test_types_of_samples(tmp_path, dtype):
    array = STACK[0, 0, 0].astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", array)
    volume = tiff.read(tmp_path / "a.tif")
    assert volume.array.dtype == np.dtype(dtype) and np.array_equal(volume.array, array)


def test_horizontal_differencing_is_undone(tmp_path):
    pytest.importorskip("imagecodecs")
    tifffile.imwrite(tmp_path / "a.tif", STACK[0, 0, 0], compression="zlib", predictor=True)
    assert np.array_equal(tiff.read(tmp_path / "a.tif").array, STACK[0, 0, 0])


@pytest.mark.parametrize(
    "unit, micrometres", [("um", 1.0), ("\\u00B5m", 1.0), ("micron", 1.0), ("nm", 1e-3), ("mm", 1e3)]
)
def test_imagej_stack_with_its_voxel_size(tmp_path, unit, micrometres):
    path = tmp_path / "a.tif"
    metadata = {"axes": "ZYX", "spacing": 0.5, "unit": unit}
    tifffile.imwrite(path, STACK[0, 0], imagej=True, resolution=(4.0, 8.0), metadata=metadata)
    volume = tiff.read(path)
    assert volume.axes == "ZYX" and np.array_equal(volume.array, STACK[0, 0])
    expected = [s * micrometres for s in (0.5, 0.125, 0.25)]
    assert [volume.spacing_in(a, "um") for a in "ZYX"] == pytest.approx(expected)


def test_imagej_hyperstack(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, STACK.transpose(0, 2, 1, 3, 4), imagej=True, metadata={"axes": "TZCYX"})
    assert tiff.info(path).axes == "TCZYX"
    assert np.array_equal(tiff.read(path).array, STACK)
    one = tiff.read(path, time=2, channel=1)
    assert one.axes == "ZYX" and np.array_equal(one.array, STACK[2, 1])


@pytest.mark.parametrize("order", ["TCZYX", "TZCYX", "CTZYX", "ZTCYX"])
def test_ome_in_any_order_of_planes(tmp_path, order):
    path = tmp_path / "a.ome.tif"
    metadata = {
        "axes": order,
        "PhysicalSizeX": 65.0,
        "PhysicalSizeXUnit": "nm",
        "PhysicalSizeY": 0.066,
        "PhysicalSizeZ": 0.2,
    }
    metadata["Channel"] = {"Name": ["dapi", "gfp"]}
    array = STACK.transpose(["TCZYX".index(a) for a in order])
    tifffile.imwrite(path, array, ome=True, photometric="minisblack", metadata=metadata)
    volume = tiff.read(path)
    assert volume.axes == "TCZYX" and np.array_equal(volume.array, STACK)
    assert [volume.spacing_in(a, "nm") for a in "ZYX"] == pytest.approx([200, 66, 65])
    assert [c["name"] for c in volume.metadata["channels"]] == ["dapi", "gfp"]


def test_a_region_is_read_without_the_rest(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, STACK[0, 0], photometric="minisblack", metadata={"axes": "ZYX"})
    part = tiff.read(path, region={"Z": slice(1, 3), "X": slice(2, 6)})
    assert np.array_equal(part.array, STACK[0, 0, 1:3, :, 2:6])
    with pytest.raises(InputError, match="MiB may be used"):
        tiff.read(path, max_bytes=100)
    assert tiff.read(path, region={"Z": slice(0, 1)}, max_bytes=100).shape == (1, 6, 7)


def test_colour_pages_become_channels(tmp_path):
    rgb = STACK[0, 0, :3].astype(np.uint8).transpose(1, 2, 0)
    tifffile.imwrite(tmp_path / "a.tif", rgb, photometric="rgb")
    volume = tiff.read(tmp_path / "a.tif")
    assert volume.axes == "CYX" and np.array_equal(volume.array, rgb.transpose(2, 0, 1))
    assert [c["name"] for c in volume.metadata["channels"]] == ["red", "green", "blue"]


def test_a_stack_that_does_not_say_what_it_is_is_asked_about(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, STACK[0, 0], photometric="minisblack", metadata=None)
    with pytest.raises(InputError, match="axes=ZYX"):
        tiff.read(path)
    for axes in ("ZYX", "CYX", "TYX"):
        assert tiff.read(path, axes=axes).axes == axes
    for wrong in ("YX", "XYZ", "ZCYX", "QYX", "ZZYX"):
        with pytest.raises(InputError):
            tiff.read(path, axes=wrong)


def test_printing_resolution_is_not_a_pixel_size(tmp_path):
    for name, resolution, unit, expected in (("a", 72, "INCH", None), ("b", 1e5, "CENTIMETER", 0.1)):
        tifffile.imwrite(tmp_path / name, STACK[0, 0, 0], resolution=(resolution, resolution), resolutionunit=unit)
        assert tiff.read(tmp_path / name).spacing_in("X", "um") == (expected and pytest.approx(expected))


@pytest.mark.parametrize(
    "content", [b"", b"II", b"II*\0\0\0\0\0", b"not a tiff at all", b"II*\0\xff\xff\xff\xff", b"\x93NUMPY"]
)
def test_what_is_not_a_tiff_is_refused(tmp_path, content):
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(FormatError, match="expected"):
        tiff.read(tmp_path / "a.tif")


def test_absent_files_and_palettes_are_refused(tmp_path):
    with pytest.raises(InputError, match="check the path"):
        tiff.read(tmp_path / "absent.tif")
    with pytest.raises(InputError, match="check the path"):
        tiff.read(tmp_path)
    colours = np.zeros((3, 256), np.uint16)
    tifffile.imwrite(tmp_path / "p.tif", STACK[0, 0, 0].astype("u1"), photometric="palette", colormap=colours)
    with pytest.raises(FormatError, match="palette"):
        tiff.read(tmp_path / "p.tif")


def test_several_images_in_one_ome_file_need_a_choice(tmp_path):
    path = tmp_path / "a.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as writer:
        writer.write(STACK[0, 0, 0], metadata={"axes": "YX", "Name": "first"})
        writer.write(STACK[0, 0, 1:4], photometric="minisblack", metadata={"axes": "ZYX", "Name": "second"})
    with pytest.raises(InputError, match="image=0 to 1"):
        tiff.read(path)
    assert np.array_equal(tiff.read(path, image=0).array, STACK[0, 0, 0])
    assert np.array_equal(tiff.read(path, image=1).array, STACK[0, 0, 1:4])


def test_writing_refuses_what_ome_tiff_cannot_hold(tmp_path):
    with pytest.raises(InputError, match="axes"):
        tiff.write(Volume(np.zeros((2, 3)), "QX"), tmp_path / "a.ome.tif")
    with pytest.raises(InputError, match="expects one of"):
        tiff.write(Volume(np.zeros((2, 3)), "YX"), tmp_path / "a.ome.tif", dtype="float16")
    assert list(tmp_path.iterdir()) == []
