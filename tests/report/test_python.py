"""A report of a posterior from Python alone, its data on the image's grid or on another."""

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch

import obverse as ob
from obverse.errors import InputError
from obverse.posterior.calibration import Coverage
from tests.report.test_report import Page

SHAPE = (1, 32, 32)
FIELD = ob.priors.GaussianField.power_law(SHAPE, 2.0)


class Half(ob.operators.LinearOperator):
    """The left half of the orthonormal Fourier transform of a real image: complex data of another shape."""

    def __init__(self):
        super().__init__(SHAPE, (1, 32, 16), torch.float32)

    def _apply(self, x):
        return torch.fft.fft2(x, norm="ortho")[..., :16]

    def _adjoint(self, y):
        return torch.fft.ifft2(torch.nn.functional.pad(y, (0, 16)), norm="ortho").real


def blurred():
    problem = ob.Problem(ob.operators.Convolution(torch.ones(3, 3) / 9, SHAPE), ob.noise.Gaussian(0.1))
    truth = FIELD.sample(1, seed=0)[0].float()
    y = problem.simulate(truth, seed=1)
    return ob.methods.Gaussian(FIELD)(y, problem), y, problem, truth


def read(path):
    return Page(path.read_text(encoding="utf-8"))


def test_a_posterior_alone_makes_a_page(tmp_path):
    posterior, *_ = blurred()
    page = read(ob.report.make(posterior, tmp_path / "out", name="<b>a field</b>", unit="grey value"))
    assert "<b>a field</b>" in page.text and "b" not in page.tags
    assert "No measurement.safetensors is stored" in page.text and "normal density" in page.text
    with pytest.raises(InputError, match="overwrite"):
        ob.report.make(posterior, tmp_path / "out")
    assert ob.report.make(posterior, tmp_path / "out", overwrite=True).is_file()
    assert ob.report.write(tmp_path / "out").is_file(), "the page can be built again from the folder"


def test_data_and_reference_are_checked_and_shown(tmp_path):
    posterior, y, problem, truth = blurred()
    page = read(
        ob.report.make(
            posterior, tmp_path, y=y, problem=problem, reference=truth, spacing=(0.5, 0.5), spacing_unit="mm"
        )
    )
    chi2 = float(problem.chi2(posterior.mean, y))
    assert (
        f"{chi2:.4g}" in page.text and "PSNR" in page.text and "of reference pixels in their 90 % interval" in page.text
    )
    assert json.loads(page.scripts[0])["pixel"]["unit"] == "mm"
    assert "stores no command line" in page.text and "is not the one that the run wrote" not in page.text


def test_data_on_another_grid_are_checked_as_well(tmp_path):
    problem = ob.Problem(Half(), ob.noise.ComplexGaussian(0.1))
    truth = FIELD.sample(1, seed=0)[0].float()
    y = problem.simulate(truth, seed=1)
    y[..., 5] = 0  # a line that was not measured
    posterior, *_ = blurred()
    exact = ob.Posterior(truth, posterior.status, covariance=posterior.covariance)
    dropped = ob.Problem(_Without(5), ob.noise.ComplexGaussian(0.1))
    page = read(ob.report.make(exact, tmp_path, y=y, problem=dropped, reference=truth))
    residual = (y - dropped.operator(truth))[..., torch.arange(16) != 5] / 0.1
    chi2 = float((residual.abs().square()).mean())
    assert f"χ² per data value is {chi2:.3f}" in page.text and 0.9 < chi2 < 1.1
    assert "not finite" not in page.text and "carried back" in page.text
    panels = [value for _, name, value in page.attributes if name == "data-panel"]
    assert "backprojection" in panels and "residual" not in panels and "data" not in panels
    wrong = read(ob.report.make(exact, tmp_path, y=1.5 * y, problem=dropped, overwrite=True))
    assert "far above 1" in wrong.text, "negative control"


class _Without(Half):
    def __init__(self, line):
        super().__init__()
        self.line = line

    def _apply(self, x):
        found = super()._apply(x)
        found[..., self.line] = 0
        return found


def test_what_does_not_fit_is_refused(tmp_path):
    posterior, y, problem, truth = blurred()
    for wrong in ({"y": y}, {"y": y[:, :8], "problem": problem}, {"reference": truth[:, :8]}):
        with pytest.raises(InputError):
            ob.report.make(posterior, tmp_path / "out", **wrong)


def record(observed, count=200):
    levels = (0.5, 0.8, 0.9)
    errors = tuple(float(np.sqrt(a * (1 - a) / count)) for a in levels)
    return Coverage(levels, observed, errors, (1.0, 1.0, 1.0), count)


def test_coverage_is_drawn_with_its_error_bars(tmp_path):
    posterior, *_ = blurred()
    coverage = {"all pixels": record((0.5, 0.81, 0.9)), "<i>edges</i>": record((0.4, 0.6, 0.7))}
    page = read(ob.report.make(posterior, tmp_path, coverage=coverage))
    assert "calibration" in page.ids and "How often such intervals held the truth" in page.text
    assert "90.0 ± 2.1" in page.text and "<i>edges</i> at 90 %" in page.text and "all pixels at" not in page.text
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert text.count(' bar" x1=') == 6
    plain = read(ob.report.make(posterior, tmp_path, overwrite=True))
    assert "calibration" not in plain.ids


@pytest.mark.parametrize(
    "stored",
    [
        [1],
        {"a": 3},
        {"a": {"levels": [0.9], "observed": [float("inf")], "standard_errors": [0.1], "count": 3}},
        {"a": {"levels": [0.9], "observed": ["<b>"], "standard_errors": [0.1], "count": 3}},
        {"a": {"levels": [0.9, 0.5], "observed": [0.5], "standard_errors": [0.1], "count": 3}},
        {"a": {"levels": [1.9], "observed": [0.5], "standard_errors": [0.1], "count": 3}},
    ],
)
def test_a_record_that_is_none_is_left_out(tmp_path, stored):
    from dataclasses import replace

    from obverse.report.calibration import _groups

    assert _groups(stored) == []
    posterior, *_ = blurred()
    odd = replace(posterior, diagnostics={"coverage": stored if "inf" not in str(stored) else []})
    assert "calibration" not in read(ob.report.make(odd, tmp_path)).ids
    good = {"a": asdict(record((0.5, 0.8, 0.9)))}
    assert len(_groups(good)) == 1


def test_what_a_calibration_did_is_said(tmp_path):
    from obverse.posterior.calibration.calibration import Calibration

    posterior, *_ = blurred()
    wider = Calibration("split-conformal", 0.9, (1.5,), 99, "In 90 % of new images <all>.").apply(posterior)
    page = read(ob.report.make(wider, tmp_path))
    assert "calibrated by split-conformal on 99 images" in page.text and "multiplied by 1.5" in page.text
    assert "In 90 % of new images <all>." in page.text


def test_a_covariance_in_doubt_is_said_at_the_top(tmp_path):
    from dataclasses import replace

    posterior, *_ = blurred()
    doubtful = replace(posterior, diagnostics={"truncated": 0.8, "marginals_standard_error": 1.4, "newton_step": "x"})
    page = read(ob.report.make(doubtful, tmp_path))
    assert "80 % of the products with the covariance" in page.text and "standard error of 140 %" in page.text
    plain = read(ob.report.make(posterior, tmp_path, overwrite=True))
    assert "negative curvature" not in plain.text
