"""Filtered back-projection by compiled kernels against the plain loops in torch: values, threads and derivatives."""

import math

import pytest
import torch

from obverse.operators import ConeBeam, FanBeam, Radon
from tests.operators.case import random

_TURN = torch.arange(10, dtype=torch.float64) * 2 * math.pi / 10
_FAR = {"source_distance": 40.0, "detector_distance": 20.0}


def parallel(engine, offset=1.3):
    return Radon((2, 11, 8), _TURN / 2, spacing=0.9, detector_offset=offset, dtype=torch.float64, engine=engine)


def flat(engine, offset=1.3):
    return FanBeam((1, 11, 8), _TURN, 14, **_FAR, detector_offset=offset, dtype=torch.float64, engine=engine)


def arc(engine, offset=1.3):
    geometry = {**_FAR, "detector": "arc", "detector_offset": offset}
    return FanBeam((1, 11, 8), _TURN, 14, **geometry, dtype=torch.float64, engine=engine)


def cone(engine, offset=1.3):
    geometry = {**_FAR, "detector_offset": (0.6, offset), "detector_spacing": (1.4, 1.5)}
    return ConeBeam((1, 5, 6, 7), _TURN, (8, 9), **geometry, dtype=torch.float64, engine=engine)


@pytest.mark.parametrize("make", [parallel, flat, arc, cone])
class TestEngines:
    """The kernels see detectors that are smaller than the image and off its centre."""

    @pytest.fixture(autouse=True)
    def kernels(self):
        pytest.importorskip("numba")
        from obverse.operators import smear_kernels

        return smear_kernels

    @pytest.mark.parametrize(("dtype", "limit"), [(torch.float64, 1e-13), (torch.float32, 1e-5)])
    def test_values(self, make, dtype, limit):
        y = random(3, *make("numba").data_shape).to(dtype)
        plain = make("torch").filtered_backprojection(y)
        assert float((make("numba").filtered_backprojection(y) - plain).norm() / plain.norm()) < limit
        moved = make("numba", 1.301).filtered_backprojection(y)
        assert float((moved - plain).norm() / plain.norm()) > 10 * limit

    def test_the_number_of_threads_does_not_matter(self, make, kernels, monkeypatch):
        A, images = make("numba"), []
        y, before = random(*A.data_shape), torch.get_num_threads()
        monkeypatch.setattr(kernels, "_THREADS_FROM", 0)
        for threads in (1, 2, 3):
            monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
            images.append(A.filtered_backprojection(y))
        monkeypatch.undo()
        assert torch.get_num_threads() == before
        assert torch.equal(images[0], images[1]) and torch.equal(images[0], images[2])

    def test_derivatives(self, make):
        A = make("numba")
        y, v = random(*A.data_shape).requires_grad_(), random(*A.image_shape).requires_grad_()
        image = A.filtered_backprojection(y)
        (back,) = torch.autograd.grad(image, y, v, create_graph=True)
        (again,) = torch.autograd.grad(back, v, y)  # ⟨Kᴴ v, y⟩ by v: K y
        torch.testing.assert_close(again, image)
        torch.testing.assert_close((back * y).sum(), (v * image).sum())
        tangent = torch.func.jvp(A.filtered_backprojection, (y,), (2 * y,))[1]
        torch.testing.assert_close(tangent, 2 * image)
        rows = torch.func.vmap(A.filtered_backprojection, in_dims=1)(torch.stack((y, -y), 1))
        torch.testing.assert_close(rows, torch.stack((image, -image)))
