"""Denoise a picture with a learned prior, and make a report of it that can be sent by e-mail.

Run it with `python examples/04_report_of_a_photograph.py [FOLDER]`; the report is FOLDER/report.html.
"""

import sys
import tempfile
from pathlib import Path

import torch

import obverse as ob

# 1. a picture of 48 × 48 pixels from 0 to 1, and what a noisy camera makes of it
y, x = torch.meshgrid(torch.arange(48.0), torch.arange(48.0), indexing="ij")
sky, hill = 0.9 - 0.006 * y, 0.25 + 0.1 * torch.sin(x / 3) * torch.cos(y / 4)
truth = torch.where(y > 26 + 5 * torch.sin(x / 9), hill, sky)[None]
truth[:, 8:16, 30:38] = 1.0
problem = ob.Problem(ob.operators.Identity(truth.shape), ob.noise.Gaussian(0.1))
noisy = problem.simulate(truth, seed=0)

# 2. the posterior: mean, covariance, and the shape of the density along its first two components
prior = ob.priors.load("natural-gray-gradient")
posterior = ob.methods.Tweedie(prior, rank=4, probes=16, moments=2)(noisy, problem)
density = posterior.marginal(posterior.components(1).directions[0])
print(f"first component: std {density.std:.3f}, {density.kind} density ({density.reason})")

# 3. the report, with the data, the model that is checked against them, and the truth that happens to be known here
folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
path = ob.report.make(
    posterior,
    folder,
    y=noisy,
    problem=problem,
    reference=truth,
    name="a hill",
    unit="grey value",
    rank=4,
    overwrite=True,
)
print(f"{path}: {path.stat().st_size / 1e6:.2f} MB, complete in itself")

assert float((posterior.mean - truth).square().mean()) < 0.25 * 0.1**2
assert path.stat().st_size < ob.report.MAX_BYTES and "χ² per data value" in path.read_text(encoding="utf-8")
