"""One object of noise levels for every sampler."""

import math

import pytest

import obverse as ob
from obverse.errors import InputError
from obverse.methods import Schedule


def test_levels_are_those_of_the_published_formula():
    levels = Schedule(80.0, 0.002, 18).levels()
    expected = [(80 ** (1 / 7) + k / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7 for k in range(18)]
    assert levels == pytest.approx(expected) and levels[0] == 80.0 and levels[-1] == 0.002
    geometric = Schedule(1.0, 0.01, 9, math.inf).levels()
    assert [b / a for a, b in zip(geometric, geometric[1:])] == pytest.approx([0.01 ** (1 / 8)] * 8)


def test_a_single_level_is_the_lowest():
    assert Schedule(2.0, 0.5, 1).levels() == (0.5,) == Schedule(0.5, 0.5, 9).levels()
    assert Schedule(2.0, 0.5, 1).below(1.0) == (1.0,)


def test_levels_stay_within_what_a_denoiser_knows():
    schedule = Schedule(80.0, 0.002, 12)
    assert schedule.within(0.02, 4.0) == Schedule(4.0, 0.02, 12)
    assert schedule.within(0.0, math.inf) == schedule
    prior = ob.priors.load("natural-gray-gradient").scaled(0.0, 100.0)
    assert Schedule(1e4, 1.0, 12).known_to(prior).levels()[0] == prior.sigma_range[1]
    levels = Schedule.of(prior).levels()
    assert levels[0] <= prior.sigma_range[1] and levels[-1] == pytest.approx(100 / 255)
    assert Schedule.of(ob.priors.NonLocalMeans()).high == 10.0


def test_below_a_level_they_start_there_and_fall_slowly_first():
    levels = Schedule(80.0, 0.01, 20).below(0.5)
    assert len(levels) == 20 and levels[0] == 0.5 and levels[-1] == 0.01
    ratios = [b / a for a, b in zip(levels, levels[1:])]
    assert ratios == sorted(ratios, reverse=True) and ratios[0] > 0.95
    assert Schedule(80.0, 0.01).below(0.005) == (0.005,)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Schedule(0.1, 1.0),
        lambda: Schedule(1.0, 0.0),
        lambda: Schedule(math.inf, 0.1),
        lambda: Schedule(1.0, 0.1, 0),
        lambda: Schedule(1.0, 0.1, exponent=0.0),
        lambda: Schedule(1.0, 0.1).within(2.0, 1.0),
        lambda: Schedule(1.0, 0.1).below(0.0),
    ],
)
def test_levels_that_make_no_sense_are_refused(make):
    with pytest.raises(InputError):
        make()
