"""R-hat, effective sample size and Monte-Carlo error against closed forms and, where installed, arviz-stats."""

import pytest
import torch

from obverse.errors import InputError
from obverse.posterior import effective_samples, rhat, standard_error
from tests.posterior.cases import normal


def autoregressive(correlation: float, chains: int = 4, length: int = 2000, quantities: int = 3) -> torch.Tensor:
    noise = normal(chains, length, quantities, seed=int(100 * correlation) + 200)
    values = [noise[:, 0]]
    for step in range(1, length):
        values.append(correlation * values[-1] + (1 - correlation**2) ** 0.5 * noise[:, step])
    return torch.stack(values, 1)


@pytest.mark.parametrize("correlation", [-0.3, 0.0, 0.5, 0.9])
def test_effective_samples_of_an_autoregression(correlation):
    draws = autoregressive(correlation)
    expected = 8000 * (1 - correlation) / (1 + correlation)
    for kind in ("bulk", "mean"):
        assert torch.allclose(effective_samples(draws, kind), torch.tensor(expected).double(), rtol=0.25)
    assert float(rhat(draws).max()) < 1.02
    assert torch.allclose(standard_error(draws), torch.tensor(expected**-0.5).double(), rtol=0.2)


@pytest.mark.parametrize("shape", [(4, 500), (2, 301), (1, 1000)])
@pytest.mark.parametrize("correlation", [-0.5, 0.0, 0.7])
def test_agreement_with_arviz(shape, correlation):
    base = pytest.importorskip("arviz_stats.base")
    draws = autoregressive(correlation, *shape, 1)
    array = draws[..., 0].numpy()
    reference = base.array_stats
    for kind in ("bulk", "mean"):
        assert float(effective_samples(draws, kind)[0]) == pytest.approx(
            float(reference.ess(array, method=kind)), rel=1e-6
        )
    assert float(standard_error(draws)[0]) == pytest.approx(float(reference.mcse(array, method="mean")), rel=1e-6)
    if shape[0] > 1:
        assert float(rhat(draws)[0]) == pytest.approx(float(reference.rhat(array)), rel=1e-9)


def test_disagreeing_drifting_and_unequally_wide_chains_are_noticed():
    draws = normal(4, 500)
    assert float(rhat(draws)) < 1.01
    moved = draws + torch.tensor([0.0, 0, 0, 1])[:, None]
    assert float(rhat(moved)) > 1.05
    drifting = draws[:1] + torch.linspace(0, 2, 500)
    assert float(rhat(drifting)) > 1.05
    wide = draws * torch.tensor([1.0, 1, 1, 4])[:, None]
    assert float(rhat(wide)) > 1.05
    assert float(effective_samples(moved)) < 0.2 * float(effective_samples(draws))


def test_shapes_and_bad_input():
    assert rhat(normal(2, 100, 3, 5)).shape == (3, 5)
    assert effective_samples(normal(2, 100)).shape == ()
    assert bool(rhat(torch.ones(2, 100, 1)).isnan())
    assert bool(effective_samples(torch.ones(2, 100, 1)).isnan())
    with pytest.raises(InputError, match="4 draws"):
        rhat(torch.zeros(2, 3))
    with pytest.raises(InputError, match="diverged"):
        effective_samples(torch.full((2, 10), torch.inf))
    with pytest.raises(InputError, match="kind"):
        effective_samples(torch.zeros(2, 10), "tail")
