"""The ridge energy against its definition: filters, profile, bounds of curvature, and its denoiser."""

import dataclasses

import pytest
import torch

from obverse import networks
from obverse.errors import InputError
from obverse.networks.ridges import norm_bound, symbol_bound


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def energy(rho=0.0, seed=0):
    """A small network whose profile rises, falls and has flat parts."""
    torch.manual_seed(seed)
    net = networks.RidgeEnergy((1, 3, 5), kernel=3, knots=8, weak_convexity=rho).double()
    if rho:
        with torch.no_grad():
            net.slopes[3:6] -= 8.0
    return net.requires_grad_(False)


def ridges(rho=0.0, levels=(0.1, 0.03)):
    return energy(rho).at(torch.tensor(levels, dtype=torch.float64))


def dense(r, height, width):
    """W as a matrix, from its definition: correlation with an image mirrored about its edges."""
    side = r.filters.shape[-1]
    rows = []
    for f in r.filters[:, 0]:
        for i in range(height):
            for j in range(width):
                row = torch.zeros(height, width, dtype=torch.float64)
                for p in range(side):
                    for q in range(side):
                        m, n = i + p - side // 2, j + q - side // 2
                        m = -1 - m if m < 0 else 2 * height - 1 - m if m >= height else m
                        n = -1 - n if n < 0 else 2 * width - 1 - n if n >= width else n
                        row[m, n] += f[p, q]
                rows.append(row.flatten())
    return torch.stack(rows)


def test_filters_are_a_composed_bank_of_zero_mean_and_unit_symbol():
    net = energy()
    bank = net.filters()
    assert bank.shape == (5, 1, 5, 5) and float(bank.mean((2, 3)).abs().max()) < 1e-15
    assert float(symbol_bound(bank, 64)) == pytest.approx(1.0)
    x = randn(1, 1, 20, 20)
    y = x
    for layer in net.layers:
        y = torch.nn.functional.conv2d(y, layer)
    composed = torch.nn.functional.conv2d(x, bank)
    boxes = torch.nn.functional.avg_pool2d(x, 5, 1).flatten()
    factors = []
    for layered, found in zip(y[0], composed[0], strict=True):
        # the layers' response is the bank's, times one factor, and a multiple of the local mean that was taken off
        basis = torch.stack([found.flatten(), boxes], 1)
        solution = torch.linalg.lstsq(basis, layered.flatten()[:, None]).solution
        assert torch.allclose(basis @ solution, layered.flatten()[:, None], atol=1e-12)
        factors.append(float(solution[0]))
    assert max(factors) - min(factors) < 1e-12


def test_responses_and_their_adjoint_are_the_dense_matrix():
    r = ridges()
    w = dense(r, 6, 4)
    x, z = randn(2, 1, 6, 4), randn(2, 5, 6, 4, seed=1)
    assert torch.allclose(r.responses(x).flatten(1), x.flatten(1) @ w.T, atol=1e-12)
    assert torch.allclose(r.backprojected(z, x.shape).flatten(1), z.flatten(1) @ w, atol=1e-12)
    assert float(r.gradient(torch.full((2, 1, 6, 4), 0.7, dtype=torch.float64)).abs().max()) < 1e-14


@pytest.mark.parametrize("shape", [(6, 4), (9, 9), (15, 26), (40, 40)])
def test_the_bound_of_the_norm_holds_on_images_of_any_size(shape):
    r = ridges()
    bound = norm_bound(r.filters)
    v = randn(1, 1, *shape)
    for _ in range(300):
        v = r.backprojected(r.responses(v / v.norm()), v.shape)
    assert float(v.norm()) <= bound < 1.1
    if shape == (40, 40):
        assert float(v.norm()) > 1.02  # more than inside the image: borders have to be looked at
    assert norm_bound(2 * r.filters) == pytest.approx(4 * bound)


