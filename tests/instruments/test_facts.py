"""What a micrograph's facts say and warn of: channels, saturation, unused settings, missing optics, shared figures."""

from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from obverse.errors import InputError
from obverse.instruments import microscopy
from obverse.instruments.characterisation import saturated
from obverse.solvers.result import Status
from obverse.volume import Volume

OPTICS: dict[str, Any] = {"numerical_aperture": 1.3, "wavelength_nm": 525.0, "refractive_index": 1.515}
CAMERA: dict[str, Any] = {"gain": 1.0, "read_noise": 3.0}


def picture(channels=0, metadata=None, seed=0):
    """Blurred spots with Poisson and read noise, whole counts, one channel or several."""
    rng = np.random.default_rng(seed)
    shape = (max(channels, 1), 48, 56)
    spots = 20000.0 * (rng.random(shape) > 0.99)
    mean = ndimage.gaussian_filter(spots, (0, 2, 2))
    counts = (100 + rng.poisson(mean) + rng.normal(0, 3, shape)).round().clip(0).astype(np.uint16)
    if not channels:
        return Volume(counts[0], "YX", (65.0, 65.0), ("nm", "nm"))
    return Volume(counts, "CYX", (None, 65.0, 65.0), (None, "nm", "nm"), metadata=metadata or {})


def warnings(volume, **settings):
    return " ".join(microscopy.characterise(volume, microscopy.Settings(**CAMERA, **settings))["warnings"])


def test_channels_that_share_one_computed_psf_are_warned_of(files):
    assert "2 channels share one PSF" in warnings(picture(2), **OPTICS)
    same = {"channels": [{"emission_nm": 525.0}, {"emission_nm": 525.0}]}
    assert "channels" not in warnings(picture(2, same), **OPTICS)
    assert "channels" not in warnings(picture(), **OPTICS)
    assert "channels share" not in warnings(picture(2), psf=files["psf2d"])


def test_saturated_pixels_are_counted_and_others_are_not():
    volume = picture()
    assert saturated(volume.image()) == 0 and "saturated" not in warnings(volume, **OPTICS)
    limit = int(np.quantile(volume.array, 0.97))
    cut = Volume(np.minimum(volume.array, limit), "YX", volume.spacing, volume.units)
    clipped = int((volume.array >= limit).sum())
    assert saturated(cut.image()) == clipped and f"{clipped} pixels" in warnings(cut, **OPTICS)
    assert saturated(cut.image().astype(float)) == clipped
    full = volume.array.copy()
    full[3, 4] = 65535
    assert saturated(full[None]) == 1


def test_few_counts_are_not_taken_for_saturation():
    for mean in (0.5, 2.0, 8.0):
        assert saturated(np.random.default_rng(0).poisson(mean, (1, 128, 128)).astype(np.uint16)) == 0


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"method": "richardson-lucy", "probes": 64, "weight": 2.0}, ["probes", "weight"]),
        ({"method": "laplace", "samples": 200}, ["samples"]),
        ({"method": "gaussian", "smoothing": 0.1}, ["smoothing"]),
        ({"method": "langevin", "iterations": 9}, ["iterations"]),
        ({"method": "map", "rank": 3}, ["rank"]),
        ({"excitation_nm": 488.0}, ["excitation_nm"]),
    ],
)
def test_settings_without_effect_are_named(settings, named):
    assert sorted(microscopy.unused(microscopy.Settings(**OPTICS, **settings))) == named
    sentence = warnings(picture(), **OPTICS, **settings)
    assert "no effect" in sentence and all(name in sentence for name in named)


def test_settings_with_an_effect_are_not():
    assert "no effect" not in warnings(picture(), **OPTICS, weight=2.0, probes=64, rank=3, iterations=30)
    assert microscopy.unused(microscopy.Settings(modality="confocal", excitation_nm=488.0)) == []
    # A file of settings repeats defaults; these were not chosen.
    assert microscopy.unused(microscopy.Settings(method="richardson-lucy", samples=1000, weight="auto")) == []
    assert microscopy.unused(microscopy.Settings(psf="psf.tif", wavelength_nm=500.0)) == ["wavelength_nm"]


