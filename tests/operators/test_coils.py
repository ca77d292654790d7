"""Coils: the fused Gram operator of a scan, solving, and what is refused."""

import pytest
import torch

from obverse.errors import InputError, NumericsError
from obverse.operators import Coils, Fourier, Mask, check
from obverse.solvers import cg
from tests.operators.case import random
from tests.operators.cases_coils import maps


def scan(sensitivities, mask, image_shape=None):
    coils = Coils(sensitivities, image_shape)
    return Fourier(coils.data_shape, mask, coils.dtype) @ coils


_MASKS = {
    "all": None,
    "columns": random(5) > 0.5,
    "rows": random(6, 1) > 0.5,
    "points": random(6, 5),
    "for each coil": random(3, 6, 5),
}


@pytest.mark.parametrize("mask", _MASKS.values(), ids=_MASKS.keys())
@pytest.mark.parametrize("sets", [1, 2])
def test_the_gram_operator_of_a_scan_equals_its_definition(mask, sets):
    A = scan(maps(sets, 3, 6, 5), mask, (sets, 6, 5))
    x = torch.randn(2, *A.image_shape, dtype=A.dtype, generator=torch.Generator().manual_seed(0))
    weights = [None, 2.0, torch.tensor(0.5), random(3, 6, 5), random(3, 1, 1), random(3, 1, 1).expand(3, 6, 5)]
    weights += [random(6, 1), random(5), random(2, 3, 6, 5), random(2, 1, 6, 5)]
    for weight in weights:
        y = A(x)
        torch.testing.assert_close(A.gram(x, weight), A.adjoint(y if weight is None else weight * y))


@pytest.mark.parametrize("sets", [1, 2])
def test_coils_may_be_taken_a_few_at_a_time(monkeypatch, sets):
    A = scan(maps(sets, 3, 6, 5), _MASKS["points"], (sets, 6, 5))
    x = torch.randn(2, *A.image_shape, dtype=A.dtype, generator=torch.Generator().manual_seed(0))
    taken, original = [], Fourier._gram
    monkeypatch.setattr(Fourier, "_gram", lambda self, y, w: taken.append(y.shape[-3]) or original(self, y, w))
    for together, coils in ((1 << 19, [3]), (2 * 2 * 6 * 5, [2, 1]), (1, [1, 1, 1])):
        monkeypatch.setattr("obverse.operators.coils._TOGETHER", together)
        taken.clear()
        torch.testing.assert_close(A.gram(x, random(6, 1)), A.adjoint(random(6, 1) * A(x)))
        assert taken == coils


def test_axes_on_which_the_mask_does_not_depend_are_not_transformed(monkeypatch):
    transformed = []
    original = torch.fft.fftn
    monkeypatch.setattr(torch.fft, "fftn", lambda x, dim: transformed.append(dim) or original(x, dim=dim))
    x = torch.ones(1, 6, 5, dtype=torch.complex128)
    for mask, axes in (
        (None, set()),
        (_MASKS["columns"], {(-1,)}),
        (_MASKS["columns"].expand(3, 6, 5), {(-1,)}),
        (_MASKS["rows"], {(-2,)}),
        (_MASKS["points"], {(-2, -1)}),
    ):
        transformed.clear()
        scan(maps(3, 6, 5), mask).gram(x)
        assert set(transformed) == axes


def test_a_scan_recovers_what_its_mask_folds_over():
    sensitivities, mask = maps(4, 8, 6), torch.zeros(8, 1)
    mask[::2] = 1
    A = scan(sensitivities, mask)
    x = torch.randn(A.image_shape, dtype=A.dtype, generator=torch.Generator().manual_seed(0))
    y = A(x)
    torch.testing.assert_close(A.solve(A.adjoint(y), 1e-10, tolerance=1e-13), x, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(cg(A.gram, A.adjoint(y), tolerance=1e-12).x, x)
    blind = scan(sensitivities[:1].expand(4, 8, 6).contiguous(), mask)  # coils that see alike cannot unfold
    assert (blind.solve(blind.adjoint(blind(x)), 1e-10) - x).norm() > 0.1 * x.norm()


def test_coils_solve_in_closed_form():
    A = Coils(maps(3, 4, 5))
    b = torch.randn(2, *A.image_shape, dtype=A.dtype, generator=torch.Generator().manual_seed(0))
    for weight in (None, 2.0, random(3, 4, 5), random(3, 1, 1)):
        x = A.solve(b, 1e-3, weight, max_iterations=0)
        torch.testing.assert_close(A.gram(x, weight) + 1e-3 * x, b)
    assert Coils(maps(2, 3, 4, 5), (2, 4, 5)).solve(torch.ones(2, 4, 5, dtype=A.dtype), 0.1).shape == (2, 4, 5)


class Forgetful(Mask):
    """Its Gram operator forgets to apply the mask twice."""

    def _gram(self, x, weight):
        return self._apply(x) if weight is None else weight * self._apply(x)


def test_a_wrong_gram_operator_is_caught():
    A = Forgetful(torch.full((3, 4, 5), 0.5), dtype=torch.complex128) @ Coils(maps(3, 4, 5))
    x = torch.ones(A.image_shape, dtype=A.dtype)
    assert not torch.allclose(A.gram(x), A.adjoint(A(x)))
    with pytest.raises(NumericsError, match="gram"):
        check(A)


def test_bad_maps_end_in_one_sentence():
    good = maps(3, 4, 5)
    for wrong in (good.real, good[0], good * float("nan")):
        with pytest.raises(InputError, match="Coils expects"):
            Coils(wrong)
    for shape in ((2, 4, 5), (1, 4, 4), (1, 3, 4, 5), (4, 5)):
        with pytest.raises(InputError, match="Coils expects"):
            Coils(good, shape)
