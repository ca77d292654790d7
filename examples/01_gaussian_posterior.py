"""Deblur a simulated Gaussian field, and check that its 90 % intervals hold the truth nine times in ten.

Run it with `python examples/01_gaussian_posterior.py`.
"""

import torch

import obverse as ob

shape = (1, 128, 128)
field = ob.priors.GaussianField.power_law(shape, exponent=2.5, variance=1.0, mean=5.0)
truth = field.sample(1, seed=0)[0]

r = torch.arange(-6, 7, dtype=torch.float64)
kernel = torch.exp(-(r[:, None] ** 2 + r**2) / (2 * 2.0**2))
blur = ob.operators.Convolution(kernel / kernel.sum(), shape)
problem = ob.Problem(blur, ob.noise.Gaussian(0.1))
y = problem.simulate(truth, seed=1)

posterior = ob.methods.Gaussian(prior=field)(y, problem)
low, high = posterior.interval(level=0.9)
coverage = float(((low <= truth) & (truth <= high)).double().mean())

centre = torch.zeros(shape, dtype=torch.bool)
centre[..., 56:72, 56:72] = True
region_low, region_high = posterior.interval(centre, level=0.9)

print(f"{posterior.status.message}; chi² of the data: {float(problem.chi2(posterior.mean, y)):.3f}")
print(
    f"pixels: std {float(posterior.std.mean()):.3f}, 90 % intervals hold the truth for {100 * coverage:.1f} % of them"
)
print(
    f"mean of the central region: {float(region_low):.3f} to {float(region_high):.3f}, truth {truth[centre].mean():.3f}"
)
print(f"largest component variances: {[round(float(v), 4) for v in posterior.components(3).variances]}")

assert posterior.status.converged
assert abs(coverage - 0.9) < 0.03, coverage
