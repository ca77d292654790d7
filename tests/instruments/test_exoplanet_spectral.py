"""A simulated sequence through several wavelengths, from FITS files to spectra and a report; and wrong files."""

import numpy as np
import pytest

from obverse.errors import InputError
from obverse.instruments import exoplanet
from obverse.instruments.exoplanet_simulation import Planet, simulated_sequence

fits_of_astropy = pytest.importorskip("astropy.io.fits")

WAVELENGTHS = (1.0, 1.15, 1.3, 1.45)
RED = Planet(32.4, 21.0, (2e-5, 3e-5, 6e-5, 8e-5))
BLUE = Planet(9.2, 13.1, (9e-5, 6e-5, 3e-5, 2e-5))


def save(path, array, **cards):
    header = fits_of_astropy.Header(cards)
    fits_of_astropy.PrimaryHDU(np.asarray(array, np.float32), header).writeto(path, overwrite=True)
    return path


@pytest.fixture(scope="module")
def made():
    return simulated_sequence([RED, BLUE], wavelengths=WAVELENGTHS, frames=16, size=41, arc=70.0)


@pytest.fixture
def files(made, tmp_path):
    paths = {"cube": save(tmp_path / "cube.fits", made.cube), "psf": save(tmp_path / "psf.fits", made.psf)}
    for name, values in (("angles", made.degrees), ("wavelengths", made.wavelengths)):
        paths[name] = tmp_path / f"{name}.txt"
        np.savetxt(paths[name], values)
    return paths


def settings(files, **changes):
    chosen = {name: files[name] for name in ("angles", "psf", "wavelengths")} | changes
    return exoplanet.Settings(**chosen)


def test_from_files_to_spectra_and_a_report(obverse, files, tmp_path):
    tables = pytest.importorskip("astropy.table")
    arguments = (files["cube"], "--instrument", "exoplanet", "--angles", files["angles"], "--psf", files["psf"])
    arguments += ("--set", f"wavelengths={files['wavelengths']}", "--set", "star_flux=psf")
    checked = obverse("check", *arguments)
    assert checked.code == 0 and "4 wavelengths from 1 to 1.45 µm" in checked.stdout, checked.stderr
    done = obverse("reconstruct", *arguments, "-o", tmp_path / "out", "--json")
    assert done.code == 0, done.stderr
    found = done.answer["candidates"][:2]
    for planet in (RED, BLUE):
        near = [c for c in found if np.hypot(c["x"] - planet.x, c["y"] - planet.y) < 0.5]
        assert len(near) == 1
        pulls = [(e["contrast"] - c) / e["contrast_std"] for e, c in zip(near[0]["spectrum"], planet.contrast)]
        assert max(map(abs, pulls)) < 4, "of eight channels, two of which see next to nothing"
        slope = near[0]["spectrum"][3]["contrast"] - near[0]["spectrum"][0]["contrast"]
        assert np.sign(slope) == (1 if planet is RED else -1)
    table = tables.Table.read(tmp_path / "out" / "spectra.ecsv", format="ascii.ecsv")
    assert len(table) % 4 == 0 and table["wavelength"].unit == "um"
    assert table["flux"][0] == pytest.approx(found[0]["spectrum"][0]["flux"])
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Spectrum of candidate a" in page


def searched(files, **changes):
    chosen = settings(files, **changes)
    volume = exoplanet.read(files["cube"], chosen)
    measurement = exoplanet.measure(volume, chosen)
    search = exoplanet.method(measurement, chosen)
    return type(search).__name__, *exoplanet.answer(search(measurement.y, measurement.problem), measurement)


def test_a_library_of_spectra_tells_the_planets_apart(files, tmp_path):
    rows = {"red": "2, 3, 6, 8", "blue": "9, 6, 3, 2", "both": "2, 3, 6, 8\n9, 6, 3, 2"}
    answers = {}
    for name, text in rows.items():
        library = tmp_path / f"{name}.csv"
        library.write_text(text + "\n")
        answers[name] = searched(files, spectra=library)[2]["candidates"]

    def snr(answer, planet):
        return max(c["snr"] for c in answer if np.hypot(c["x"] - planet.x, c["y"] - planet.y) < 1)

    for planet, right, wrong in ((RED, "red", "blue"), (BLUE, "blue", "red")):
        best, worse = snr(answers[right], planet), snr(answers[wrong], planet)
        assert best > 1.1 * worse
        assert worse < snr(answers["both"], planet) < best, "of two the better one, less what the choice costs"


