"""The OME-XML block of an OME-TIFF: sizes, order of planes, voxel size, channels, and what the microscope was.

Only what Obverse understands is kept, in plain JSON-like metadata, and written back in the same terms. Declared sizes
are bounded before anything is made of them, and XML with a document type (the door to entity bombs) is refused.

References: Goldberg et al., "The Open Microscopy Environment (OME) Data Model and XML file", Genome Biology 2005;
OME-TIFF specification, schema 2016-06.
"""

__all__ = ["OmeImage", "is_ome", "normal_unit", "parse", "render"]

import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import FormatError, InputError
from ..volume import Volume

_NAMESPACE = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
_MAX_PLANES = 10_000_000
_UNITS = {
    "µm": "um",
    "μm": "um",
    "\\u00b5m": "um",
    "micron": "um",
    "microns": "um",
    "micrometer": "um",
    "micrometre": "um",
}
_UNITS |= {"nanometer": "nm", "nanometre": "nm", "millimeter": "mm", "centimeter": "cm", "å": "angstrom", "meter": "m"}
_UNITS |= {"um": "um", "nm": "nm", "mm": "mm", "cm": "cm", "m": "m", "pm": "pm", "inch": "inch", "in": "inch"}
_OME_UNITS = {"um": "µm", "angstrom": "Å", "inch": "in"}
_TYPES = {"u1": "uint8", "u2": "uint16", "u4": "uint32", "i1": "int8", "i2": "int16", "i4": "int32"}
_TYPES |= {"f4": "float", "f8": "double", "c8": "complex", "c16": "double-complex"}
_CHANNEL_KEYS = {"Name": "name", "EmissionWavelength": "emission_nm", "ExcitationWavelength": "excitation_nm"}
_CHANNEL_KEYS |= {"Color": "color", "Fluor": "fluor", "AcquisitionMode": "mode", "ContrastMethod": "contrast"}


@dataclass(frozen=True)
class OmeImage:
    """One image of an OME-XML block.

    Args:
        sizes: samples along T, C, Z, Y, X.
        planes: page number of each plane, shape (T, C, Z) of the planes; with `samples` channels interleaved in a
            plane the C axis here counts planes.
        samples: channels stored in each page.
        spacing: step along Z, Y, X with its unit; None where not recorded.
    """

    sizes: dict[str, int]
    planes: np.ndarray
    samples: int
    spacing: dict[str, tuple[float, str] | None]
    metadata: dict[str, Any]


def is_ome(description: str) -> bool:
    """Whether a TIFF description is an OME-XML block."""
    return description.lstrip("\ufeff \t\r\n").startswith("<") and "<OME" in description[:4000]


def normal_unit(text: str | None) -> str | None:
    """The name that Obverse uses for a unit of length; None for pixels and anything unknown."""
    return None if text is None else _UNITS.get(text.strip().lower())


def parse(description: str, n_pages: int, image: int | None, name: str) -> OmeImage:
    """Read the OME-XML text of the file called `name`, which has `n_pages` pages.

    Raises:
        FormatError: the XML is damaged, or declares planes that the file does not have.
        InputError: there are several images and none was chosen.
    """
    if "<!DOCTYPE" in description or "<!ENTITY" in description:
        raise FormatError(f"expected plain OME-XML in {name}, got a document type declaration; do not trust this file")
    try:
        root = ElementTree.fromstring(description)
    except (ElementTree.ParseError, ValueError, RecursionError) as error:
        raise FormatError(
            f"expected OME-XML in {name}, got text that does not parse ({error}); export the file again"
        ) from error
    images = root.findall("{*}Image")
    if not images:
        raise FormatError(f"expected an image in the OME-XML of {name}, got none; give the file that holds the pixels")
    if len(images) > 1 and image is None:
        raise InputError(
            f"expected one image in {name}, got {len(images)}; choose one with image=0 to {len(images) - 1}"
        )
    index = image or 0
    if not 0 <= index < len(images):
        raise InputError(f"expected image 0 to {len(images) - 1} of {name}, got {index}; choose another")
    pixels = images[index].find("{*}Pixels")
    if pixels is None:
        raise FormatError(f"expected pixels in image {index} of {name}, got none; export the file again")
    try:
        return _parse(root, images[index], pixels, n_pages, name)
    except (KeyError, ValueError, OverflowError) as error:
        if isinstance(error, FormatError | InputError):
            raise
        raise FormatError(
            f"expected whole OME-XML in {name}, got a damaged field ({error}); export the file again"
        ) from error


