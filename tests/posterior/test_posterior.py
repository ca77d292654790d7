"""The posterior: intervals, draws, changes of unit, crops, and the file that brings it back."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch

from obverse.errors import FormatError, InputError
from obverse.io.safe import write_safetensors
from obverse.posterior import TARGETS, Estimate, LowRankDiagonal, Posterior, PrecisionCovariance, StationaryCovariance
from obverse.solvers.result import Status
from tests.posterior.cases import DONE, SHAPE, from_dense, normal, positive, spectrum


def known(**options) -> Posterior:
    return Posterior(normal(*SHAPE, seed=9), DONE, covariance=from_dense(positive(40), SHAPE), **options)


def drawn(count: int, **options) -> Posterior:
    """Kept draws of a skewed law (exponential), so that a Gaussian interval is visibly wrong."""
    draws = -torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64).log()
    variance = LowRankDiagonal(torch.zeros(40, 0).double(), torch.zeros(0), torch.ones(40), SHAPE)
    return Posterior(torch.ones(SHAPE).double(), DONE, covariance=variance, draws=draws, **options)


def test_an_estimate_is_finite_and_frozen():
    estimate = Estimate(torch.ones(2, 1, 4, 4), DONE, (3.0, 1.0), {"seconds": 0.1})
    assert estimate.history == (3.0, 1.0) and estimate.diagnostics == {"seconds": 0.1}
    with pytest.raises(dataclasses.FrozenInstanceError):
        estimate.image = torch.zeros(1)  # type: ignore[misc]
    with pytest.raises(InputError, match="1 NaN"):
        Estimate(torch.tensor([1.0, math.nan]), DONE)


def test_a_posterior_is_an_estimate_and_checks_itself():
    posterior = known()
    assert isinstance(posterior, Estimate)
    assert torch.equal(posterior.mean, posterior.image)
    assert torch.allclose(posterior.std.reshape(-1), positive(40).diagonal().sqrt())
    assert posterior.target == "posterior"
    with pytest.raises(dataclasses.FrozenInstanceError):
        posterior.target = "tempered"  # type: ignore[misc]
    with pytest.raises(InputError, match="target"):
        known(target="likelihood")
    with pytest.raises(InputError, match="shape"):
        Posterior(torch.zeros(3, *SHAPE), DONE, covariance=posterior.covariance)
    with pytest.raises(InputError, match="draws"):
        known(draws=torch.zeros(1, *SHAPE))
    assert [known(target=target).target for target in TARGETS] == list(TARGETS)


def test_they_introduce_themselves_in_a_line_without_their_arrays():
    failed = Status(False, "max-iterations", "Ran out of iterations.")
    said = "Estimate(image (1, 64, 64), torch.float32, no uncertainty, not converged (max-iterations))"
    assert repr(Estimate(torch.ones(1, 64, 64), failed)) == said
    said = f"Posterior(image {SHAPE}, torch.float64, posterior spread by PrecisionCovariance, converged)"
    assert repr(known(provenance={"settings": {"prior": "long " * 100}})) == said


def test_gaussian_intervals_of_pixels_functionals_and_regions():
    posterior, dense = known(), positive(40)
    low, high = posterior.interval(level=0.9)
    assert torch.allclose((high - low) / 2, 1.6448536 * posterior.std, rtol=1e-6)
    weights = normal(3, *SHAPE, seed=2)
    low, high = posterior.interval(weights, level=0.5)
    flat = weights.reshape(3, 40)
    assert torch.allclose((low + high) / 2, flat @ posterior.mean.reshape(-1))
    assert torch.allclose((high - low) / 2, 0.6744898 * ((flat @ dense) * flat).sum(1).sqrt(), rtol=1e-6)
    mask = torch.zeros(SHAPE, dtype=torch.bool)
    mask[0, 1:3, 2:4] = True
    by_mask, by_weights = posterior.interval(mask), posterior.interval(mask.double() / 4)
    assert torch.allclose(torch.stack(by_mask), torch.stack(by_weights))
    assert by_mask[0].shape == ()
    assert posterior.diagnostics["intervals"] == "gaussian"


def test_kept_draws_give_quantiles_where_they_suffice():
    posterior = drawn(2000)
    assert posterior.diagnostics["intervals"] == "quantiles"
    low, high = posterior.interval(level=0.9)
    # Quantiles of the unit exponential at 5 % and 95 %: 0.051 and 2.996; a Gaussian interval would start at −0.64.
    assert float(low.mean()) == pytest.approx(-math.log(0.95), abs=0.01)
    assert float(high.mean()) == pytest.approx(-math.log(0.05), abs=0.05)
    by_torch = torch.quantile(posterior.draws, torch.tensor([0.05, 0.95]).double(), dim=0)
    assert torch.allclose(torch.stack([low, high]), by_torch)
    low, high = posterior.interval(torch.ones(SHAPE).double(), level=0.9)
    expected = torch.quantile(posterior.draws.flatten(1).sum(1), torch.tensor([0.05, 0.95]).double())
    assert torch.allclose(torch.stack([low, high]), expected)
    few = drawn(50)
    assert few.diagnostics["intervals"] == "gaussian"
    assert float(few.interval(level=0.9)[0].min()) == pytest.approx(1 - 1.6448536)
    assert few.interval_kind(0.5) == "quantiles"


def test_bad_functionals_and_levels_are_refused():
    posterior = known()
    for level in (0.0, 1.0, -0.5, 90):
        with pytest.raises(InputError, match="level"):
            posterior.interval(level=level)
    with pytest.raises(InputError, match="functional"):
        posterior.interval(torch.ones(4))
    with pytest.raises(InputError, match="empty mask"):
        posterior.interval(torch.zeros(SHAPE, dtype=torch.bool))


def test_samples_are_reproducible_and_prefix_stable():
    posterior = known()
    five = posterior.sample(5, seed=3)
    assert five.shape == (5, *SHAPE)
    assert torch.equal(five, posterior.sample(5, seed=3))
    assert not torch.equal(five, posterior.sample(5, seed=4))
    assert torch.allclose(five[:2], posterior.sample(2, seed=3), atol=1e-8)
    kept = drawn(20)
    assert torch.equal(kept.sample(30, seed=1)[:7], kept.sample(7, seed=1))
    assert sorted(kept.sample(20, seed=1)[:, 0, 0, 0].tolist()) == sorted(kept.draws[:, 0, 0, 0].tolist())
    generator = torch.Generator().manual_seed(0)
    assert not torch.equal(kept.sample(20, generator), kept.sample(20, generator))
    mute = Posterior(posterior.mean, DONE, covariance=PrecisionCovariance(lambda v: v, SHAPE))
    with pytest.raises(InputError, match="compact"):
        mute.sample(1)
    assert mute.compact(2).sample(1).shape == (1, *SHAPE)
    with pytest.raises(InputError, match="at least one"):
        posterior.sample(0)


def test_affine_and_crop_agree_with_the_dense_twin():
    posterior = known(draws=normal(4, *SHAPE))
    changed = posterior.affine(-2.0, 5.0).crop((slice(1, 4), slice(0, 2)))
    kept = torch.arange(40).reshape(SHAPE)[:, 1:4, 0:2].reshape(-1)
    assert torch.allclose(changed.mean.reshape(-1), 5 - 2 * posterior.mean.reshape(-1)[kept])
    assert torch.allclose(changed.covariance.dense(), 4 * positive(40)[kept][:, kept], atol=1e-8)
    assert torch.allclose(changed.draws.flatten(1), 5 - 2 * posterior.draws.flatten(1)[:, kept])
    for scale in (0.0, math.nan, math.inf):
        with pytest.raises(InputError, match="scale"):
            posterior.affine(scale)
    with pytest.raises(InputError, match="slices"):
        posterior.crop([slice(None)] * 4)


def test_components_of_a_stationary_posterior_are_waves():
    posterior = Posterior(
        torch.zeros(1, 8, 8), DONE, covariance=StationaryCovariance(spectrum(8, 8).float(), (1, 8, 8))
    )
    found = posterior.components(3)
    assert found.directions.shape == (3, 1, 8, 8)
    assert float(found.directions[0].std()) < 1e-6, "the mean grey level is the least certain under a falling spectrum"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_saved_posterior_comes_back(tmp_path, dtype):
    base = known()
    facts = {"seconds": 1.5, "r_hat": math.nan, "shape": SHAPE, "weights": torch.tensor([1, 2]), "n": np.int64(3)}
    posterior = Posterior(
        base.mean.to(dtype),
        DONE,
        (2.0, 1.0),
        facts,
        covariance=from_dense(positive(40), SHAPE, dtype),
        target="tempered",
        provenance={"method": "Test", "seed": 0},
        draws=normal(3, *SHAPE, dtype=dtype),
    )
    path = tmp_path / "posterior.safetensors"
    digest = posterior.save(path, rank=7)
    loaded = Posterior.load(path)
    assert len(digest) == 64
    assert isinstance(loaded.covariance, LowRankDiagonal) and loaded.covariance.U.shape == (40, 7)
    assert loaded.mean.dtype == dtype and torch.equal(loaded.mean, posterior.mean)
    assert torch.allclose(loaded.std, posterior.std, rtol=1e-5)
    assert torch.equal(loaded.draws, posterior.draws)
    assert (loaded.target, loaded.status, loaded.history) == ("tempered", DONE, (2.0, 1.0))
    assert loaded.provenance == {"method": "Test", "seed": 0}
    expected = {"seconds": 1.5, "r_hat": "nan", "shape": [2, 5, 4], "weights": [1, 2], "n": 3, "intervals": "gaussian"}
    assert loaded.diagnostics == expected
    again = tmp_path / "again.safetensors"
    loaded.save(again)
    assert again.read_bytes() == path.read_bytes(), "saving what was loaded changes nothing"


def test_components_of_a_loaded_posterior_are_those_of_the_saved_one(tmp_path):
    posterior = known()
    posterior.save(tmp_path / "p", rank=10)
    found, kept = Posterior.load(tmp_path / "p").components(3), posterior.components(3)
    # The diagonal that keeps the marginals exact adds a little to every direction.
    assert torch.allclose(found.variances, kept.variances, rtol=0.15)
    overlap = (found.directions.flatten(1) @ kept.directions.flatten(1).mT).square().sum() / 3
    assert float(overlap) > 0.95


def test_save_without_factors_and_never_over_an_existing_file(tmp_path):
    posterior = drawn(50)
    path = tmp_path / "p.safetensors"
    posterior.save(path)
    before = path.read_bytes()
    with pytest.raises(InputError, match="existing"):
        posterior.affine(2.0).save(path)
    assert path.read_bytes() == before
    posterior.affine(2.0).save(path, overwrite=True)
    assert torch.equal(Posterior.load(path).std, 2 * posterior.std)
    assert list(tmp_path.iterdir()) == [path]


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "other.safetensors"
    write_safetensors(path, {"a": np.zeros(3)}, {"about": "something else"})
    with pytest.raises(FormatError, match="posterior"):
        Posterior.load(path)
    future = {"format": "obverse-posterior", "version": 99}
    write_safetensors(path, {"mean": np.zeros(3)}, {"obverse": json.dumps(future)}, overwrite=True)
    with pytest.raises(FormatError, match="99"):
        Posterior.load(path)
    write_safetensors(path, {"mean": np.zeros(3)}, {"obverse": "[1, 2"}, overwrite=True)
    with pytest.raises(FormatError):
        Posterior.load(path)
    with pytest.raises(InputError):
        Posterior.load(tmp_path / "absent")