def test_each_channel_by_itself_shows_them_too(files):
    search, _, figures = searched(files, joint_channels=False)
    assert search == "PACO"
    for planet in (RED, BLUE):
        assert any(np.hypot(c["x"] - planet.x, c["y"] - planet.y) < 1 for c in figures["candidates"])


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("angles", lambda v: v[:-1], "one angle for each of its 16 frames, got 15"),
        ("wavelengths", lambda v: v[:-1], "one wavelength for each of its channels, 4, got 3"),
        ("wavelengths", lambda v: 1000 * v, "wavelengths in µm"),
        ("wavelengths", lambda v: 1e-6 * v, "wavelengths in µm"),
        ("wavelengths", lambda v: v[::-1], "wavelengths that rise"),
        ("wavelengths", lambda v: [1.0, 1.2, 1.2, 1.3], "wavelengths that rise"),
        ("wavelengths", lambda v: [1.0, np.nan, 1.2, 1.3], "finite numbers"),
        ("psf", lambda v: v[:3], "one picture for each of the 4 wavelengths of the sequence, got 3"),
        ("psf", lambda v: v[0], "a PSF for each"),
        ("psf", lambda v: np.pad(v, ((0, 0), (40, 40), (40, 40))), "no larger than the frames"),
        ("psf", lambda v: np.repeat(np.repeat(v, 5, 1), 5, 2)[:, :41, :41], "FWHM of 1.5 pixels"),
        ("cube", lambda v: v[:1], "one picture for each of the 1 wavelengths|one wavelength for each"),
        ("cube", lambda v: v.swapaxes(0, 1), "one angle for each of its 4 frames"),
        ("cube", lambda v: v[:, :, :12, :12], "at least 16×16"),
        ("cube", lambda v: np.full_like(v, np.nan), "at least 4 frames"),
    ],
)
def test_files_that_do_not_fit_are_told_in_a_sentence(obverse, made, files, name, change, told):
    source = {"angles": made.degrees, "wavelengths": made.wavelengths, "psf": made.psf, "cube": made.cube}[name]
    changed = np.asarray(change(source.numpy()))
    (np.savetxt if name in ("angles", "wavelengths") else save)(files[name], changed)
    chosen = settings(files)
    with pytest.raises(Exception, match=told) as raised:
        exoplanet.characterise(exoplanet.read(files["cube"], chosen), chosen)
    assert isinstance(raised.value, InputError) or type(raised.value).__name__ == "FormatError"
    assert str(raised.value).count(". ") == 0, "one sentence"


def test_several_wavelengths_need_their_list_and_one_needs_no_spectra(files, made, tmp_path):
    volume = exoplanet.read(files["cube"], settings(files))
    with pytest.raises(InputError, match="pass --set wavelengths=FILE"):
        exoplanet.characterise(volume, settings(files, wavelengths=None))
    library = tmp_path / "library.txt"
    facts = {"channels": 4, "psf_flux": [1.0] * 4}
    for text, told in (("1 2 3\n", "4 number"), ("0 0 0 0\n", "one above it"), ("1 1 1 -1\n", "at least zero")):
        library.write_text(text)
        with pytest.raises(InputError, match=told):
            exoplanet.library_of(settings(files, spectra=library), facts)
    with pytest.raises(InputError, match="several wavelengths, got one"):
        exoplanet.library_of(settings(files, spectra=library), facts | {"channels": 1})


def test_a_psf_in_another_order_of_channels_is_noticed(files, made):
    assert not any("same order" in note for note in facts_of(files)["warnings"])
    save(files["psf"], made.psf.flip(0))
    assert any("same order" in note for note in facts_of(files)["warnings"])


def facts_of(files, **changes):
    chosen = settings(files, **changes)
    return exoplanet.characterise(exoplanet.read(files["cube"], chosen), chosen)


def test_wrong_signs_even_sides_and_borders_without_values(files, made):
    np.savetxt(files["angles"], -made.degrees)
    assert facts_of(files)["sign"]["inferred"] == -1 and facts_of(files, angle_sign=-1)["sign"]["inferred"] == 1
    planet = Planet(31.0, 21.0, (1e-4,) * 4)
    even = simulated_sequence([planet], wavelengths=WAVELENGTHS, frames=12, size=40, arc=70.0)
    cube = even.cube.clone()
    cube[..., :2, :] = np.nan
    save(files["cube"], cube)
    np.savetxt(files["angles"], even.degrees)
    chosen = settings(files)
    volume = exoplanet.read(files["cube"], chosen)
    measurement = exoplanet.measure(volume, chosen)
    result = exoplanet.method(measurement, chosen)(measurement.y, measurement.problem)
    arrays, figures = exoplanet.answer(result, measurement)
    assert measurement.facts["centre"] == [19.5, 19.5] and np.isnan(arrays["snr"][0, 0, :8]).all()
    found = figures["candidates"][0]
    assert np.hypot(found["x"] - planet.x, found["y"] - planet.y) < 0.5
