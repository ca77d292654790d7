"""P17: metadata survive: written, read back, equal; and read alike by software that is not ours."""

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
import skimage.io
import tifffile

from obverse.io import tiff
from obverse.volume import Volume

SPACING = {"T": None, "C": None, "Z": 0.2500000001, "Y": 0.0625, "X": 0.1 / 3}
METADATA = {
    "name": "cell <7> & co",
    "acquired": "2024-05-06T07:08:09",
    "description": "müller, 100× objective",
    "channels": [
        {"name": "DAPI", "emission_nm": 461.0, "excitation_nm": 405.0, "color": "65535"},
        {"name": "ATTO 647N µ", "emission_nm": 669.0},
    ],
    "objective": {"numerical_aperture": 1.45, "magnification": 100.0, "immersion": "Oil", "refractive_index": 1.512},
}


def volume(axes: str, unit: str = "um") -> Volume:
    sizes = {"T": 2, "C": 2, "Z": 5, "Y": 6, "X": 7}
    array = np.random.default_rng(0).standard_normal([sizes[a] for a in axes]).astype(np.float32)
    spacing = tuple(SPACING[a] for a in axes)
    metadata = METADATA if "C" in axes else {**METADATA, "channels": METADATA["channels"][:1]}
    return Volume(array, axes, spacing, tuple(unit if s else None for s in spacing), metadata=metadata)


def differences(a: Volume, b: Volume) -> list[str]:
    """What of array, axes, spacing, units and metadata is not equal, to the last bit."""
    pairs = {"axes": (a.axes, b.axes), "spacing": (a.spacing, b.spacing), "units": (a.units, b.units)}
    pairs |= {key: (a.metadata.get(key), b.metadata.get(key)) for key in {*a.metadata, *b.metadata}}
    found = [name for name, (x, y) in pairs.items() if x != y]
    return found + ([] if np.array_equal(a.array, b.array) else ["array"])


@pytest.mark.parametrize("unit", ["um", "nm", "mm", "angstrom"])
@pytest.mark.parametrize("axes", ["YX", "CYX", "ZYX", "CZYX", "TCZYX", "TYX"])
def test_written_and_read_back_is_equal(axes, unit, tmp_path):
    path = tiff.write(volume(axes, unit), tmp_path / "a.ome.tif")
    assert differences(tiff.read(path), volume(axes, unit)) == []


def test_axes_in_another_order_come_back_in_the_standard_one(tmp_path):
    original = volume("CZYX")
    spacing, units = tuple(SPACING[a] for a in "YXCZ"), ("um", "um", None, "um")
    turned = Volume(original.array.transpose(2, 3, 0, 1), "YXCZ", spacing, units, metadata=METADATA)
    assert differences(tiff.read(tiff.write(turned, tmp_path / "a.ome.tif")), original) == []


@pytest.mark.parametrize("change", ["axes", "spacing", "units", "channels", "array"])
def test_the_comparison_notices_a_loss(change, tmp_path):
    original = volume("CZYX")
    fields = {"array": original.array, "axes": original.axes, "spacing": original.spacing, "units": original.units}
    metadata = dict(original.metadata)
    if change == "axes":
        fields["axes"], fields["array"] = "CTYX", original.array
    elif change == "spacing":
        fields["spacing"] = (None, 0.25, 0.0625, 0.1 / 3)
    elif change == "units":
        fields["units"] = (None, "nm", "nm", "nm")
    elif change == "channels":
        metadata["channels"] = [{"name": "DAPI"}, {"name": "other"}]
    else:
        fields["array"] = original.array + np.float32(1e-6)
    assert change in differences(Volume(**fields, metadata=metadata), original)


def test_another_library_reads_the_same(tmp_path):
    original = volume("CZYX")
    path = tiff.write(original, tmp_path / "a.ome.tif")
    with tifffile.TiffFile(path) as tif:
        series = tif.series[0]
        assert tif.is_ome and series.axes == "CZYX" and np.array_equal(series.asarray(), original.array)
        tags = tif.pages[0].tags
        assert tags["ResolutionUnit"].value == 3  # centimetre
        per_cm = [tags[name].value[0] / tags[name].value[1] for name in ("XResolution", "YResolution")]
        assert per_cm == pytest.approx([1e4 / SPACING["X"], 1e4 / SPACING["Y"]], rel=1e-6)
    assert np.array_equal(skimage.io.imread(path), original.array)


def test_the_xml_says_what_the_ome_schema_expects(tmp_path):
    """Read by the standard library alone, from the raw bytes of the file."""
    raw = tiff.write(volume("CZYX"), tmp_path / "a.ome.tif").read_bytes()
    start, end = raw.index(b"<?xml"), raw.index(b"</OME>") + 6
    root = ElementTree.fromstring(raw[start:end].decode("utf-8"))
    pixels = root.find("{*}Image/{*}Pixels")
    assert root.tag == "{http://www.openmicroscopy.org/Schemas/OME/2016-06}OME" and pixels is not None
    assert [int(pixels.attrib[f"Size{a}"]) for a in "TCZYX"] == [1, 2, 5, 6, 7]
    assert [float(pixels.attrib[f"PhysicalSize{a}"]) for a in "ZYX"] == [SPACING[a] for a in "ZYX"]
    assert {pixels.attrib[f"PhysicalSize{a}Unit"] for a in "ZYX"} == {"µm"}
    assert [c.attrib["Name"] for c in pixels.findall("{*}Channel")] == ["DAPI", "ATTO 647N µ"]
    assert pixels.attrib["Type"] == "float"


def test_the_same_volume_gives_the_same_bytes(tmp_path):
    first, second = (tiff.write(volume("CZYX"), tmp_path / name).read_bytes() for name in ("a", "b"))
    assert first == second


def test_files_of_other_writers_keep_their_voxel_size_when_written_again(tmp_path):
    stack = np.random.default_rng(1).integers(0, 255, (3, 6, 7)).astype(np.uint8)
    metadata = {"axes": "ZYX", "spacing": 0.25, "unit": "micron"}
    tifffile.imwrite(tmp_path / "imagej.tif", stack, imagej=True, resolution=(16.0, 8.0), metadata=metadata)
    again = tiff.read(tiff.write(tiff.read(tmp_path / "imagej.tif"), tmp_path / "again.ome.tif"))
    assert again.axes == "ZYX" and np.array_equal(again.array, stack) and again.array.dtype == np.float32
    assert [again.spacing_in(a, "nm") for a in "ZYX"] == [250.0, 125.0, 62.5]
