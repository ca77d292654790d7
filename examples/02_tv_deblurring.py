"""Deblur a picture with total variation: the weight is chosen from the data, and the answer is certified."""

import torch

import obverse as ob

# a picture of flat shapes, blurred by a Gaussian of width 1.5 and covered with noise
truth = torch.full((1, 96, 96), 0.2)
truth[:, 16:60, 20:76] = 0.9
truth[:, 68:88, 12:48] = 0.6
g = torch.exp(-((torch.arange(9) - 4) ** 2) / (2 * 1.5**2))
kernel = g[:, None] * g / (g[:, None] * g).sum()

A = ob.operators.Convolution(kernel, truth.shape)
problem = ob.Problem(A, ob.noise.Gaussian(0.03))
y = problem.simulate(truth, seed=0)

estimate = ob.methods.MAP(prior=ob.priors.TotalVariation(), weight="auto")(y, problem)

before, after = (float(-10 * (image - truth).square().mean().log10()) for image in (y, estimate.image))
print(f"{before:.1f} dB before, {after:.1f} dB after")
print(f"weight {estimate.diagnostics['weight']:.3g}, chosen by {estimate.diagnostics['selection']}")
print(f"{estimate.diagnostics['solver']}: {estimate.status.message}")
assert estimate.status.converged and after > before + 5
