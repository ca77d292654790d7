"""P2: operators are linear, batch-transparent, immutable, picklable, and keep dtype and device."""

import pickle

import pytest
import torch

from obverse.errors import NumericsError
from obverse.operators import LinearOperator, check
from tests.operators.cases import CASES
from tests.operators.test_check import (
    AdaptsBuffer,
    Affine,
    CountsCalls,
    LosesPrecision,
    MixesBatch,
    ModifiesInput,
    Mutable,
    NotPicklable,
)
from tests.operators.test_conformance import descendants, unregistered


@pytest.mark.parametrize("name", CASES)
def test_operator_is_a_value(name):
    A = CASES[name].make(torch.float32)
    generator = torch.Generator().manual_seed(0)
    x, z = torch.randn((2, 3, *A.image_shape), generator=generator, dtype=A.dtype)
    kept, first = x.clone(), A(x)
    torch.testing.assert_close(A(0.3 * x - 2 * z), 0.3 * first - 2 * A(z), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(torch.stack([A(item) for item in x]), first, rtol=1e-5, atol=1e-6)
    assert torch.equal(x, kept) and torch.equal(A(x), first)
    assert first.device == x.device and first.dtype.to_complex() == A.dtype.to_complex()
    assert torch.equal(pickle.loads(pickle.dumps(A))(x), first)  # noqa: S301 — made in this very line
    for attribute in A.__dict__:
        with pytest.raises(AttributeError, match="immutable"):
            setattr(A, attribute, None)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", CASES)
def test_operator_works_where_its_input_lives(name):
    A = CASES[name].make(torch.float64)
    x = torch.randn(2, *A.image_shape, dtype=A.dtype)
    for operator in (A, A.to(device="cuda")):
        assert operator(x.cuda()).device.type == "cuda"
        torch.testing.assert_close(operator(x.cuda()).cpu(), A(x))
    check(A.to(device="cuda"))


def test_an_unregistered_operator_is_noticed():
    assert not unregistered(descendants(LinearOperator), CASES)
    assert "Mask" in unregistered(descendants(LinearOperator), {k: v for k, v in CASES.items() if "mask" not in k})


@pytest.mark.parametrize(
    "wrong",
    [Affine, MixesBatch, ModifiesInput, CountsCalls, AdaptsBuffer, Mutable, NotPicklable, LosesPrecision],
)
def test_what_is_no_value_is_refused(wrong):
    with pytest.raises(NumericsError, match=wrong.__name__):
        check(wrong())