@pytest.mark.parametrize("rho", [0.0, 0.9])
def test_derivatives(rho):
    r = ridges(rho)
    x = (0.2 * randn(2, 1, 6, 5)).requires_grad_(True)
    assert torch.autograd.gradcheck(r.value, x)
    with torch.no_grad():
        gradient = r.gradient(x)
    assert torch.allclose(torch.autograd.grad(r.value(x).sum(), x)[0], gradient, atol=1e-12)
    assert torch.allclose(r.gradient(x), gradient, atol=1e-12)  # with a graph, and without
    v = randn(2, 1, 6, 5, seed=2)
    (product,) = torch.autograd.grad((r.gradient(x) * v).sum(), x)
    assert torch.allclose(r.product(r.curvature(x.detach()), v), product, atol=1e-12)


@pytest.mark.parametrize("rho", [0.0, 0.9])
def test_profile_keeps_its_promises(rho):
    net = energy(rho)
    slopes = net.profile()
    values = (slopes * net.places.double().diff(prepend=torch.zeros(1, dtype=torch.float64))).cumsum(0)
    assert float(slopes.min()) >= -rho - 1e-12 and float(values.min()) >= -1e-12
    assert (float(slopes.min()) < 0) == (rho > 0)
    low, high = net.at(torch.tensor([0.1], dtype=torch.float64)).bounds
    assert -rho * 1.1 <= low <= 0 < high
    assert high >= float(slopes.max())


def curvatures(r, points):
    """Extreme eigenvalues of the Hessians of R at some images, of 25 pixels each."""
    single = dataclasses.replace(r, scale=r.scale[:1])
    basis, found = torch.eye(25, dtype=torch.float64).reshape(25, 1, 5, 5), []
    for x in points:
        values = torch.linalg.eigvalsh(single.product(single.curvature(x[None]), basis).reshape(25, 25))
        found.append((float(values[0]), float(values[-1])))
    return min(a for a, _ in found), max(b for _, b in found)


def test_convex_is_convex_and_weakly_convex_only_as_far_as_stated():
    points = [s * randn(1, 5, 5, seed=k) for k, s in enumerate((0.003, 0.02, 0.05, 0.1, 0.3))]
    low, high = curvatures(ridges(0.0), points)
    assert low > -1e-12 and high <= ridges(0.0).bounds[1]
    low, high = curvatures(ridges(0.9), points)
    assert low < -1e-3  # the check above sees what is not convex
    assert low >= ridges(0.9).bounds[0] and high <= ridges(0.9).bounds[1]


@pytest.mark.parametrize("rho", [0.0, 0.9])
def test_the_denoiser_is_the_minimiser_wherever_it_starts(rho):
    r = ridges(rho)
    y = 0.5 + 0.2 * randn(2, 1, 8, 8)
    result = r.denoise(y, 1e-8)
    assert result.status.converged
    assert float((result.x - y + r.gradient(result.x)).abs().max()) < 1e-6

    def objective(x):
        return 0.5 * (x - y).square().sum((1, 2, 3)) + r.value(x)

    for k in range(5):
        assert bool((objective(result.x + 1e-2 * randn(2, 1, 8, 8, seed=k)) > objective(result.x)).all())
    sharper = (r.denoise(y, 1e-2).x - result.x).square().mean((1, 2, 3)).sqrt()
    assert float(sharper.max()) <= 1e-2


def test_the_network_denoises_and_is_built_saved_and_loaded(tmp_path):
    description = {"kind": "RidgeEnergy", "channels": [1, 2, 4], "kernel": 3, "weak_convexity": 0.5}
    net = networks.build(description)
    networks.save(tmp_path / "net.safetensors", net, {"network": description})
    copy, _ = networks.load(tmp_path / "net.safetensors")
    x, sigma = torch.rand(2, 1, 9, 7), torch.tensor([0.05, 0.2])
    assert torch.equal(copy(x, sigma), net(x, sigma))
    assert bool((copy(x, sigma).std((1, 2, 3)) < x.std((1, 2, 3))).all())
    assert torch.allclose(copy(x + 3.0, sigma), copy(x, sigma) + 3.0, atol=1e-3)
    for bad in ({"channels": (2, 4)}, {"kernel": 4}, {"weak_convexity": 1.0}, {"knots": 1}, {"accuracy": 0.0}):
        with pytest.raises(InputError):
            networks.RidgeEnergy(**bad)