def test_all_missing_optics_are_asked_for_at_once():
    stack = Volume(np.stack([picture().array] * 4), "ZYX")
    with pytest.raises(InputError) as refused:
        microscopy.characterise(stack, microscopy.Settings())
    for name in ("numerical_aperture", "wavelength_nm", "pixel_size_nm", "z_step_nm"):
        assert f"--set {name}=" in str(refused.value)
    with pytest.raises(InputError) as refused:
        microscopy.characterise(picture(), microscopy.Settings(wavelength_nm=525.0))
    assert "numerical_aperture=" in str(refused.value) and "z_step_nm" not in str(refused.value)


def test_channels_of_several_colours_are_said_to_be_so():
    two = {"channels": [{"emission_nm": 525.0}, {"emission_nm": 610.0}]}
    with pytest.raises(InputError, match="525, 610 nm: choose one with channel"):
        microscopy.characterise(picture(2, two), microscopy.Settings(numerical_aperture=1.3))


@pytest.mark.parametrize("method", ["gaussian", "richardson-lucy"])
def test_tiles_share_the_mean_and_the_gain_of_the_whole(method):
    volume = picture()
    settings = microscopy.Settings(**OPTICS, method=method, gain=0.0, read_noise=5.0)
    whole = microscopy.measure(volume, settings)
    tiles = [
        microscopy.measure(volume.cropped((slice(None), slice(a, a + 24), slice(0, 56))), settings, whole.facts)
        for a in (0, 24)
    ]
    assert abs(tiles[0].volume.array.mean() - tiles[1].volume.array.mean()) > 1  # each alone would find another
    if method == "gaussian":
        means = {float(microscopy.method(m, settings).prior.mean) for m in (whole, *tiles)}
    else:
        means = {m.problem.noise.gain for m in (whole, *tiles)}
    assert len(means) == 1


def test_few_photons_are_warned_of_once_and_for_the_whole():
    volume = Volume(np.random.default_rng(0).poisson(3.0, (48, 56)).astype(np.uint16), "YX", (65.0, 65.0), ("nm", "nm"))
    settings = microscopy.Settings(**OPTICS, gain=1.0, read_noise=0.3)
    facts = microscopy.characterise(volume, settings)
    assert sum("photons fell" in sentence for sentence in facts["warnings"]) == 1
    part = volume.cropped((slice(None), slice(0, 20), slice(0, 56)))
    assert microscopy.measure(part, settings, facts).warnings == tuple(facts["warnings"])


def test_richardson_lucy_without_counts_keeps_the_true_noise():
    settings = microscopy.Settings(**OPTICS, method="richardson-lucy", gain=0.0, read_noise=5.0)
    measurement = microscopy.measure(picture(), settings)
    assert measurement.noise is not None
    assert float(measurement.noise.sigma) * measurement.scale == pytest.approx(5.0)
    counted = microscopy.measure(picture(), settings.model_copy(update={"gain": 1.0}))
    assert counted.noise is None


def test_a_part_leads_back_to_its_own_counts():
    measurement = microscopy.measure(picture(), microscopy.Settings(**OPTICS, **CAMERA))
    part = measurement.narrowed((slice(None), slice(5, 20), slice(8, 40)))
    restored = microscopy.restore(measurement.y, part)
    np.testing.assert_allclose(restored.array, picture().array[5:20, 8:40], rtol=1e-4)


def test_the_summary_is_a_short_list_with_sources():
    facts = microscopy.characterise(picture(), microscopy.Settings(**OPTICS, gain=1.0))
    told = microscopy.summary(facts)
    assert told["voxel size"] == "YX 65 nm (file)" and told["gain"] == "1 counts per photon (given)"
    assert "NA 1.3" in told["PSF"] and "darkest" in told["background"] and "given" not in told["read noise"]
    assert all(len(line) < 120 and "\n" not in line for line in told.values())


def test_advice_is_in_terms_of_settings():
    told = microscopy.explained(Status(False, "max-iterations", "9 iterations left 1; raise max_iterations")).message
    assert told == "9 iterations left 1; raise iterations"
    done = Status(True, "converged", "optimal; max_iterations")
    assert microscopy.explained(done) is done
