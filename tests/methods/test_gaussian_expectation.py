"""A law whose data are not A x on average: the Gaussian method compares them with what they are on average."""

import pytest
import torch

import obverse as ob
from obverse.methods import Gaussian

N = 24
LAWS = {
    "magnitudes": (ob.noise.Rician(1.0), 1.5),
    "logarithms of few counts": (ob.noise.LogPoisson(8.0), 1.0),
    "clipped": (ob.noise.Saturated(ob.noise.Gaussian(1.0), high=2.5), 2.0),
}


@pytest.mark.parametrize("name", LAWS)
def test_the_mean_is_not_biased_by_the_detector(name):
    law, level = LAWS[name]
    problem = ob.Problem(ob.operators.Identity((1, N, N), dtype=torch.float64), law)
    y = problem.simulate(torch.full((1, N, N), level, dtype=torch.float64), seed=0)
    spectrum = torch.full((N, N), 1e-4, dtype=torch.float64)
    spectrum[0, 0] = 1e6  # all modes but the mean are held at zero, and the mean is free
    prior = ob.priors.GaussianField(spectrum, image_shape=(1, N, N))
    found = Gaussian(prior=prior, reweightings=60)(y, problem).image.mean()
    assert abs(float(found) - level) < 0.1
    assert abs(float(y.mean()) - level) > 0.1  # what the data would say by themselves