def render(volume: Volume, array: np.ndarray) -> bytes:
    """OME-XML, as UTF-8, for `array` of axes TCZYX that belongs to `volume`.

    The same input gives the same bytes: there is no random identifier and no date of writing in it.
    """
    meta = volume.metadata
    root = ElementTree.Element("OME", {"xmlns": _NAMESPACE, "Creator": "obverse"})
    objective = meta.get("objective") or {}
    if objective:
        instrument = ElementTree.SubElement(root, "Instrument", ID="Instrument:0")
        fields = {"ID": "Objective:0", "LensNA": objective.get("numerical_aperture")}
        fields |= {"NominalMagnification": objective.get("magnification"), "Immersion": objective.get("immersion")}
        ElementTree.SubElement(instrument, "Objective", _text(fields))
    image = ElementTree.SubElement(root, "Image", _text({"ID": "Image:0", "Name": meta.get("name")}))
    for tag, key in (("AcquisitionDate", "acquired"), ("Description", "description")):
        if meta.get(key):
            ElementTree.SubElement(image, tag).text = _clean(meta[key])
    if objective:
        fields = {"ID": "Objective:0", "RefractiveIndex": objective.get("refractive_index")}
        ElementTree.SubElement(image, "ObjectiveSettings", _text(fields))
    sizes = dict(zip("TCZYX", array.shape))
    kind = _TYPES[array.dtype.str[1:]]
    fields = {"ID": "Pixels:0", "DimensionOrder": "XYZCT", "Type": kind, "BigEndian": "false"}
    fields |= {f"Size{axis}": sizes[axis] for axis in "XYZCT"}
    for axis in "XYZ":
        if axis in volume.axes:
            at = volume.axes.index(axis)
            step, unit = (volume.spacing or ())[at], (volume.units or ())[at]
            if step is not None:
                fields[f"PhysicalSize{axis}"] = repr(step)
                fields[f"PhysicalSize{axis}Unit"] = _OME_UNITS.get(unit or "", unit) or "pixel"
    pixels = ElementTree.SubElement(image, "Pixels", _text(fields))
    channels = list(meta.get("channels") or [])
    channels += [{}] * (sizes["C"] - len(channels))
    for index, channel in enumerate(channels[: sizes["C"]]):
        fields = {"ID": f"Channel:0:{index}", "SamplesPerPixel": 1}
        fields |= {xml: channel.get(key) for xml, key in _CHANNEL_KEYS.items()}
        if channel.get("emission_nm"):
            fields["EmissionWavelengthUnit"] = "nm"
        if channel.get("excitation_nm"):
            fields["ExcitationWavelengthUnit"] = "nm"
        ElementTree.SubElement(pixels, "Channel", _text(fields))
    ElementTree.SubElement(pixels, "TiffData", IFD="0", PlaneCount=str(sizes["T"] * sizes["C"] * sizes["Z"]))
    return b'<?xml version="1.0" encoding="UTF-8"?>' + ElementTree.tostring(root, encoding="utf-8")


