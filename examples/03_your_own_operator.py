"""Write an operator of your own, test it with the public suite, and get its posterior with a posterior's components."""

import torch

import obverse as ob


class Shear(ob.operators.LinearOperator):
    """Shift every row by its index, periodically: a rolling shutter that pans."""

    def __init__(self, image_shape, dtype=torch.float64):
        super().__init__(image_shape, image_shape, dtype)

    def _apply(self, x):
        return torch.stack([row.roll(i, -1) for i, row in enumerate(x.unbind(-2))], -2)

    def _adjoint(self, y):
        return torch.stack([row.roll(-i, -1) for i, row in enumerate(y.unbind(-2))], -2)


shape = (1, 32, 32)
report = ob.operators.check(Shear((1, 6, 5)))
print(report)

field = ob.priors.GaussianField.power_law(shape, exponent=2.0)
blur = ob.operators.Convolution(torch.ones(5, 5, dtype=torch.float64) / 25, shape)
problem = ob.Problem(blur @ Shear(shape), ob.noise.Gaussian(0.05))
truth = field.sample(1, seed=0)[0].double()
y = problem.simulate(truth, seed=1)

posterior = ob.methods.Gaussian(field)(y, problem)
components = posterior.components(3)
error = (truth - posterior.mean).reshape(-1)
print("component variances", components.variances, "errors along them", components.directions.reshape(3, -1) @ error)
z = error / posterior.std.reshape(-1)

assert posterior.status.converged
assert 0.85 < float(z.square().mean().sqrt()) < 1.15
