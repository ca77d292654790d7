"""Deep PACO's tests of frames, their way to the sky, and the calibration of the score, on noise of known law."""

import functools
import math

import pytest
import torch
from scipy.stats import norm

from obverse.errors import InputError
from obverse.methods import PACO, DeepPACO
from obverse.methods.frame_tests import TestedCube, shuffled
from obverse.methods.null_law import NullLaw
from obverse.methods.sky_channels import CHANNELS, SkyChannels, radii_of, turned
from obverse.networks import SourceDetector
from obverse.noise import Gaussian
from obverse.operators import FieldRotation
from obverse.problem import Problem

SIZE, FRAMES, WIDTH = 31, 32, 1.4  # pixels, frames, standard deviation of the PSF in pixels


def gaussian_psf(side=11):
    place = torch.arange(side, dtype=torch.float64) - side // 2
    return torch.exp(-(place[:, None] ** 2 + place**2) / (2 * WIDTH**2))


def problem_of(frames=FRAMES, arc=80.0, degrees=None):
    degrees = torch.linspace(0, arc, frames).tolist() if degrees is None else degrees
    return Problem(FieldRotation((1, SIZE, SIZE), degrees, gaussian_psf()), Gaussian(1.0))


def speckles(frames=FRAMES, seed=0):
    """Noise as wide as the PSF beside a third of it that is white, stronger near the star."""
    generator = torch.Generator().manual_seed(seed)
    kernel = gaussian_psf() / gaussian_psf().norm()
    wide = torch.randn(frames, 1, SIZE + 10, SIZE + 10, generator=generator, dtype=torch.float64)
    white = torch.randn(frames, SIZE, SIZE, generator=generator, dtype=torch.float64)
    place = torch.arange(SIZE, dtype=torch.float64) - SIZE // 2
    level = 1 + 5 * torch.exp(-place[:, None].hypot(place) / 4)
    return level * (torch.nn.functional.conv2d(wide, kernel[None, None])[:, 0] + 0.33 * white)


@functools.cache
def learned():
    return TestedCube(speckles(), gaussian_psf(), 3)


def three_sizes(cube):
    """Of the three sizes of patches."""
    return [TestedCube(cube, gaussian_psf(), radius).tests for radius in radii_of(3)]


def test_tests_of_frames_are_standard_normal():
    z = TestedCube(speckles(100), gaussian_psf(), 2).tests.matched[:, 4:-4, 4:-4]
    assert float(z.square().mean()) == pytest.approx(1.0, abs=0.02)
    assert float((z.abs() > 2).double().mean()) == pytest.approx(0.0455, abs=0.01)
    assert float((z.mean(0) * 10).std()) < 0.6, "the mean over the frames is taken off"


def test_only_the_patches_that_a_source_crosses_are_learned_again():
    operator = problem_of().operator
    source = operator.source((15.3, 23.1), 8.0).double()
    short = learned().with_sources([source])
    whole = TestedCube(speckles() + source, gaussian_psf(), 3).tests
    touched = learned().touched(source)
    assert 0.1 < float(touched.double().mean()) < 0.7
    error, change = short.matched - whole.matched, whole.matched - learned().tests.matched
    assert float(error.square().mean().sqrt()) < 0.05 * float(change.square().mean().sqrt())
    assert float((short.precision / whole.precision - 1).abs().max()) < 0.05
    assert torch.equal(learned().with_sources([]).matched, learned().tests.matched)


def test_units_and_means_of_the_cube_do_not_count():
    scaled = TestedCube(1e-18 * (speckles() + 1e4), gaussian_psf(), 3).tests
    assert torch.allclose(scaled.matched, learned().tests.matched, atol=2e-2)
    assert torch.allclose(scaled.precision * 1e-36, learned().tests.precision, rtol=1e-2)


def test_frames_in_another_order_have_the_same_tests():
    order = torch.randperm(FRAMES, generator=torch.Generator().manual_seed(1))
    direct = TestedCube(speckles()[order], gaussian_psf(), 3).tests
    assert torch.allclose(direct.matched, learned().tests.ordered(order).matched, atol=1e-2)
    assert not torch.allclose(direct.matched, learned().tests.matched, atol=1.0)


