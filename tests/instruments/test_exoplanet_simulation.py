"""Simulated frames through several wavelengths: what is known of them in closed form."""

import math

import pytest
import torch

from obverse.errors import InputError
from obverse.instruments.exoplanet_simulation import Planet, simulated_sequence
from obverse.operators.full_width import full_width_at_half_maximum


def quiet(**changes):
    return simulated_sequence(wavelengths=(1.0, 1.25), frames=2, size=51, read_noise=0.0, star=1e12, **changes)


def test_the_psf_is_as_wide_as_the_wavelength_and_holds_the_stars_light():
    psf = quiet().psf
    widths = [full_width_at_half_maximum(plane) for plane in psf]
    assert widths[1] / widths[0] == pytest.approx(1.25, rel=0.02)
    assert widths[0] == pytest.approx(1.02 * 2.5, rel=0.03)  # λ/D, a little less with an obstruction
    assert psf.sum((1, 2)).tolist() == pytest.approx([1e12] * 2, rel=0.06) and float(psf.sum((1, 2)).max()) < 1e12


def scaled(image, factor):
    """An image with all distances from its middle multiplied by `factor`."""
    grid = torch.nn.functional.affine_grid(torch.eye(2, 3)[None].double() / factor, [1, 1, *image.shape], True)
    return torch.nn.functional.grid_sample(image[None, None], grid, "bicubic", align_corners=True)[0, 0]


def test_speckles_lie_at_distances_in_proportion_to_the_wavelength():
    short, long = quiet(aberration=0.002).cube[:, 0]
    place = torch.arange(51.0) - 25
    distance = (place[:, None].square() + place.square()).sqrt()
    ring = (distance > 6) & (distance < 18)

    def alike(factor):
        return float(torch.corrcoef(torch.stack([scaled(short, factor)[ring], long[ring]]))[0, 1])

    assert alike(1.25) > 0.98 and alike(1.0) < 0.6 and alike(0.8) < 0.6
    # in small aberrations their flux is that of a phase, λ⁻², spread over an area of λ²
    level = (short[(distance > 8) & (distance < 12)].mean(), long[(distance > 10) & (distance < 15)].mean())
    assert float(level[0] / level[1]) == pytest.approx(1.25**4, rel=0.05)


def test_a_planet_turns_with_the_sky_and_has_its_spectrum():
    planet = Planet(41.0, 25.0, (1e-3, 3e-3))
    with_, without = (quiet(planets=p, aberration=0.0, arc=60.0).cube for p in ([planet], []))
    added = (with_ - without)[:, 0]
    row, column = divmod(int(added[1].argmax()), 51)
    angle = math.radians(30.0)  # the first frame is to be turned by −30°
    assert (row, column) == (round(25 + 16 * math.sin(angle)), round(25 + 16 * math.cos(angle)))
    assert float(added[1].sum() / added[0].sum()) == pytest.approx(3.0, rel=0.03)


@pytest.mark.parametrize(
    "changes", [{"wavelengths": (1.2, 1.0)}, {"planets": [Planet(3, 4, (1.0,))]}, {"star": 0.0}, {"frames": 1}]
)
def test_what_cannot_be_simulated_is_refused(changes):
    with pytest.raises(InputError, match="simulated_sequence expects"):
        simulated_sequence(**changes)
