"""Tiles partition the grid, stay within memory, and a budget that cannot do is refused with the one that would."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from obverse.errors import InputError
from obverse.run.plan import parse_memory, plan


@given(
    shape=st.lists(st.integers(16, 200), min_size=2, max_size=3),
    halo=st.integers(0, 8),
    fraction=st.floats(0.05, 2.0),
)
def test_cores_partition_the_grid_and_halos_stay_inside(shape, halo, fraction):
    per_voxel = 100.0
    smallest = per_voxel * np.prod([min(n, 2 * max(16, 2 * halo) + 2 * halo) for n in shape])
    memory = max(int(fraction * per_voxel * np.prod(shape)), int(smallest))
    made = plan(shape, [halo] * len(shape), bytes_per_voxel=per_voxel, fixed_bytes=0, memory=memory)
    count = np.zeros(shape, int)
    for tile in made.tiles:
        count[tile.core] += 1
        assert np.prod([r.stop - r.start for r in tile.read]) * per_voxel <= memory
        for core, read, inner, n in zip(tile.core, tile.read, tile.inner, shape):
            assert 0 <= read.start <= core.start < core.stop <= read.stop <= n
            assert core.start - read.start == min(halo, core.start)
            assert read.stop - core.stop == min(halo, n - core.stop)
            assert (inner.start, inner.stop) == (core.start - read.start, core.stop - read.start)
    assert (count == 1).all()


def test_what_fits_is_one_tile():
    made = plan((64, 64), (5, 5), bytes_per_voxel=10, fixed_bytes=100, memory=10 * 64 * 64 + 100)
    assert made.whole and made.tiles[0].core == (slice(0, 64), slice(0, 64))
    assert not plan((64, 64), (5, 5), bytes_per_voxel=10, fixed_bytes=100, memory=10 * 64 * 64 + 99).whole


def test_too_small_a_budget_is_refused_with_the_number_that_would_do():
    with pytest.raises(InputError, match=r"pass --memory (\d+)MB") as refused:
        plan((4096, 4096), (32, 32), bytes_per_voxel=1000, fixed_bytes=0, memory=10**6)
    enough = refused.value.args[0].split("--memory ")[1].split(" ")[0]
    assert not plan((4096, 4096), (32, 32), bytes_per_voxel=1000, fixed_bytes=0, memory=parse_memory(enough)).whole


@pytest.mark.parametrize(
    ("text", "size"), [("4GB", 4 * 10**9), ("512MiB", 512 * 2**20), ("2g", 2 * 10**9), ("1.5 kB", 1500), ("100", 100)]
)
def test_memory_sizes(text, size):
    assert parse_memory(text) == size


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "0", "four", "1e3GB", "4XB"])
def test_bad_memory_sizes(text):
    with pytest.raises(InputError, match="memory size"):
        parse_memory(text)