def test_channels_begin_with_the_ratio_of_paco():
    problem = problem_of()
    cube = speckles() + problem.operator.source((15.0, 23.0), 6.0)
    tests = three_sizes(cube)
    sky = SkyChannels(problem.operator, tests[0])
    channels, snr = sky(tests), PACO(3).maps(cube, problem)[2][0].float()
    both = sky.covered & snr.isfinite()
    assert float(torch.corrcoef(torch.stack([channels[0][both], snr[both]]))[0, 1]) > 0.98
    assert channels.shape == (CHANNELS, SIZE, SIZE)
    assert float(channels[:11, 15, 23].min()) > 3, "every sum shows the source"
    assert float(channels[11, 15, 23]) < 0.4 * float(channels[0, 15, 23]), "beside it there is less of it"


def test_sums_are_standard_normal_without_a_source():
    tests = three_sizes(speckles())
    sky = SkyChannels(problem_of().operator, tests[0])
    null = torch.stack([sky([t.ordered(order) for t in tests]) for order in orders(12)])[:, :11, sky.covered]
    assert null.square().mean((0, 2)).sqrt().tolist() == pytest.approx([1.0] * 11, abs=0.1)


def test_clipping_takes_back_a_bad_frame():
    """A spot that is in one frame only adds √T less than a source as bright, and clipped nearly nothing."""
    problem, cube = problem_of(), speckles()
    cube[5] += 12 * problem.operator.source((15.0, 23.0), 1.0)[5]
    tests = three_sizes(cube)
    channels, before = (SkyChannels(problem.operator, t[0])(t)[:, 15, 23] for t in (tests, three_sizes(speckles())))
    whole, clipped = (float((channels - before)[i]) for i in (0, 2))
    assert whole > 1 and clipped < 0.7 * whole


def orders(count):
    generator = torch.Generator().manual_seed(3)
    return [shuffled(FRAMES, generator) for _ in range(count)]


def test_shuffled_frames_keep_their_neighbours_and_no_source():
    for order in orders(12):
        assert sorted(order.tolist()) == list(range(FRAMES))
        assert int((order.diff() % FRAMES == FRAMES - 1).sum()) >= FRAMES - 4, "four blocks, backwards"
    problem = problem_of()
    tests = three_sizes(speckles() + problem.operator.source((15.0, 25.0), 12.0))
    sky = SkyChannels(problem.operator, tests[0])
    own = float(sky(tests)[0, 15, 25])
    smeared = [float(sky([t.ordered(o) for t in tests])[0, 15, 25]) for o in orders(12)]
    assert own > 5 and sum(smeared) / 12 < 0.35 * own


def test_a_mirror_and_backward_time_leave_the_channels():
    degrees = [0.0, *torch.linspace(3, 60, FRAMES - 1).tolist()]
    tests = three_sizes(speckles())
    plain = SkyChannels(problem_of(degrees=degrees).operator, tests[0])(tests)
    mirrored = three_sizes(speckles().flip(0, 2))
    opposite = SkyChannels(problem_of(degrees=[-a for a in degrees[::-1]]).operator, mirrored[0])(mirrored)
    assert torch.allclose(turned(plain, 4), opposite, atol=0.05)
    assert not torch.allclose(plain, opposite, atol=1.0)


def test_the_law_of_a_score_is_that_of_its_null_values():
    generator = torch.Generator().manual_seed(0)
    normal = NullLaw.learned(7 + 3 * torch.randn(400_000, generator=generator, dtype=torch.float64))
    for deviate in (-2.0, 0.5, 3.0, 5.0, 8.0):
        found = float(normal.deviate(torch.tensor(7 + 3 * deviate, dtype=torch.float64)))
        assert found == pytest.approx(deviate, abs=0.02 + 0.03 * abs(deviate))
    uniform = torch.rand(400_000, generator=generator, dtype=torch.float64)
    exponential = NullLaw.learned(7 - 3 * uniform.log())
    for score, overstated in ((1.0, 0.0), (5.0, 0.0), (15.06, 0.2), (25.0, 0.6)):
        truth = float(norm.isf(math.exp(-score)))
        found = float(exponential.deviate(torch.tensor(7 + 3 * score, dtype=torch.float64)))
        assert found == pytest.approx(truth + overstated, abs=0.15)
    scores = torch.linspace(-30, 100, 400)
    assert all(bool((law.deviate(scores).diff() >= 0).all()) for law in (normal, exponential))


