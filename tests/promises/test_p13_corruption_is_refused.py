"""P13: a file of which any byte has changed is refused. The safetensors library alone loads a flipped byte silently."""

import pytest
import safetensors
import safetensors.numpy
import torch

from obverse.errors import FormatError
from obverse.posterior import LowRankDiagonal, Posterior
from obverse.solvers.result import Status


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "posterior.safetensors"
    generator = torch.Generator().manual_seed(0)
    U = torch.linalg.qr(torch.randn(144, 4, generator=generator))[0]
    covariance = LowRankDiagonal(U, torch.arange(1.0, 5.0), torch.ones(144), (1, 12, 12))
    mean = torch.randn(1, 12, 12, generator=generator)
    facts = {"seed": 0, "method": "Gaussian"}
    done = Status(True, "closed-form", "Known in closed form.")
    Posterior(mean, done, covariance=covariance, provenance=facts).save(path)
    return path


def refused(path, content: bytes) -> bool:
    path.write_bytes(content)
    try:
        Posterior.load(path)
    except FormatError:
        return True
    return False


@pytest.mark.parametrize("mask", [0x01, 0x20, 0x80, 0xFF])
def test_every_97th_byte_flipped_is_refused(saved, tmp_path, mask):
    content = saved.read_bytes()
    assert not refused(tmp_path / "a", content), "the untouched file loads"
    places = range(0, len(content), 97)
    assert len(places) > 30
    for place in places:
        changed = bytearray(content)
        changed[place] ^= mask
        assert refused(tmp_path / "a", bytes(changed)), f"byte {place} of {len(content)}"


def test_every_byte_of_the_header_is_guarded(saved, tmp_path):
    """Names, shapes, provenance and padding too, and the checksum itself."""
    content = saved.read_bytes()
    for place in range(8 + int.from_bytes(content[:8], "little")):
        changed = bytearray(content)
        changed[place] ^= 0x01
        assert refused(tmp_path / "a", bytes(changed)), f"byte {place}"


def test_truncated_and_extended_files_are_refused(saved, tmp_path):
    content = saved.read_bytes()
    for place in [*range(0, len(content), len(content) // 50), len(content) - 1]:
        assert refused(tmp_path / "a", content[:place]), f"cut at {place}"
    assert refused(tmp_path / "a", content + b"\0")


def test_swapped_arrays_are_refused(saved, tmp_path):
    content = saved.read_bytes()
    changed = content.replace(b'"mean"', b'"meme"').replace(b'"diagonal"', b'"mean\\u0020"')
    assert changed != content and refused(tmp_path / "a", changed)


def test_the_library_alone_would_not_notice(saved, tmp_path):
    """Negative control: without our checksum a flipped byte is loaded as if nothing had happened."""
    changed = bytearray(saved.read_bytes())
    changed[-10] ^= 0x40
    (tmp_path / "a").write_bytes(changed)
    loaded = safetensors.numpy.load_file(tmp_path / "a")
    assert any((array != safetensors.numpy.load_file(saved)[name]).any() for name, array in loaded.items())
    with pytest.raises(FormatError, match="SHA-256"):
        Posterior.load(tmp_path / "a")
