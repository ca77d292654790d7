"""A simulated sequence of frames, from FITS files to candidates, maps and tables; and ways in which one is wrong."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from obverse.errors import InputError
from obverse.instruments import exoplanet
from obverse.operators import FieldRotation

fits_of_astropy = pytest.importorskip("astropy.io.fits")

FRAMES, SIZE, WIDTH = 24, 41, 3.5
FLUX, PLACE = 60.0, (29.3, 25.6)  # (x, y)


def gaussian(side=15, width=WIDTH, at=(0.0, 0.0)):
    y, x = np.mgrid[:side, :side] - side // 2
    return np.exp(-4 * np.log(2) * ((x - at[0]) ** 2 + (y - at[1]) ** 2) / width**2)


def angles(count=FRAMES, total=70.0):
    return np.linspace(-20.0, total - 20.0, count)


def sequence(size=SIZE, centre=None, flux=FLUX, place=PLACE, seed=0, channels=1):
    """Quasi-static speckles with a halo about the star, white noise, and one planet of `flux` within one FWHM."""
    rng = np.random.default_rng(seed)
    middle = ((size - 1) / 2,) * 2 if centre is None else centre
    y, x = np.mgrid[:size, :size]
    halo = 400 * np.exp(-np.hypot(y - middle[0], x - middle[1]) / 5)
    psf = torch.from_numpy(gaussian())
    core = FieldRotation((1, size, size), [0.0], psf, dtype=torch.float64)
    speckles = [core(torch.from_numpy(rng.normal(size=(1, size, size))))[0].numpy() for _ in range(3)]
    weights = 1 + 0.3 * rng.normal(size=(FRAMES, 3))
    frames = halo + 0.02 * halo * np.einsum("tk,kyx->tyx", weights, np.array(speckles))
    frames = frames + rng.normal(size=(FRAMES, size, size))
    from obverse.instruments.exoplanet_psf import prepare

    unit = torch.from_numpy(prepare(gaussian(), (size, size)).values)
    planet = FieldRotation((1, size, size), angles().tolist(), unit, centre=middle, dtype=torch.float64)
    frames = frames + planet.source((place[1], place[0]), flux).numpy()
    return frames.astype(np.float32) if channels == 1 else np.stack([frames] * channels).astype(np.float32)


def save(path, array, **cards):
    fits_of_astropy.PrimaryHDU(np.asarray(array, np.float32), fits_of_astropy.Header(cards)).writeto(
        path, overwrite=True
    )
    return path


@pytest.fixture
def files(tmp_path):
    made = {"cube": save(tmp_path / "cube.fits", sequence(), PIXSCALE=0.0272, OBJECT="a star")}
    made |= {"angles": tmp_path / "angles.txt", "psf": save(tmp_path / "psf.fits", 1000 * gaussian())}
    np.savetxt(made["angles"], angles())
    return made


def settings(files, **changes):
    return exoplanet.Settings(angles=files["angles"], psf=files["psf"], **changes)


def searched(files, **changes):
    chosen = settings(files, **changes)
    volume = exoplanet.read(files["cube"], chosen)
    measurement = exoplanet.measure(volume, chosen, exoplanet.characterise(volume, chosen))
    result = exoplanet.method(measurement, chosen)(measurement.y, measurement.problem)
    return measurement, *exoplanet.answer(result, measurement)


def test_a_planet_is_found_where_it_is_with_its_flux(files):
    measurement, arrays, figures = searched(files, star_flux=1e6)
    found = figures["candidates"][0]
    assert np.hypot(found["x"] - PLACE[0], found["y"] - PLACE[1]) < 0.5
    assert abs(found["flux"] - FLUX) < 5 * found["flux_std"] and found["flux_std"] < 0.2 * FLUX
    assert abs(found["x"] - PLACE[0]) < 5 * found["x_std"] and abs(found["y"] - PLACE[1]) < 5 * found["y_std"]
    assert found["contrast"] == pytest.approx(found["flux"] / 1e6)
    assert found["separation_mas"] == pytest.approx(27.2 * np.hypot(found["x"] - 20, found["y"] - 20))
    assert "pa" not in found, "North is not known"
    assert 0.8 < figures["snr_std_off_sources"] < 1.2
    assert measurement.facts["sign"]["inferred"] == 1
    assert np.isnan(arrays["snr"][0, 20, 20]) and arrays["snr"].shape == (1, SIZE, SIZE)


@pytest.mark.parametrize("method", ["pca", "llsg", "median-adi"])
def test_the_classical_methods_find_it_too(files, method):
    _, arrays, figures = searched(files, method=method, components=3, threshold=4.0)
    found = figures["candidates"][0]
    assert np.hypot(found["x"] - PLACE[0], found["y"] - PLACE[1]) < 1.5
    assert found["flux"] < FLUX, "a part of the source is subtracted, and the answer does not hide that"
    assert np.isfinite(arrays["contrast"]).any()


@pytest.mark.parametrize("method", ["paco", "fmmf", "pca", "llsg", "median-adi"])
def test_every_method_runs_as_the_command_line_runs_it(files, method):
    chosen = settings(files, method=method, components=3)
    volume = exoplanet.read(files["cube"], chosen)
    measurement = exoplanet.measure(volume, chosen, exoplanet.characterise(volume, chosen))
    search = exoplanet.method(measurement, chosen)
    found = search(measurement.y, measurement.problem, callback=lambda *told: None)
    assert found.status.converged and exoplanet.describe(search)


def test_a_psf_in_other_units_than_the_frames_is_noticed(files):
    volume = exoplanet.read(files["cube"], settings(files))
    for brightness, wrong in ((1e-6, True), (1e6, False)):
        scaled = dataclasses.replace(volume, array=volume.array * brightness)
        told = exoplanet.characterise(scaled, settings(files, star_flux="psf"))["warnings"]
        assert any("not in the frames' units" in note for note in told) != wrong


def test_north_turns_the_picture_and_gives_position_angles(files):
    _, _, figures = searched(files, north_offset=30.0)
    found = figures["candidates"][0]
    theta = np.degrees(np.arctan2(PLACE[1] - 20, PLACE[0] - 20)) + 30
    assert found["theta"] == pytest.approx(theta, abs=1.5)
    assert found["pa"] == pytest.approx((theta - 90) % 360, abs=1.5)


def test_wrong_signs_are_noticed_and_can_be_turned_round(files):
    np.savetxt(files["angles"], -angles())
    wrong = exoplanet.characterise(exoplanet.read(files["cube"], settings(files)), settings(files))
    assert wrong["sign"]["inferred"] == -1 and any("angle_sign=-1" in note for note in wrong["warnings"])
    turned = settings(files, angle_sign=-1)
    right = exoplanet.characterise(exoplanet.read(files["cube"], turned), turned)
    assert right["sign"]["inferred"] == 1 and not any("angle_sign" in note for note in right["warnings"])


def test_without_a_source_the_sign_is_not_told(files):
    save(files["cube"], sequence(flux=0.0))
    facts = exoplanet.characterise(exoplanet.read(files["cube"], settings(files)), settings(files))
    assert facts["sign"]["inferred"] == 0 and "cannot be told" in facts["sign"]["verdict"]


@pytest.mark.parametrize("centre", [(19.5, 19.5), (20.0, 20.0)])
def test_frames_of_even_sides(files, centre):
    place = (28.0, 24.0)
    save(files["cube"], sequence(40, centre, place=place))
    measurement, _, figures = searched(files)
    told = any("most symmetric about" in note and "n/2" in note for note in measurement.warnings)
    if centre == (19.5, 19.5):
        assert not told
        assert np.hypot(figures["candidates"][0]["x"] - place[0], figures["candidates"][0]["y"] - place[1]) < 0.5
        return
    assert told
    for given in (centre[::-1], "measured"):
        again, _, figures = searched(files, centre=given)
        assert not any("symmetric" in note for note in again.warnings)
        assert again.facts["centre"] == pytest.approx([20.0, 20.0], abs=0.3)
        assert np.hypot(figures["candidates"][0]["x"] - place[0], figures["candidates"][0]["y"] - place[1]) < 0.5


@pytest.mark.parametrize("method", ["paco", "pca"])
def test_borders_without_values_are_left_out(files, method):
    cube = sequence()
    y, x = np.mgrid[:SIZE, :SIZE]
    outside = np.hypot(y - 20, x - 20) > 17
    cube[:, outside] = np.nan
    cube[3, 12, 12] = np.nan
    save(files["cube"], cube)
    _, arrays, figures = searched(files, method=method, components=3)
    assert np.isnan(arrays["snr"][0][outside]).all()
    found = figures["candidates"][0]
    assert np.hypot(found["x"] - PLACE[0], found["y"] - PLACE[1]) < (0.5 if method == "paco" else 1.5)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda f: np.savetxt(f["angles"], angles()[:-1]), "one angle for each of its 24 frames, got 23"),
        (lambda f: np.savetxt(f["angles"], np.zeros(FRAMES)), "angles that change"),
        (lambda f: save(f["psf"], gaussian(5, 0.8)), "FWHM of 1.5 pixels"),
        (lambda f: save(f["psf"], gaussian(61, 20.0)), "FWHM of 1.5 pixels"),
        (lambda f: save(f["psf"], -gaussian()), "positive peak"),
        (lambda f: save(f["psf"], gaussian(15, WIDTH, (7.0, 0.0))), "within its picture"),
        (lambda f: save(f["psf"], np.full((9, 9), np.nan)), "finite values"),
        (lambda f: save(f["psf"], np.stack([gaussian()] * 3)), "one picture for each of the 1 wavelengths"),
        (lambda f: save(f["cube"], sequence()[0]), "expects 3"),
        (lambda f: save(f["cube"], np.zeros((FRAMES, SIZE, SIZE))), "at least 4 frames"),
        (lambda f: save(f["cube"], sequence(channels=2)), "PSF for each|one picture"),
    ],
)
def test_what_does_not_fit_is_said_in_a_sentence(files, change, told):
    change(files)
    with pytest.raises(InputError, match=told):
        exoplanet.characterise(exoplanet.read(files["cube"], settings(files)), settings(files))


def test_missing_files_are_asked_for(files):
    volume = exoplanet.read(files["cube"], settings(files))
    with pytest.raises(InputError, match="--angles"):
        exoplanet.characterise(volume, exoplanet.Settings(psf=files["psf"]))
    with pytest.raises(InputError, match="--psf"):
        exoplanet.characterise(volume, exoplanet.Settings(angles=files["angles"]))


def test_the_command_writes_maps_tables_and_a_report(obverse, files, tmp_path):
    tables = pytest.importorskip("astropy.table")
    command = (
        "reconstruct",
        files["cube"],
        "--instrument",
        "exoplanet",
        "--angles",
        files["angles"],
        "--psf",
        files["psf"],
    )
    done = obverse(*command, "-o", tmp_path / "out", "--set", "north_offset=0", "--set", "star_flux=psf", "--json")
    assert done.code == 0, done.stderr
    found = done.answer["candidates"][0]
    assert {"x", "y", "snr", "flux", "pa", "contrast"} <= set(found)
    out = tmp_path / "out"
    names = {"snr.fits", "flux.fits", "sigma.fits", "contrast.fits", "candidates.ecsv", "contrast_curve.ecsv"}
    names |= {"estimate.safetensors", "measurement.safetensors", "report.html", "run.json"}
    assert {path.name for path in out.iterdir()} == names
    with fits_of_astropy.open(out / "snr.fits") as opened:
        assert opened[0].header["CTYPE1"] == "RA---TAN" and opened[0].header["CRPIX1"] == 21.0
        row, column = round(found["y"]), round(found["x"])
        assert opened[0].data[row - 1 : row + 2, column - 1 : column + 2].max() == pytest.approx(found["snr"], rel=1e-4)
    table = tables.Table.read(out / "candidates.ecsv", format="ascii.ecsv")
    assert table["x"][0] == pytest.approx(found["x"]) and table["cov_flux_flux"][0] == pytest.approx(
        found["flux_std"] ** 2
    )
    assert set(json.loads((out / "run.json").read_text())["outputs"]) == names - {"report.html", "run.json"}
    page = (out / "report.html").read_text()
    assert "Candidates" in page and "What would have been found" in page and "East of North" in page
    again = obverse(*command, "-o", out)
    assert again.code == 2 and "finished run" in again.stderr
    checked = obverse("check", *command[1:])
    assert checked.code == 0 and "Sign of the angles confirmed" in checked.stdout


def test_draws_and_corrected_limits_come_on_request(files, tmp_path):
    measurement, arrays, figures = searched(files, star_flux=1e6, posterior_draws=12, corrected_limits=True)
    (found,), draws = figures["candidates"], arrays["candidate_draws"]
    assert draws.shape == (48, 4) and bool((draws[:, 0] == 0).all())
    for name, column in (("flux", 1), ("x", 2), ("y", 3)):
        assert found[f"{name}_q025"] < found[f"{name}_q16"] < found[f"{name}_q50"] < found[f"{name}_q84"]
        assert abs(found[f"{name}_q50"] - found[name]) < 2 * found[f"{name}_std"]
        assert found[f"{name}_q50"] == pytest.approx(float(np.median(draws[:, column])), rel=1e-5)
    assert found["contrast_q84"] == pytest.approx(found["flux_q84"] / 1e6)
    share = arrays["curve_throughput"]
    assert share.shape == arrays["curve_limit"].shape and 0.1 < share.min() and share.max() < 1.05
    _, plain, _ = searched(files, star_flux=1e6)
    few = arrays["curve_limit_student"] / arrays["curve_limit"]
    common = np.isin(plain["curve_separation"], arrays["curve_separation"])
    penalty = (plain["curve_limit_student"] / plain["curve_limit"])[common]
    assert np.isfinite(few[-1]) and bool((few[np.isfinite(few)] > penalty[np.isfinite(few)]).all()), (
        "brighter, less left"
    )
    assert np.allclose(arrays["curve_limit"] * share, plain["curve_limit"][common], rtol=1e-5)
    exoplanet.export(tmp_path, measurement.volume, arrays, None, figures, measurement.facts)
    table = (tmp_path / "candidate_posterior.ecsv").read_text()
    assert "separation_mas" in table and table.count("\n") > 48
    assert "of the source itself" in (tmp_path / "contrast_curve.ecsv").read_text()


@pytest.mark.parametrize("changes", [{"method": "pca", "posterior_draws": 8}])
def test_draws_are_refused_where_there_is_no_law_to_draw_from(files, changes):
    with pytest.raises(InputError, match="posterior_draws"):
        searched(files, components=3, **changes)


def test_too_few_draws_are_said_and_not_left_out(files):
    with pytest.raises(InputError, match="at least 4 draws"):
        searched(files, posterior_draws=2)


def test_limits_of_a_subtraction_are_corrected_too(files):
    _, arrays, _ = searched(files, method="median-adi", corrected_limits=True)
    assert len(arrays["curve_throughput"]) > 3 and 0.05 < arrays["curve_throughput"].min() < 1
