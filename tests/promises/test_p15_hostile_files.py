"""P15: truncated or hostile files cannot hang, fill memory or write outside the output.

A fresh process under a memory limit reads every file of a folder; whatever it finds must be a clean refusal
(FormatError, InputError) or, where a mutation left the file valid, a volume. Another exception, a kill or a time-out
fails.
"""

import io
import json
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile

CUTS = 50
MUTATIONS = 120
MEMORY = 1_500_000_000  # bytes of address space; importing numpy alone maps several hundred millions
SECONDS = 120
REFUSED = {"FormatError", "InputError"}

CHILD = """
import json, resource, sys, time, zlib
from pathlib import Path
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[2]), int(sys.argv[2])))
import numpy, tifffile
from obverse.io import tiff
from obverse.volume import Volume
readers = {
    "obverse": lambda path: tiff.read(path, axes="ZYX" if "stack" in path.name else None),
    "trusting": lambda path: Volume(numpy.ones((1, 1 << 34), numpy.uint8), "YX"),
    "hanging": lambda path: time.sleep(3600),
}
outcomes = {}
for path in sorted(Path(sys.argv[1]).iterdir()):
    begun = time.perf_counter()
    try:
        name = f"read {zlib.crc32(numpy.ascontiguousarray(readers[sys.argv[3]](path).array))}"
    except BaseException as error:
        name = type(error).__name__
    outcomes[path.name] = [name, time.perf_counter() - begun]
# The high-water mark of this program alone: ru_maxrss would count the process that started it.
status = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
peak = int(status["VmHWM"].split()[0]) * 1024
print(json.dumps({"outcomes": outcomes, "peak": peak}))
"""


def read_all(folder: Path, reader: str = "obverse", seconds: float = SECONDS) -> dict:
    command = [sys.executable, "-c", CHILD, str(folder), str(MEMORY), reader]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def fixtures() -> dict[str, bytes]:
    """One file of each layout that is read, small enough to be cut and mutated many times."""
    stack = np.random.default_rng(0).integers(0, 4000, (4, 24, 40)).astype(np.uint16)
    kinds = {
        "stack.tif": {"metadata": None},
        "deflate.tif": {"metadata": {"axes": "ZYX"}, "compression": "zlib"},
        "tiles.tif": {"metadata": {"axes": "ZYX"}, "compression": "zlib", "tile": (16, 16)},
        "imagej.tif": {"metadata": {"axes": "ZYX", "unit": "um", "spacing": 0.3}, "imagej": True},
        "big.ome.tif": {"metadata": {"axes": "ZYX", "PhysicalSizeX": 0.1}, "ome": True, "bigtiff": True},
    }
    made = {}
    for name, keywords in kinds.items():
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, stack, photometric="minisblack", **keywords)
        made[name] = buffer.getvalue()
    return made


def one_page(tags: dict[int, tuple[int, int, bytes]], pixels: bytes = b"", next_directory: int = 0) -> bytes:
    """A TIFF file with one directory at byte 8; values longer than four bytes and the pixels follow it."""
    after = 8 + 2 + 12 * len(tags) + 4
    table, tail = b"", b""
    for tag, (kind, count, value) in sorted(tags.items()):
        if len(value) <= 4:
            table += struct.pack("<HHI", tag, kind, count) + value.ljust(4, b"\0")
        else:
            table += struct.pack("<HHII", tag, kind, count, after + len(tail))
            tail += value
    head = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(tags))
    return head + table + struct.pack("<I", next_directory) + tail + pixels


def number(value: int) -> tuple[int, int, bytes]:
    return 4, 1, struct.pack("<I", value)


def basic(**changes: tuple[int, int, bytes]) -> dict[int, tuple[int, int, bytes]]:
    names = {"width": 256, "height": 257, "bits": 258, "compression": 259, "description": 270, "offsets": 273}
    names |= {"samples": 277, "rows": 278, "counts": 279, "tile_width": 322, "tile_height": 323, "depth": 32997}
    tags = {256: number(8), 257: number(8), 258: number(16), 259: number(1), 262: number(1), 273: number(400)}
    tags |= {277: number(1), 278: number(8), 279: number(128)}
    return tags | {names[key]: value for key, value in changes.items()}


def text(content: str) -> tuple[int, int, bytes]:
    raw = content.encode() + b"\0"
    return 2, len(raw), raw


def ome(pixels: str, before: str = "") -> tuple[int, int, bytes]:
    return text(f'{before}<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image>{pixels}</Image></OME>')


