"""Advice to the system changes nothing but time, and nothing outside the tensor."""

import sys

import pytest
import torch

from obverse import pages


def test_a_large_tensor_is_as_before():
    fresh = torch.zeros(3, 2**21)
    again = pages.in_large_pages(fresh)
    assert again is fresh and not fresh.any()
    fresh[:] = 7.0
    assert bool((fresh == 7.0).all())


def test_only_whole_pages_inside_the_tensor_are_spoken_of(monkeypatch):
    spoken = []
    monkeypatch.setattr(pages, "_advise", lambda: lambda *arguments: spoken.append(arguments))
    tensor = torch.empty(3 * 2**21 + 1000)
    pages.in_large_pages(tensor)
    ((begin, length, _),) = spoken
    assert begin % 2**21 == length % 2**21 == 0 and length > 0
    assert tensor.data_ptr() <= begin and begin + length <= tensor.data_ptr() + tensor.nbytes
    pages.in_large_pages(torch.empty(1000))
    assert len(spoken) == 1, "small tensors are left alone"


@pytest.mark.skipif(sys.platform != "linux", reason="the call is Linux's")
def test_on_linux_there_is_such_a_call():
    assert pages._advise() is not None
