"""FITS in and out: what astropy writes is read alike, what is written astropy reads, and damaged files are refused."""

import gzip
import json
import subprocess
import sys
import warnings

import numpy as np
import pytest

from obverse.errors import FormatError, InputError
from obverse.io import columns, fits

fits_of_astropy = pytest.importorskip("astropy.io.fits")

CUTS, MUTATIONS, MEMORY = 50, 60, 1_500_000_000
REFUSED = {"FormatError", "InputError"}
CHILD = """
import json, resource, sys, time, zlib
from pathlib import Path
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[2]), int(sys.argv[2])))
import numpy
import astropy.io.fits  # whose import is not the time of the first file
from obverse.io import fits
read = {
    "obverse": lambda path: fits.load(path)[0],
    "trusting": lambda path: numpy.ones(1 << 34, numpy.uint8),
}[sys.argv[3]]
outcomes = {}
for path in sorted(Path(sys.argv[1]).iterdir()):
    begun = time.process_time()
    try:
        name = f"read {zlib.crc32(numpy.ascontiguousarray(read(path)))}"
    except BaseException as error:
        name = type(error).__name__
    outcomes[path.name] = [name, time.process_time() - begun]
status = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
print(json.dumps({"outcomes": outcomes, "peak": int(status["VmHWM"].split()[0]) * 1024}))
"""


def read_all(folder, reader="obverse"):
    command = [sys.executable, "-c", CHILD, str(folder), str(MEMORY), reader]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def cube(shape=(4, 9, 11)):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def saved(path, array, extension=False, **cards):
    """The file that astropy writes; with `extension`, behind a table and an empty primary header."""
    header = fits_of_astropy.Header(cards)
    hdus = [fits_of_astropy.PrimaryHDU(None if extension else array, header)]
    if extension:
        column = fits_of_astropy.Column("a", "E", array=np.arange(7.0))
        hdus += [fits_of_astropy.BinTableHDU.from_columns([column]), fits_of_astropy.ImageHDU(array)]
    fits_of_astropy.HDUList(hdus).writeto(path, overwrite=True)
    return path


def card(text):
    return text.ljust(80).encode()


