"""A calibration as a value: what it does to a posterior, what it refuses, and the file that brings it back."""

import dataclasses
import json
import math

import pytest
import torch

from obverse.errors import FormatError, InputError
from obverse.posterior import Posterior
from obverse.posterior.calibration import Calibration, Strata
from tests.posterior.cases import DONE, SHAPE, from_dense, normal, positive

LABELS = (torch.arange(40).reshape(SHAPE) % 3).long()
ONE = Calibration("split-conformal", 0.9, (2.0,), 100, "In at least 90% of new images …")
THREE = Calibration("k-rcps", 0.9, (0.5, 1.0, 3.0), 100, "…", strata=Strata.from_labels(LABELS))


def known(**options) -> Posterior:
    return Posterior(normal(*SHAPE, seed=9), DONE, covariance=from_dense(positive(40), SHAPE), **options)


def test_one_factor_scales_everything_about_the_mean():
    posterior = known(draws=normal(120, *SHAPE), provenance={"method": "Test"}, diagnostics={"seconds": 1.0})
    found = ONE.apply(posterior)
    assert torch.equal(found.mean, posterior.mean) and torch.allclose(found.std, 2 * posterior.std)
    assert torch.allclose(found.draws - found.mean, 2 * (posterior.draws - posterior.mean))
    low, high = found.interval(level=0.9)
    before = posterior.interval(level=0.9)
    assert torch.allclose(high - found.mean, 2 * (before[1] - posterior.mean))
    assert torch.allclose(low - found.mean, 2 * (before[0] - posterior.mean))
    assert found.diagnostics["calibration"] == "split-conformal" and found.diagnostics["calibration_images"] == 100
    assert found.provenance["method"] == "Test"
    assert found.provenance["calibration"]["guarantee"] == ONE.guarantee
    assert posterior.provenance == {"method": "Test"}, "what is calibrated is left as it was"


@pytest.mark.parametrize("compact", [False, True])
def test_a_factor_for_each_stratum_keeps_correlations(compact):
    posterior = known().compact(40) if compact else known()
    found = THREE.apply(posterior)
    scale = torch.tensor([0.5, 1.0, 3.0]).double()[LABELS].reshape(-1)
    assert torch.allclose(found.covariance.dense(), scale[:, None] * posterior.covariance.dense() * scale, atol=1e-6)
    assert torch.allclose(found.std.reshape(-1), scale * posterior.std.reshape(-1))
    drawn = THREE.apply(known(draws=normal(4, *SHAPE)))
    away = (drawn.draws - drawn.mean).flatten(1) / (normal(4, *SHAPE) - drawn.mean).flatten(1)
    assert torch.allclose(away, scale.expand(4, 40))
    assert "map" not in found.provenance["calibration"]["strata"], "a map as large as the image is not copied"


def test_a_calibrated_posterior_is_stored_and_cropped_like_any_other(tmp_path):
    for calibration in (ONE, THREE):
        found = calibration.apply(known()).compact(7)
        path = tmp_path / f"{calibration.method}.safetensors"
        found.save(path)
        loaded = Posterior.load(path)
        assert torch.allclose(loaded.std, found.std, rtol=1e-5)
        assert loaded.provenance["calibration"]["factors"] == list(calibration.factors)
        part = found.crop((slice(1, 4), slice(0, 2)))
        assert torch.allclose(part.std, found.std[:, 1:4, 0:2])
        assert part.provenance["calibration"]["count"] == 100


def test_a_posterior_is_calibrated_once_and_only_as_its_own_kind():
    with pytest.raises(InputError, match="calibrated already|has been calibrated"):
        ONE.apply(THREE.apply(known()))
    with pytest.raises(InputError, match="epistemic"):
        ONE.apply(known(target="epistemic"))
    assert dataclasses.replace(ONE, target="epistemic").apply(known(target="epistemic")).target == "epistemic"
    with pytest.raises(InputError, match="images of this size"):
        THREE.apply(known().crop((slice(0, 3),)))


def test_impossible_factors_are_refused():
    for factors in ((), (0.0,), (math.inf,), (math.nan,), (1.0, 2.0)):
        with pytest.raises(InputError, match="1 finite factors"):
            dataclasses.replace(ONE, factors=factors)
    with pytest.raises(InputError, match="3 finite factors"):
        dataclasses.replace(THREE, factors=(1.0,))
    with pytest.raises(InputError, match="target"):
        dataclasses.replace(ONE, target="truth")


@pytest.mark.parametrize("calibration", [ONE, THREE])
def test_a_saved_calibration_comes_back(tmp_path, calibration):
    path = tmp_path / "calibration.json"
    calibration.save(path)
    assert Calibration.load(path) == calibration
    assert json.loads(path.read_text())["guarantee"] == calibration.guarantee
    with pytest.raises(InputError, match="existing"):
        calibration.save(path)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "other.json"
    for text in ("[1]", "{", '{"format": "obverse-calibration", "version": 2}', '{"a": 1}'):
        path.write_text(text)
        with pytest.raises(FormatError, match="saved calibration"):
            Calibration.load(path)
    path.write_text('{"format": "obverse-calibration", "version": 1, "level": 0.9}')
    with pytest.raises(FormatError, match="incomplete"):
        Calibration.load(path)
    with pytest.raises(InputError, match="readable"):
        Calibration.load(tmp_path / "absent.json")
