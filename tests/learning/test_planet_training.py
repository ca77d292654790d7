"""Training of deep PACO on tiny cubes of noise."""

import functools
import math

import pytest
import torch

from obverse.errors import InputError
from obverse.learning import planet_training, train_deep_paco
from obverse.learning.planet_samples import PlanetSample, PlanetSamples
from obverse.learning.planet_training import detection_loss, fit_linear, keep_what_helps, stacked
from obverse.methods import DeepPACO
from obverse.methods.frame_tests import shuffled
from obverse.methods.sky_channels import CHANNELS
from obverse.networks import SourceDetector
from obverse.noise import Gaussian
from obverse.operators import FieldRotation
from obverse.problem import Problem

SIZE, FRAMES = 25, 16


def problem_of(frames=FRAMES):
    place = torch.arange(9, dtype=torch.float64) - 4
    psf = torch.exp(-(place[:, None] ** 2 + place**2) / (2 * 1.1**2))
    return Problem(FieldRotation((1, SIZE, SIZE), torch.linspace(0, 90, frames), psf), Gaussian(1.0))


def noise(frames=FRAMES, seed=0):
    return torch.randn(frames, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


@functools.cache
def samples(seed=0):
    return PlanetSamples(noise(), problem_of(), seed=seed)


def test_samples_follow_from_the_seed():
    again = PlanetSamples(noise(), problem_of(), seed=0).item(5)
    one = samples().item(5)
    assert torch.equal(one.channels, again.channels) and torch.equal(one.target, again.target)
    assert not torch.equal(one.target, samples().item(6).target)
    assert not torch.equal(one.target, samples(1).item(5).target)


def test_a_source_is_where_the_target_says_and_noise_is_in_another_order():
    """Over some samples S/N in the targets is that of sources, and elsewhere that of noise."""
    drawn = [samples().item(i) for i in range(40)]
    inside = torch.cat([s.channels[0][s.target > 0] for s in drawn])
    outside = torch.cat([s.channels[0][(s.target == 0) & (s.counted > 0)] for s in drawn])
    about = sum(float(samples().covered.sum() - s.counted.sum()) for s in drawn) / 40
    assert 20 < about < 150, "about a source nothing counts"
    assert float(inside.mean()) > 2 and abs(float(outside.mean())) < 0.3
    assert 0.3 < samples().kept <= 1.1
    away = samples()._distance
    assert all(float(away[s.target > 0].min()) > 0.5 for s in drawn)


def test_a_planet_in_the_cube_is_smeared():
    """Too faint to be taken out: with the frames shuffled no place has it, in their own order its place has."""
    problem = problem_of()
    cube = noise() + problem.operator.source((12.0, 20.0), 1.0)
    with_planet, without = PlanetSamples(cube, problem), samples()
    own, generator = torch.arange(FRAMES), torch.Generator().manual_seed(0)
    assert float((with_planet._seen([], [], own) - without._seen([], [], own))[0, 12, 20]) > 3
    orders = [shuffled(FRAMES, generator) for _ in range(8)]
    more = [(with_planet._seen([], [], o) - without._seen([], [], o))[0, 12, 20] for o in orders]
    assert sum(map(float, more)) / 8 < 1.2


def test_a_planet_that_is_found_is_taken_out():
    problem, own = problem_of(), torch.arange(FRAMES)
    with_planet = PlanetSamples(noise() + problem.operator.source((12.0, 20.0), 10.0), problem)
    assert abs(float((with_planet._seen([], [], own) - samples()._seen([], [], own))[0, 12, 20])) < 2


def test_the_loss_is_least_at_the_truth():
    target, covered = torch.zeros(1, 9, 9), torch.ones(9, 9)
    target[0, 4, 4] = 1
    right = detection_loss(20 * target - 10, target, covered)
    assert float(right) < 0.01
    assert float(detection_loss(torch.full((1, 9, 9), -10.0), target, covered)) > 0.5, "nothing found"
    assert float(detection_loss(torch.full((1, 9, 9), 10.0), target, covered)) > 0.5, "everything found"
    outside = covered.clone()
    outside[4, 4] = 0
    assert float(detection_loss(20 * target - 10, 0 * target, outside)) < 0.01, "what is not covered does not count"


def test_training_lowers_the_loss_and_follows_from_the_seed():
    def run(steps, seed):
        told = []
        method = train_deep_paco(
            noise(),
            problem_of(),
            seed=seed,
            steps=steps,
            samples=12,
            widths=(4, 8),
            callback=lambda *a: told.append(a),
        )
        return method, told

    method, told = run(60, 0)
    assert isinstance(method, DeepPACO) and [step for step, _, _ in told] == list(range(1, 89))
    assert all(total == 88 for _, total, _ in told)
    fresh, drawn = SourceDetector(CHANNELS, (4, 8)), stacked([samples().item(i) for i in range(12)])
    with torch.no_grad():
        trained, before = (detection_loss(n(drawn[0].float())[:, 0], *drawn[1:]) for n in (method.networks[0], fresh))
    assert float(trained) < 0.8 * float(before)
    first, second, other = (run(2, seed)[0].networks[0].state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_the_u_net_learns(monkeypatch):
    """All of what it adds kept, it lowers the loss of what it was taught below that of the linear part alone."""
    monkeypatch.setattr(planet_training, "keep_what_helps", lambda network, held_out: None)
    network = train_deep_paco(noise(), problem_of(), steps=150, samples=4, widths=(4, 8)).networks[0]
    channels, target, counted = stacked([samples().item(i) for i in range(4)])
    with torch.no_grad():
        whole, linear = (detection_loss(f(channels)[:, 0], target, counted) for f in (network, network.linear))
    assert float(whole) < 0.9 * float(linear)


def test_the_linear_part_has_the_least_cross_entropy():
    """Of channels of which the first is S/N, and the second the same with noise of its own: it weighs both alike."""
    generator = torch.Generator().manual_seed(0)
    target = torch.zeros(40, 12, 12)
    target[:, 6, 6] = 1
    channels = torch.randn(40, 2, 12, 12, generator=generator) + 3 * target[:, None]
    layer = SourceDetector(2, (4,)).linear
    fit_linear(layer, PlanetSample(channels, target, torch.ones(40, 12, 12)))
    first, second = layer.weight.detach().flatten().tolist()
    assert first == pytest.approx(3, abs=0.8) and second == pytest.approx(3, abs=0.8)  # log-likelihood ratio 3 x − 4.5
    assert float(layer.bias.detach()) == pytest.approx(-9 - math.log(143), abs=3)


def test_a_u_net_that_does_harm_is_left_out():
    network = SourceDetector(CHANNELS, (4,)).requires_grad_(False)
    torch.nn.init.normal_(network.unet.tail.weight, std=3.0)
    x = samples().item(0).channels[None]
    assert not torch.allclose(network(x), network.linear(x), atol=1.0)
    keep_what_helps(network, stacked([samples().item(i) for i in range(4)]))
    assert torch.equal(network(x), network.linear(x))


def test_the_callers_random_numbers_are_left_alone():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    train_deep_paco(noise(), problem_of(), steps=1, samples=2, widths=(4,))
    assert torch.equal(torch.rand(3), expected)


def test_training_can_be_interrupted():
    def stop(step, steps, loss):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_deep_paco(noise(), problem_of(), steps=3, samples=2, widths=(4,), callback=stop)


def test_what_does_not_fit_is_said_in_a_sentence():
    with pytest.raises(InputError, match="at least one step"):
        train_deep_paco(noise(), problem_of(), steps=0)
    with pytest.raises(InputError, match="at least 8 frames"):
        train_deep_paco(noise(5), problem_of(5))