def _parse(
    root: ElementTree.Element, image: ElementTree.Element, pixels: ElementTree.Element, n_pages: int, name: str
) -> OmeImage:
    sizes = {axis: int(pixels.attrib[f"Size{axis}"]) for axis in "TCZYX"}
    order = pixels.attrib.get("DimensionOrder", "XYZCT")
    channels = pixels.findall("{*}Channel")
    samples = int(channels[0].get("SamplesPerPixel", "1")) if channels else 1
    planes_c = sizes["C"] // samples if samples > 0 else 0
    total = sizes["T"] * planes_c * sizes["Z"]
    if min(sizes.values()) < 1 or samples < 1 or planes_c * samples != sizes["C"] or sorted(order[2:]) != list("CTZ"):
        raise FormatError(
            f"expected sensible sizes in the OME-XML of {name}, got {sizes} in order {order}; export it again"
        )
    if total > min(n_pages, _MAX_PLANES):
        raise FormatError(
            f"expected {total} planes in {name} (T {sizes['T']}, C {planes_c}, Z {sizes['Z']}), it holds {n_pages}; "
            "give the file that holds all planes, or export them into one file"
        )
    counts = {"T": sizes["T"], "C": planes_c, "Z": sizes["Z"]}
    letters = order[:1:-1]  # slowest first
    flat = np.full(total, -1, dtype=np.int64)
    _place(flat, pixels.findall("{*}TiffData"), order, counts, n_pages, name)
    planes = flat.reshape([counts[a] for a in letters]).transpose([letters.index(a) for a in "TCZ"])
    spacing: dict[str, tuple[float, str] | None] = {}
    for axis in "ZYX":
        text, unit = pixels.get(f"PhysicalSize{axis}"), normal_unit(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
        step = float(text) if text else 0.0
        spacing[axis] = (step, unit) if unit and np.isfinite(step) and step > 0 else None
    return OmeImage(sizes, planes, samples, spacing, _metadata(root, image, channels))


def _place(flat: np.ndarray, blocks: list, order: str, counts: Mapping[str, int], n_pages: int, name: str) -> None:
    """Fill in the page of each plane, planes in the file's own order."""
    strides, step = {}, 1
    for axis in order[2:]:
        strides[axis], step = step, step * counts[axis]
    if not any(block.get("IFD") or block.get("PlaneCount") for block in blocks) and len(blocks) <= 1:
        flat[:] = np.arange(len(flat))
    for block in blocks:
        identifier = block.find("{*}UUID")
        if identifier is not None and identifier.get("FileName") and len({b.findtext("{*}UUID") for b in blocks}) > 1:
            raise FormatError(
                f"expected all planes in {name}, its OME-XML spreads them over several files; export into one"
            )
        start = sum(int(block.get(f"First{axis}", "0")) * strides[axis] for axis in "CTZ")
        first = int(block.get("IFD", "0"))
        default = "1" if block.get("IFD") else str(len(flat))
        count = int(block.get("PlaneCount", default))
        if start < 0 or first < 0 or count < 0 or start + count > len(flat) or first + count > n_pages:
            raise FormatError(f"expected planes within {name}, its OME-XML points past the end; export it again")
        flat[start : start + count] = np.arange(first, first + count)
    if np.any(flat < 0):
        raise FormatError(
            f"expected a page for every plane of {name}, {int(np.sum(flat < 0))} are missing; export it again"
        )


def _metadata(root: ElementTree.Element, image: ElementTree.Element, channels: list) -> dict[str, Any]:
    meta: dict[str, Any] = {"name": image.get("Name"), "acquired": image.findtext("{*}AcquisitionDate")}
    meta["description"] = image.findtext("{*}Description")
    entries = []
    for channel in channels:
        entry: dict[str, Any] = {key: channel.get(xml) for xml, key in _CHANNEL_KEYS.items() if channel.get(xml)}
        for key in ("emission_nm", "excitation_nm"):
            if key in entry:
                unit = channel.get({"emission_nm": "EmissionWavelengthUnit"}.get(key, "ExcitationWavelengthUnit"), "nm")
                entry[key] = float(entry[key]) * {"um": 1e3, "nm": 1.0}.get(normal_unit(unit) or "nm", 1.0)
        entries += [entry] * min(int(channel.get("SamplesPerPixel", "1")), 4096)
        if len(entries) > 4096:
            break
    if any(entries):
        meta["channels"] = entries
    settings = image.find("{*}ObjectiveSettings")
    wanted = None if settings is None else settings.get("ID")
    lenses = root.findall("{*}Instrument/{*}Objective")
    lens = next((o for o in lenses if o.get("ID") == wanted), lenses[0] if len(lenses) == 1 else None)
    objective: dict[str, Any] = {}
    if lens is not None:
        numbers = {"numerical_aperture": lens.get("LensNA"), "magnification": lens.get("NominalMagnification")}
        objective = {key: float(text) for key, text in numbers.items() if text}
        if lens.get("Immersion"):
            objective["immersion"] = lens.get("Immersion")
    if settings is not None and settings.get("RefractiveIndex"):
        objective["refractive_index"] = float(settings.get("RefractiveIndex") or 0)
    if objective:
        meta["objective"] = objective
    return {key: value for key, value in meta.items() if value}


def _text(fields: Mapping[str, Any]) -> dict[str, str]:
    return {key: _clean(value) for key, value in fields.items() if value is not None}


def _clean(value: Any) -> str:
    """Text without the control characters that XML cannot hold."""
    if isinstance(value, float) and value == int(value):
        return repr(value)
    return "".join(c for c in str(value) if c in "\t\n\r" or ord(c) >= 32)
