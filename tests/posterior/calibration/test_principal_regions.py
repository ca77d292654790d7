"""Regions in the leading components: radius of the right posterior, coverage of wrong ones, energy left out."""

import dataclasses
import math

import numpy as np
import pytest
import scipy

from obverse.errors import FormatError, InputError
from obverse.posterior.calibration import Calibration, PrincipalRegions, principal_regions
from tests.posterior.cases import gaussian_pairs, normal

COUNT = 150
RADII = {
    "ellipsoid": float(scipy.stats.chi2.ppf(0.9, 3) ** 0.5),
    "box": float(scipy.stats.norm.ppf((1 + 0.9 ** (1 / 3)) / 2)),
}


def covered(found: PrincipalRegions, posteriors, truths) -> float:
    return float(np.mean([found.of(p).contains(t) for p, t in zip(posteriors, truths)]))


@pytest.mark.parametrize("kind", RADII)
def test_the_right_posterior_keeps_the_textbook_radius(kind):
    found = principal_regions(*gaussian_pairs(COUNT), kind=kind, components=3)
    assert found.radius == pytest.approx(RADII[kind], rel=0.1)
    assert covered(found, *gaussian_pairs(COUNT, seed=50)) == pytest.approx(0.9, abs=3 * (2 * 0.09 / COUNT) ** 0.5)


@pytest.mark.parametrize("kind", RADII)
def test_a_wrong_size_is_mended(kind):
    right = principal_regions(*gaussian_pairs(COUNT), kind=kind, components=3)
    found = principal_regions(*gaussian_pairs(COUNT, lambda m: m / 4), kind=kind, components=3)
    fresh = gaussian_pairs(COUNT, lambda m: m / 4, seed=50)
    assert found.radius == pytest.approx(2 * right.radius)
    assert covered(dataclasses.replace(found, radius=RADII[kind]), *fresh) < 0.7, "uncalibrated"
    assert covered(found, *fresh) == pytest.approx(0.9, abs=3 * (2 * 0.09 / COUNT) ** 0.5)


def test_a_region_reaches_as_far_as_it_says():
    posteriors, truths = gaussian_pairs(60)
    for kind, unit in (("ellipsoid", math.pi), ("box", 4.0)):
        region = principal_regions(posteriors, truths, kind=kind, components=2).of(posteriors[0])
        assert region.log_volume == pytest.approx(math.log(unit * float(region.half_widths.prod())))
        for k, reach in enumerate(region.half_widths.tolist()):
            step = reach * region.components.directions[k]
            assert region.contains(region.mean + 0.999 * step) and not region.contains(region.mean - 1.001 * step)
        corner = (region.half_widths[:, None, None, None] * region.components.directions).sum(0)
        assert region.contains(region.mean + 0.999 * corner) == (kind == "box")
        beyond = normal(1, 5, 4, seed=3)
        along = (region.components.directions * beyond).flatten(1).sum(1)
        beyond = beyond - (along[:, None, None, None] * region.components.directions).sum(0)
        assert region.contains(region.mean + 100 * beyond), "nothing is said of what the components leave out"


def test_the_number_of_components_reaches_the_share_of_energy():
    pairs, fresh = gaussian_pairs(2 * COUNT), gaussian_pairs(COUNT, seed=50)
    found = principal_regions(*pairs, components=10, left_out=0.25)

    def outside(k):
        lost = []
        for p, t in zip(*fresh):
            error = (t - p.mean).flatten()
            along = p.components(10).directions[:k].flatten(1) @ error
            lost.append(1 - float(along.square().sum() / error.square().sum()))
        return np.mean(lost)

    assert outside(found.components) <= 0.25 < outside(found.components - 2)
    assert found.count == COUNT and found.computed == 10 and found.components < 10
    assert covered(found, *fresh) == pytest.approx(0.9, abs=3 * (2 * 0.09 / COUNT) ** 0.5)
    assert found.left_out == pytest.approx(outside(found.components), abs=0.03)
    assert found.left_out < found.left_out_bound < found.left_out + 0.1
    with pytest.raises(InputError, match="leave out .* allow more components"):
        principal_regions(*pairs, components=1, left_out=0.05)
    with pytest.raises(InputError, match="at least 45 calibration images in the first half, got 10"):
        principal_regions(*(part[:20] for part in pairs), left_out=0.05)


def test_what_was_found_can_be_stored(tmp_path):
    posteriors, truths = gaussian_pairs(30)
    found = principal_regions((p for p in posteriors), truths, components=2)
    found.save(tmp_path / "regions.json")
    assert PrincipalRegions.load(tmp_path / "regions.json") == found
    with pytest.raises(FormatError, match="calibration"):
        Calibration.load(tmp_path / "regions.json")
    (tmp_path / "other.json").write_text('{"format": "obverse-principal-regions", "version": 1}')
    with pytest.raises(FormatError, match="incomplete"):
        PrincipalRegions.load(tmp_path / "other.json")


def test_unusable_input_is_refused():
    posteriors, truths = gaussian_pairs(30)
    with pytest.raises(InputError, match="ellipsoid, box"):
        principal_regions(posteriors, truths, kind="ball")
    with pytest.raises(InputError, match="at least one component"):
        principal_regions(posteriors, truths, components=0)
    for share in (0.0, 1.0, -0.1):
        with pytest.raises(InputError, match="left_out expects a share"):
            principal_regions(posteriors, truths, components=2, left_out=share)
    with pytest.raises(InputError, match="delta expects a probability"):
        principal_regions(posteriors, truths, components=2, delta=0.0)
    with pytest.raises(InputError, match="at least 9"):
        principal_regions(posteriors[:5], truths[:5], components=2)
    other = dataclasses.replace(posteriors[0], target="epistemic")
    with pytest.raises(InputError, match="epistemic"):
        principal_regions(posteriors, truths, components=2).of(other)
    flat = [dataclasses.replace(p, covariance=p.covariance.scaled(1e-300).scaled(1e-30)) for p in posteriors]
    with pytest.raises(InputError, match="no variance"):
        principal_regions(flat, truths, components=2)