def raw(*cards, data=b""):
    """A FITS file of hand-made cards."""
    text = b"".join(map(card, (*cards, "END")))
    return text.ljust(-(-len(text) // 2880) * 2880) + data.ljust(-(-len(data) // 2880) * 2880, b"\0")


@pytest.mark.parametrize("kind", ["uint8", "int16", "int32", "int64", "float32", "float64", "uint16"])
def test_every_type_is_read_as_astropy_reads_it(tmp_path, kind):
    array = (100 * cube()).astype(kind)
    path = saved(tmp_path / "a.fits", array, OBJECT="beta Pic")
    found, header = fits.load(path)
    np.testing.assert_array_equal(found, array)
    assert found.dtype.isnative and header["OBJECT"] == "beta Pic"


def test_an_extension_behind_a_table_is_found_and_gzip_unpacked(tmp_path):
    path = saved(tmp_path / "a.fits", cube(), extension=True, TELESCOP="VLT")
    found, header = fits.load(path)
    np.testing.assert_array_equal(found, cube())
    assert header["TELESCOP"] == "VLT"
    (tmp_path / "a.fits.gz").write_bytes(gzip.compress(path.read_bytes()))
    np.testing.assert_array_equal(fits.load(tmp_path / "a.fits.gz")[0], cube())


def test_scaled_integers_and_blanks(tmp_path):
    values = np.array([[0, 5], [-7, 99]], ">i2")
    cards = ["SIMPLE  =                    T", "BITPIX  =                   16", "NAXIS   =                    2"]
    cards += ["NAXIS1  =                    2", "NAXIS2  =                    2", "BSCALE  =                  0.5"]
    cards += ["BZERO   =                   10", "BLANK   =                   99"]
    path = tmp_path / "a.fits"
    path.write_bytes(raw(*cards, data=values.tobytes()))
    found = fits.load(path)[0]
    np.testing.assert_array_equal(found, [[10.0, 12.5], [6.5, np.nan]])


def test_a_volume_has_the_axes_asked_for(tmp_path):
    path = saved(tmp_path / "a.fits", cube((1, 4, 9, 11)), BUNIT="adu")
    volume = fits.read(path, {3: "TYX"}, "the cube")
    assert volume.axes == "TYX" and volume.shape == (4, 9, 11) and volume.intensity_unit == "adu"
    with pytest.raises(InputError, match=r"the PSF expects 2 \(Y, X\) axes, got shape \(4, 9, 11\)"):
        fits.read(path, {2: "YX"}, "the PSF")


def test_what_is_written_lies_on_the_sky(tmp_path):
    wcs = pytest.importorskip("astropy.wcs")
    image = cube()[0]
    image[0, 0] = np.nan
    sky = fits.Sky((5.0, 4.0), 0.5, north_up=True, target=(86.8, -51.0))
    path = fits.write(image, tmp_path / "a.fits", sky=sky, unit="adu", cards={"ORIGIN": "test"}, history=["étape"])
    with fits_of_astropy.open(path) as file, warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(file[0].data, image)
        header = file[0].header
        assert header["BUNIT"] == "adu" and header["ORIGIN"] == "test" and "?tape" in str(header["HISTORY"])
        found = wcs.WCS(header)
    np.testing.assert_allclose(found.pixel_to_world_values(5, 4), (86.8, -51.0))
    east, north = found.pixel_to_world_values(4, 4), found.pixel_to_world_values(5, 5)
    np.testing.assert_allclose(east[0] - 86.8, 0.5 / 3600 / np.cos(np.radians(51)), rtol=1e-6)
    np.testing.assert_allclose(north[1] + 51.0, 0.5 / 3600, rtol=1e-6)
    np.testing.assert_array_equal(fits.load(path)[0], image)


def test_without_north_no_coordinates_are_claimed(tmp_path):
    header = fits.load(fits.write(cube()[0], tmp_path / "a.fits", sky=fits.Sky((5.0, 4.0), 0.5)))[1]
    assert header["CTYPE1"] == "LINEAR" and header["CDELT1"] == 0.5 and header["CRPIX1"] == 6.0
    header = fits.load(fits.write(cube()[0], tmp_path / "a.fits", sky=fits.Sky((5.0, 4.0))))[1]
    assert "CTYPE1" not in header and header["CRPIX2"] == 5.0


def damaged_kinds(tmp_path):
    plain = saved(tmp_path / "plain.fits", cube()).read_bytes()
    behind = saved(tmp_path / "behind.fits", cube(), extension=True).read_bytes()
    return {"plain.fits": plain, "behind.fits": behind, "packed.fits.gz": gzip.compress(plain, mtime=0)}


@pytest.mark.parametrize("name", ["plain.fits", "behind.fits", "packed.fits.gz"])
def test_files_cut_short_and_mutated_are_refused(name, tmp_path):
    content = damaged_kinds(tmp_path)[name]
    (tmp_path / "cut").mkdir()
    places = np.unique(np.linspace(0, len(content) - 1, CUTS).astype(int))
    for place in places:
        (tmp_path / "cut" / f"{place:08d}-{name}").write_bytes(content[:place])
    (tmp_path / "cut" / f"whole-{name}").write_bytes(content)
    rng = np.random.default_rng(1)
    for index in range(MUTATIONS):
        changed = bytearray(content)
        for place in rng.integers(0, min(800, len(content)), rng.integers(1, 4)):
            changed[place] = rng.choice([0, 32, 39, 57, 127, 255, rng.integers(0, 256)])
        (tmp_path / "cut" / f"m{index:04d}-{name}").write_bytes(changed)
    answer = read_all(tmp_path / "cut")
    found = {key: outcome for key, (outcome, _) in answer["outcomes"].items()}
    whole = found.pop(f"whole-{name}")
    cut = {key: outcome for key, outcome in found.items() if key[0] != "m"}
    assert whole.startswith("read") and len(cut) == CUTS
    assert set(cut.values()) <= REFUSED | {whole}, cut
    # The last block is padding behind the values, so that a few cuts leave them whole.
    assert sum(outcome in REFUSED for outcome in cut.values()) >= 0.7 * CUTS
    assert {outcome.split()[0] for outcome in found.values()} <= REFUSED | {"read"}, found
    assert max(seconds for _, seconds in answer["outcomes"].values()) < 5 and answer["peak"] < 400_000_000


def hostile():
    start = ["SIMPLE  =                    T", "BITPIX  =                  -32"]
    axes = ["NAXIS   =                    2", "NAXIS1  =           2000000000", "NAXIS2  =           2000000000"]
    table = ["XTENSION= 'BINTABLE'", "BITPIX  =                    8", *axes, "PCOUNT  =  9000000000000000000"]
    line = ["NAXIS   =                    1", "NAXIS1  =             60000000"]
    empty = raw(*start, "NAXIS   =                    0")
    return {
        "huge.fits": raw(*start, *axes, data=b"1234"),
        "huge.fits.gz": gzip.compress(raw(*start, *axes, data=b"1234")),
        "axes.fits": raw(*start, "NAXIS   =            999999999"),
        "negative.fits": raw(*start, "NAXIS   =                    1", "NAXIS1  =                   -5"),
        "word.fits": raw(*start, "NAXIS   = 'many'"),
        "bits.fits": raw(start[0], "BITPIX  =                   12", "NAXIS   =                    0"),
        "table.fits": empty + raw(*table),
        "empty.fits": b"",
        "nothing.fits": empty,
        "endless.fits": card("SIMPLE  =                    T") + b" " * 20_000_000,
        "endless.fits.gz": gzip.compress(card("SIMPLE  =                    T") + b" " * 50_000_000),
        "bomb.fits.gz": gzip.compress(raw(*start, *line) + bytes(240_000_000)),
        "picture.fits": b"\x89PNG" + bytes(9000),
    }  # fmt: skip


def test_files_made_to_exhaust_are_refused(tmp_path):
    for name, content in hostile().items():
        (tmp_path / name).write_bytes(content)
    answer = read_all(tmp_path)
    assert {outcome for outcome, _ in answer["outcomes"].values()} <= REFUSED, answer["outcomes"]
    assert max(seconds for _, seconds in answer["outcomes"].values()) < 5 and answer["peak"] < 400_000_000
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "a.fits").write_bytes(hostile()["nothing.fits"])
    trusting = read_all(tmp_path / "one", "trusting")["outcomes"]["a.fits"][0]
    assert trusting not in REFUSED  # the harness catches a reader that believes sizes


def test_numbers_from_fits_text_and_csv(tmp_path):
    angles = np.array([-14.25, 0.0, 33.5])
    saved(tmp_path / "a.fits", angles[:, None])
    (tmp_path / "a.txt").write_text("# angles\n-14.25\n0.0\n\n33.5\n")
    (tmp_path / "a.csv").write_text("angle;\n-14.25;\n0;\n33.5;\n")
    for name in ("a.fits", "a.txt", "a.csv"):
        np.testing.assert_array_equal(columns.numbers(tmp_path / name, 1, "the angles"), angles)
    (tmp_path / "b.csv").write_text("r,t\n1,0.5\n2,0.75\n")
    np.testing.assert_array_equal(columns.numbers(tmp_path / "b.csv", 2, "it"), [[1, 0.5], [2, 0.75]])
    for content, error in (
        ("1\ntwo\n3\n4\n", FormatError),
        ("1 2\n", InputError),
        ("", InputError),
        ("nan\n", FormatError),
    ):
        (tmp_path / "c.txt").write_text(content.replace("two", "x"))
        with pytest.raises(error):
            columns.numbers(tmp_path / "c.txt", 1, "the angles")
    (tmp_path / "d.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FormatError, match="other bytes"):
        columns.numbers(tmp_path / "d.txt", 1, "the angles")


def test_a_table_comes_back_with_units_and_metadata(tmp_path):
    table = pytest.importorskip("astropy.table")
    path = columns.write_ecsv(tmp_path / "a.ecsv", {"x": [1.5], "name": ["b"]}, {"x": "pix"}, {"centre": [50.0, 50.0]})
    found = table.Table.read(path, format="ascii.ecsv")
    assert found["x"].unit == "pix" and found["x"][0] == 1.5 and found.meta["centre"] == [50.0, 50.0]
    empty = columns.write_ecsv(tmp_path / "b.ecsv", {"x": []}, {"x": "pix"}, {})
    assert len(table.Table.read(empty, format="ascii.ecsv")) == 0