def hostile() -> dict[str, bytes]:
    """Files made to hang or to exhaust a reader that believes them."""
    bomb = zlib.compress(bytes(2**28), 9)  # 256 MiB of zeros in 260 kB
    sizes = 'DimensionOrder="XYZCT" Type="uint16" SizeX="8" SizeY="8" SizeC="1" SizeZ="{z}" SizeT="{t}"'
    entity = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">' + "".join(
        f'<!ENTITY {chr(98 + i)} "{f"&{chr(97 + i)};" * 10}">' for i in range(9)
    )
    end = bytes(600)
    declared = 2**31 - 1
    channel = '<Channel SamplesPerPixel="999999999"/>'
    one = sizes.format(z=1, t=1)
    files = {
        "loop.tif": one_page(basic(), end, next_directory=8),
        "huge.tif": one_page(basic(width=number(declared), height=number(declared)), end),
        "huge-deflate.tif": one_page(
            basic(width=number(2**20), height=number(2**12), rows=number(2**12), compression=number(8),
                  offsets=number(200), counts=number(len(bomb))), end + bomb,
        ),
        "bomb.tif": one_page(
            basic(compression=number(8), offsets=number(700), counts=number(len(bomb))), end + bomb + bytes(200)
        ),
        "tile.tif": one_page(basic(tile_width=number(2**31), tile_height=number(2**31)), end),
        "samples.tif": one_page(basic(samples=number(2**16 - 1)), end),
        "depth.tif": one_page(basic(depth=number(2**30)), end),
        "zero.tif": one_page(basic(width=number(0)), end),
        "rows.tif": one_page(basic(rows=number(0)), end),
        "past.tif": one_page(basic(offsets=number(2**32 - 1)), end),
        "many-tags.tif": b"II*\0" + struct.pack("<IH", 8, 65535) + end,
        "string.tif": one_page(basic(description=(2, 2**32 - 1, b"\0\0\0\1\0")), end),
        "images.tif": one_page(basic(description=text("ImageJ=1.53\nimages=999999999\nslices=999999999\n")), end),
        "digits.tif": one_page(basic(description=text("ImageJ=1.53\nimages=" + "9" * 5000)), bytes(6000)),
        "planes.tif": one_page(basic(description=ome(f'<Pixels {sizes.format(z=10**9, t=10**9)}/>')), end),
        "blocks.tif": one_page(
            basic(description=ome(f'<Pixels {one}><TiffData PlaneCount="999999999"/></Pixels>')), end
        ),
        "interleaved.tif": one_page(basic(description=ome(f"<Pixels {one}>{channel}</Pixels>")), end),
        "entities.tif": one_page(basic(description=ome("&i;", entity + "]>")), end),
        "deep.tif": one_page(basic(description=text("<OME>" + "<a>" * 20000)), bytes(62000)),
        "shape.tif": one_page(basic(description=text('{"shape": [999999999999, 8, 8], "axes": "ZYX"}')), end),
        "lists.tif": one_page(basic(description=text('{"shape": ' + "[" * 90000)), bytes(95000)),
    }  # fmt: skip
    return files


@pytest.mark.parametrize("name", sorted(fixtures()))
def test_files_cut_short_are_refused(name, tmp_path):
    content = fixtures()[name]
    places = np.unique(np.linspace(0, len(content) - 1, CUTS).astype(int))
    assert len(places) == CUTS
    for place in places:
        (tmp_path / f"{place:08d}-{name}").write_bytes(content[:place])
    (tmp_path / f"whole-{name}").write_bytes(content)
    found = {key: outcome for key, (outcome, seconds) in read_all(tmp_path)["outcomes"].items() if seconds < 5}
    whole = found.pop(f"whole-{name}")
    assert whole.startswith("read") and len(found) == CUTS
    # The last bytes of a TIFF may be padding: a cut there may be read, if it then gives the whole picture.
    assert set(found.values()) <= REFUSED | {whole}, found
    assert sum(outcome == whole for outcome in found.values()) <= 1


@pytest.mark.parametrize("name", sorted(fixtures()))
def test_mutated_headers_are_refused_or_harmless(name, tmp_path):
    content = fixtures()[name]
    rng = np.random.default_rng(1)
    directories = [m for m in range(min(len(content), 1200))] + list(range(max(0, len(content) - 1200), len(content)))
    for index in range(MUTATIONS):
        damaged = bytearray(content)
        for place in rng.choice(directories, rng.integers(1, 4)):
            damaged[place] = rng.choice([0, 1, 127, 128, 255, rng.integers(0, 256)])
        (tmp_path / f"{index:04d}-{name}").write_bytes(damaged)
    found = read_all(tmp_path)
    assert {outcome.split()[0] for outcome, _ in found["outcomes"].values()} <= REFUSED | {"read"}, found["outcomes"]
    assert max(seconds for _, seconds in found["outcomes"].values()) < 5
    assert found["peak"] < 400_000_000


def test_files_made_to_exhaust_are_refused(tmp_path):
    for name, content in hostile().items():
        (tmp_path / name).write_bytes(content)
    found = read_all(tmp_path)
    outcomes = {name: outcome for name, (outcome, _) in found["outcomes"].items()}
    allowed = {"rows.tif", "shape.tif", "lists.tif"}  # harmless: the declared nonsense has no effect on a whole page
    assert {name for name, outcome in outcomes.items() if outcome not in REFUSED} <= allowed, outcomes
    assert max(seconds for _, seconds in found["outcomes"].values()) < 5
    assert found["peak"] < 400_000_000


def test_the_files_that_are_cut_and_mutated_are_good(tmp_path):
    for name, content in fixtures().items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "page.tif").write_bytes(one_page(basic(), bytes(600)))
    outcomes = read_all(tmp_path)["outcomes"]
    assert all(outcome.startswith("read") for outcome, _ in outcomes.values()), outcomes


def test_the_harness_catches_a_reader_that_believes_sizes_or_hangs(tmp_path):
    (tmp_path / "page.tif").write_bytes(one_page(basic(), bytes(600)))
    assert read_all(tmp_path, "trusting")["outcomes"]["page.tif"][0] not in REFUSED
    with pytest.raises(subprocess.TimeoutExpired):
        read_all(tmp_path, "hanging", seconds=5)