@pytest.mark.parametrize("values", [torch.randn(100), torch.zeros(50_000)])
def test_a_law_cannot_be_learned_from_too_little(values):
    with pytest.raises(InputError, match="NullLaw expects"):
        NullLaw.learned(values)


def drawn_network(seed=0):
    """Not trained, but with last weights that are not zero: its logits are of no known law."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = SourceDetector(CHANNELS, widths=(4, 8))
        torch.nn.init.normal_(network.unet.tail.weight, std=0.3)
    return network.requires_grad_(False)


def scores_of(found, problem):
    place = torch.arange(SIZE) - SIZE / 2
    return found.snr[0][(place[:, None].hypot(place) < 13) & found.snr[0].isfinite()]


@functools.cache
def on_noise():
    """Scores on cubes of noise: each is calibrated with orders of its own frames only."""
    problem, search = problem_of(), DeepPACO([drawn_network()], 3, permutations=30)
    return torch.cat([scores_of(search(speckles(seed=seed), problem), problem) for seed in range(10, 14)])


def test_the_score_is_standard_normal_on_fresh_noise():
    values = on_noise()
    assert float(values.std()) == pytest.approx(1.0, abs=0.12)
    assert float(values.mean()) == pytest.approx(0.0, abs=0.12)
    assert float((values > 2).double().mean()) == pytest.approx(0.0228, abs=0.012)


def test_a_score_calibrated_on_other_noise_is_not():
    """Of the same network, with noise of three fifths the size taken for that of the cube."""
    cube, problem = speckles(seed=10), problem_of()
    tests = three_sizes(cube)
    sky, search = SkyChannels(problem.operator, tests[0]), DeepPACO([drawn_network()], 3)
    null = [search._logit(0.6 * sky([t.ordered(order) for t in tests])) for order in orders(30)]
    law = NullLaw.learned(torch.stack(null)[:, sky.covered])
    assert float(law.deviate(search._logit(sky(tests))[sky.covered]).std()) > 1.2


def test_a_fresh_network_finds_what_paco_finds():
    problem = problem_of()
    cube = speckles(seed=3) + problem.operator.source((15.0, 24.0), 14.0)
    cube[:, :, :2] = math.nan
    search = DeepPACO([SourceDetector(CHANNELS, widths=(4, 8))], 3, 4.5, permutations=30)
    found, paco = search(cube, problem), PACO(3)(cube, problem)
    assert torch.equal(found.image.isnan(), paco.image.isnan()) and bool(found.image.isnan().any())
    assert len(found.candidates) == 1
    candidate = found.candidates[0]
    assert math.dist((candidate.y, candidate.x), (15.0, 24.0)) < 0.7
    assert abs(candidate.flux - 14.0) < 4 * math.sqrt(candidate.covariance[0][0])
    assert found.diagnostics["permuted_maximum"] < 4.5 and found.diagnostics["paco_snr"][0] > 4.5
    assert torch.equal(found.snr.nan_to_num(), search(cube, problem).snr.nan_to_num()), "the seed decides"


def test_what_does_not_fit_is_said_in_a_sentence():
    network = drawn_network()
    with pytest.raises(InputError, match="list of networks"):
        DeepPACO([])
    with pytest.raises(InputError, match="at least one permutation"):
        DeepPACO([network], permutations=0)
    with pytest.raises(InputError, match="patch_radius"):
        DeepPACO([network], 0)
    few = problem_of(6)
    with pytest.raises(InputError, match="at least 8 frames"):
        DeepPACO([network])(speckles(6), few)
    psf = torch.stack([gaussian_psf()] * 2)
    two = Problem(FieldRotation((2, SIZE, SIZE), torch.linspace(0, 80, FRAMES), psf), Gaussian(1.0))
    with pytest.raises(InputError, match="one wavelength"):
        DeepPACO([network])(torch.stack([speckles()] * 2), two)
