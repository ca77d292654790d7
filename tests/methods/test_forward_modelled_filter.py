"""The forward-modelled matched filter beside residuals with a source really put in, and on noise of known law."""

import math

import pytest
import torch

from obverse.errors import InputError
from obverse.methods import ForwardModelledFilter
from obverse.methods.forward_modelled_filter import _disc_of, _distance
from obverse.methods.residual_weights import residual_weights
from obverse.noise import Gaussian
from obverse.operators import FieldRotation
from obverse.problem import Problem

SIZE, FRAMES, MODES = 41, 20, 3


def gaussian_psf(width=1.5, side=15):
    place = torch.arange(side, dtype=torch.float64) - side // 2
    return torch.exp(-(place[:, None] ** 2 + place**2) / (2 * width**2))


def operator_of(psf=None, size=SIZE):
    psf = gaussian_psf() if psf is None else psf
    shape = (len(psf) if psf.ndim == 3 else 1, size, size)
    return FieldRotation(shape, torch.linspace(0, 60, FRAMES), psf, dtype=torch.float64)


def speckles(seed=0, strength=3.0, size=SIZE):
    """Four fields of speckles whose strengths change, and white noise."""
    generator = torch.Generator().manual_seed(seed)
    like = {"generator": generator, "dtype": torch.float64}
    core = FieldRotation((1, size, size), [0.0], gaussian_psf(), dtype=torch.float64)
    fields = torch.stack([core(torch.randn(1, size, size, **like))[0] for _ in range(4)])
    weights = 1 + 0.5 * torch.randn(FRAMES, 4, **like)
    return strength * torch.einsum("tk,kyx->tyx", weights, fields) + torch.randn(FRAMES, size, size, **like)


@pytest.mark.parametrize("place", [(20, 31), (28, 14), (12, 20)])
def test_the_template_is_what_is_left_of_a_faint_source(place):
    operator, cube = operator_of(), speckles(strength=0.1)  # weak: a source turns the components
    distance, half = _distance(operator), 1.5 * operator.fwhm
    zone = (distance - distance[place].round()).abs() <= half
    b, a = ForwardModelledFilter(MODES).tests(cube, operator, operator.psf, distance)

    def residual(frames):
        seen = frames[:, zone]
        return seen - residual_weights(seen, MODES) @ seen

    narrow = operator_of(_disc_of(gaussian_psf(), math.floor(half - 0.5)))
    source = narrow.source((float(place[0]), float(place[1])))
    change = (residual(cube + 1e-4 * source) - residual(cube - 1e-4 * source)) / 2e-4
    # up to the interpolation of matched frames
    assert float(a[place]) == pytest.approx(float(change.square().sum()), rel=0.02)
    assert float(b[place]) == pytest.approx(float((change * residual(cube)).sum()), abs=0.3 * float(a[place]) ** 0.5)
    # without the turn of the components the template would be another
    seen = source[:, zone]
    kept = seen - residual_weights(cube[:, zone], MODES) @ seen
    assert abs(float(kept.square().sum() / a[place]) - 1) > 0.08


def test_signal_to_noise_is_normal_and_fluxes_are_what_was_put_in():
    operator = operator_of()
    problem, search = Problem(operator, Gaussian(1.0)), ForwardModelledFilter(MODES)
    values, pulls, kept = [], [], []
    for seed in range(3):
        cube = speckles(seed)
        found = search(cube, problem)
        values.append(found.snr[found.covered])
        for turn in range(4):
            angle = math.radians(90 * turn + 25 * seed)
            row, column = round(20 + 10 * math.sin(angle)), round(20 + 10 * math.cos(angle))
            with_source = search(cube + operator.source((float(row), float(column)), 1.2), problem)
            flux, sigma = float(with_source.image[0, row, column]), float(with_source.sigma[0, row, column])
            pulls.append((flux - 1.2) / sigma)
            kept.append((flux - float(found.image[0, row, column])) / 1.2)
    assert float(torch.cat(values).std()) == pytest.approx(1.0, abs=0.1)
    assert float(torch.tensor(pulls).std()) < 1.6 and abs(float(torch.tensor(pulls).mean())) < 0.9
    assert float(torch.tensor(kept).mean()) == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"components": 0}, "at least one component"),
        ({"components": 2, "width": 2.0}, "at least 5 pixels"),
        ({"components": 2, "threshold": math.nan}, "finite threshold"),
        ({"components": 2, "inner_radius": -1.0}, "at least zero"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, told):
    with pytest.raises(InputError, match=told):
        ForwardModelledFilter(**arguments)


def test_what_cannot_be_searched_is_refused():
    problem = Problem(operator_of(), Gaussian(1.0))
    with pytest.raises(InputError, match="take fewer"):
        ForwardModelledFilter(19)(speckles(), problem)
    with pytest.raises(InputError, match="no.e; give larger frames"):
        ForwardModelledFilter(2, width=60.0)(speckles(), problem)
    two = operator_of(torch.stack([gaussian_psf()] * 2))
    with pytest.raises(InputError, match="one wavelength"):
        ForwardModelledFilter(2)(torch.stack([speckles()] * 2), Problem(two, Gaussian(1.0)))
    with pytest.raises(InputError, match="finite cube"):
        ForwardModelledFilter(2)(torch.full((FRAMES, SIZE, SIZE), math.nan, dtype=torch.float64), problem)
