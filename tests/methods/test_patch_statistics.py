"""The laws of patches against their definitions, written out frame by frame."""

import numpy as np
import pytest
import torch

from obverse.errors import InputError
from obverse.methods.patch_statistics import Patches, PatchStatistics, disc, seen_pixels, shrinkage


def patches(frames=40, pixels=13, correlated=True, seed=0):
    """One stack of correlated Gaussian patches `(1, K, T)`, and two templates `(1, K, 2)`."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.eye(pixels, dtype=torch.float64)
    if correlated:
        mixing = mixing + torch.randn(pixels, pixels, generator=generator, dtype=torch.float64)
    values = (mixing @ torch.randn(pixels, frames, generator=generator, dtype=torch.float64))[None]
    return values + 7.0, torch.randn(1, pixels, 2, generator=generator, dtype=torch.float64)


def learned(values, **keywords):
    return PatchStatistics.learned(values, torch.ones(values.shape[:2], dtype=torch.bool), **keywords)


def written_out(values, template, frame, rho, alone):
    """b and a of one frame, the law learned from all frames or from the others."""
    data = values.numpy()
    others = np.delete(data, frame, 1) if alone else data
    covariance = np.cov(others, bias=True)
    covariance = (1 - rho) * covariance + rho * np.diag(np.diag(covariance))
    filters = np.linalg.solve(covariance, template.numpy())
    return filters.T @ (data[:, frame] - others.mean(1)), filters.T @ template.numpy()


@pytest.mark.parametrize("correlated", [True, False])
def test_shrinkage_is_that_of_the_paper(correlated):
    values, _ = patches(correlated=correlated)
    sample = np.cov(values[0].numpy(), bias=True)
    diagonal = float((np.diag(sample) ** 2).sum())
    total, power = np.trace(sample) ** 2, float((sample**2).sum())
    expected = (power + total - 2 * diagonal) / (41 * (power - diagonal))
    found = shrinkage(torch.from_numpy(sample), 40.0)
    assert float(found) == pytest.approx(min(expected, 1.0), rel=1e-12)
    if correlated:  # a numerator that takes every entry of S off, found in another implementation
        assert abs((total - power) / (41 * (power - diagonal)) - float(found)) > 0.01


def test_a_diagonal_covariance_is_kept_whole():
    assert float(shrinkage(torch.eye(5), 30)) == 1.0


def test_tests_are_those_of_the_sample_covariance():
    values, templates = patches()
    law = learned(values)
    b, a = law.tested(templates)
    for frame in (0, 17):
        score, precision = written_out(values[0], templates[0], frame, float(law.shrinkage), False)
        assert np.allclose(b[0, :, frame], score, rtol=1e-6)
        assert np.allclose(a[0, :, :, frame], precision, rtol=1e-6)


@pytest.mark.parametrize("correlated, error", [(True, 0.03), (False, 0.05)])
def test_a_frame_left_out_is_tested_by_the_law_of_the_others(correlated, error):
    values, templates = patches(correlated=correlated)
    law = learned(values)
    b, a = law.left_out(templates)
    within = law.tested(templates)[0]
    truth = [written_out(values[0], templates[0], frame, float(law.shrinkage), True) for frame in range(40)]
    scores = torch.from_numpy(np.stack([score for score, _ in truth], -1))
    precisions = torch.from_numpy(np.stack([precision for _, precision in truth], -1))
    assert float((b[0] - scores).norm() / scores.norm()) < error  # the diagonal's downdate is of first order
    assert float((a[0] - precisions).norm() / precisions.norm()) < error
    assert float((within[0] - scores).norm() / scores.norm()) > 2 * error, "frames among those learned from must show"


def test_the_term_of_rank_one_is_downdated_exactly():
    values, templates = patches()
    law = learned(values)
    bare = PatchStatistics(law.residuals, torch.linalg.cholesky(_sample(values)), 0 * law.shrinkage, law.weights)
    score, precision = written_out(values[0], templates[0], 5, 0.0, True)
    b, a = bare.left_out(templates)
    assert np.allclose(b[0, :, 5], score, rtol=1e-9) and np.allclose(a[0, :, :, 5], precision, rtol=1e-9)


def _sample(values):
    return torch.from_numpy(np.cov(values[0].numpy(), bias=True))[None]


def test_a_bad_frame_loses_its_weight():
    values, templates = patches(frames=60, seed=3)
    spoilt = values.clone()
    spoilt[..., 11] = 7.0 + 8 * (values[..., 11] - 7.0)
    law = learned(spoilt, frame_scales=True)
    others = torch.cat([law.weights[0, :11], law.weights[0, 12:]])
    assert float(law.weights[0, 11] / others.mean()) < 0.1 and 0 < law.rounds < 20
    good = learned(values, frame_scales=True).tested(templates)[1]
    plain, robust = learned(spoilt).tested(templates)[1], law.tested(templates)[1]
    sums = [float(a[0, 0, 0].sum() / good[0, 0, 0].sum()) for a in (robust, plain)]
    assert abs(sums[0] - 1) < 0.1 < abs(sums[1] - 1), "without scales, one frame must spoil the precision of all"


def test_what_is_unseen_has_no_part():
    generator = torch.Generator().manual_seed(0)
    cube = torch.randn(20, 9, 9, generator=generator, dtype=torch.float64)
    holed = cube.clone()
    holed[3, :, 6:] = torch.nan
    seen = seen_pixels(holed)
    assert seen.sum() == 54
    values, known = Patches(holed, seen, 2).at(torch.tensor([4]), torch.tensor([5]))
    template = torch.ones(1, 13, 1, dtype=torch.float64) * known[..., None]
    b, a = PatchStatistics.learned(values, known).left_out(template)
    only = learned(values[:, known[0]]).left_out(template[:, known[0]])
    assert torch.allclose(b, only[0], rtol=1e-6) and torch.allclose(a, only[1], rtol=1e-6)
    with pytest.raises(InputError, match="change with time"):
        seen_pixels(torch.ones(5, 4, 4))


def test_patches_are_discs_of_the_cube():
    cube = torch.arange(3 * 6 * 7, dtype=torch.float64).reshape(3, 6, 7)
    values, known = Patches(cube, torch.ones(6, 7, dtype=torch.bool), 1).at(torch.tensor([2, 0]), torch.tensor([3, 0]))
    rows, columns = (torch.tensor([2, 3]) + disc(1)).unbind(1)
    assert torch.equal(values[0], cube[:, rows, columns].mT) and bool(known[0].all())
    assert known[1].tolist() == [False, False, True, True, True] and bool((values[1, :2] == 0).all())
