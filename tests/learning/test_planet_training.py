"""Training of deep PACO on tiny cubes of noise."""

import functools

import pytest
import torch

from obverse.errors import InputError
from obverse.learning import train_deep_paco
from obverse.learning.planet_samples import PlanetSamples
from obverse.learning.planet_training import _shared, detection_loss
from obverse.methods import DeepPACO
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
    outside = torch.cat([s.channels[0][(s.target == 0) & samples().covered] for s in drawn])
    assert float(inside.mean()) > 2 and abs(float(outside.mean())) < 0.3
    assert 0.3 < samples().kept <= 1.1
    away = samples()._distance
    assert all(float(away[s.target > 0].min()) > 0.5 for s in drawn)


def test_a_planet_in_the_cube_is_smeared():
    """In random orders of the frames no place has it, in their own order its place has."""
    problem = problem_of()
    cube = noise() + problem.operator.source((12.0, 20.0), 6.0)
    with_planet = PlanetSamples(cube, problem)
    own = with_planet._seen([], [], torch.arange(FRAMES))[0]
    shuffled = [with_planet._seen([], [], torch.randperm(FRAMES))[0] for _ in range(8)]
    assert float(own[12, 20]) > 5
    assert sum(float(s[12, 20]) for s in shuffled) / 8 < 0.4 * float(own[12, 20])


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
            noise(), problem_of(), seed=seed, steps=steps, widths=(4, 8), callback=lambda *a: told.append(a)
        )
        return method, told

    method, told = run(45, 0)
    losses = [loss for _, _, loss in told]
    assert isinstance(method, DeepPACO) and [step for step, _, _ in told] == list(range(1, 46))
    assert sum(losses[-15:]) < 0.9 * sum(losses[:15])
    first, second, other = (run(2, seed)[0].networks[0].state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_a_u_net_that_does_harm_is_left_out():
    network = SourceDetector(CHANNELS, (4,)).requires_grad_(False)
    torch.nn.init.normal_(network.unet.tail.weight, std=3.0)
    x = samples().item(0).channels[None]
    assert not torch.allclose(network(x), network.linear(x), atol=1.0)
    assert torch.equal(_shared(network, samples())(x), network.linear(x))


def test_the_callers_random_numbers_are_left_alone():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    train_deep_paco(noise(), problem_of(), steps=1, widths=(4,))
    assert torch.equal(torch.rand(3), expected)


def test_training_can_be_interrupted():
    def stop(step, steps, loss):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_deep_paco(noise(), problem_of(), steps=3, widths=(4,), callback=stop)


def test_what_does_not_fit_is_said_in_a_sentence():
    with pytest.raises(InputError, match="at least one step"):
        train_deep_paco(noise(), problem_of(), steps=0)
    with pytest.raises(InputError, match="at least 8 frames"):
        train_deep_paco(noise(5), problem_of(5))
