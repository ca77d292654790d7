"""Training data: every item the same whoever asks, and files that do not fit refused by name."""

import numpy as np
import pytest
import tifffile
import torch

from obverse.errors import FormatError, InputError
from obverse.learning.data import Crops, Dataset, as_unit, places
from obverse.learning.images import read_images
from obverse.learning.pairs import Pairs, read_pairs
from obverse.noise.base import stream
from tests.learning.conftest import curve, trained


def test_every_pass_visits_each_item_once_in_an_order_of_its_own():
    found = [place.index for place in places(5, 0, 15, seed=0)]
    passes = [found[start : start + 5] for start in (0, 5, 10)]
    assert all(sorted(one) == [0, 1, 2, 3, 4] for one in passes)
    assert len({tuple(one) for one in passes}) > 1
    assert found != [place.index for place in places(5, 0, 15, seed=1)]


def test_an_item_depends_on_its_place_alone():
    data = Crops([torch.rand(1, 20, 30, generator=stream(0, i)) for i in range(5)], 8)
    straight = [data.item(p.index, p.generator) for p in places(5, 0, 12, seed=3)]
    backwards = [data.item(p.index, p.generator) for n in reversed(range(12)) for p in places(5, n, 1, seed=3)]
    for one, other in zip(straight, reversed(backwards), strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(straight[0], straight[5]) and isinstance(data, Dataset)


def test_places_and_crops_never_change_their_meaning():
    """A recipe has to give the same bytes in years to come; these figures were taken when it was first written."""
    found = places(10, 7, 6, seed=0)
    assert [place.index for place in found] == [0, 8, 1, 9, 1, 3]
    assert [place.generator.initial_seed() for place in found[:2]] == [4625441644015172652, 71300412144211962]
    crops = Crops([torch.arange(12.0 * 14).reshape(1, 12, 14)], 8)
    corners = [crops.item(0, stream(0, number))[0, [0, 0, 7], [0, 7, 0]].tolist() for number in range(4)]
    assert corners == [[110, 103, 12], [128, 30, 135], [126, 133, 28], [36, 29, 134]]


def test_a_crop_is_a_turned_or_mirrored_piece():
    image = torch.arange(12.0 * 14).reshape(1, 12, 14)
    data, seen = Crops([image], 8), set()
    for number in range(200):
        crop = data.item(0, stream(0, number))[0]
        low, steps = int(crop.min()), {abs(float(crop[0, 1] - crop[0, 0])), abs(float(crop[1, 0] - crop[0, 0]))}
        row, column = divmod(low, 14)
        piece = image[0, row : row + 8, column : column + 8]
        assert steps == {1.0, 14.0} and sorted(crop.flatten().tolist()) == sorted(piece.flatten().tolist())
        seen.add((row, column, float(crop[0, 0]) - low, float(crop[0, 1]) - float(crop[0, 0])))
    assert {place[:2] for place in seen} == {(r, c) for r in range(5) for c in range(7)}
    assert len({place[2:] for place in seen}) == 8, "four quarters, each mirrored or not"


def test_crops_that_may_not_be_turned_are_not():
    image = torch.arange(12.0 * 14).reshape(1, 12, 14)
    upright, turned = Crops([image], 8, turned=False), Crops([image], 8)
    pieces = [upright.item(0, stream(0, number))[0] for number in range(50)]
    assert all(float(piece[0, 1] - piece[0, 0]) == 1 and float(piece[1, 0] - piece[0, 0]) == 14 for piece in pieces)
    found = [turned.item(0, stream(0, number))[0] for number in range(50)]
    assert [int(one.min()) for one in pieces] == [int(one.min()) for one in found], "cut at the same places"
    assert len({float(piece.min()) for piece in pieces}) > 10


def test_photographs_are_grey_by_luma_and_from_zero_to_one(tmp_path):
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    random = np.random.default_rng(0)
    colour, grey = random.integers(0, 256, (9, 7, 3), dtype=np.uint8), random.integers(0, 256, (9, 7), dtype=np.uint8)
    image.fromarray(colour).save(tmp_path / "a.png")
    image.fromarray(grey).save(tmp_path / "b.png")
    image.fromarray(np.dstack([colour, grey])).save(tmp_path / "c.png")
    a, b, c = read_images(tmp_path, 1)
    luma = np.round(colour @ np.array([0.299, 0.587, 0.114]))
    assert np.abs(a[0].numpy().astype(float) - luma).max() <= 1 and torch.equal(a, c)
    assert torch.equal(as_unit(b), torch.from_numpy(grey)[None] / 255.0)
    assert torch.equal(read_images(tmp_path / "a.png", 3)[0], torch.from_numpy(colour).movedim(-1, 0))
    with pytest.raises(InputError, match=r"3 channels in b\.png, got 1"):
        read_images(tmp_path, 3)


def test_slices_and_frames_are_images_of_their_own(tmp_path):
    stack = np.random.default_rng(0).integers(0, 4000, (3, 9, 7)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "stack.ome.tif", stack, metadata={"axes": "ZYX"})
    found = read_images(tmp_path, 1)
    assert [tuple(image.shape) for image in found] == [(1, 9, 7)] * 3
    for image, plane in zip(found, stack, strict=True):
        np.testing.assert_allclose(as_unit(image)[0].numpy(), plane / 65535, rtol=1e-6)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int16, np.uint32, np.float32, ">u2", ">f4"])
def test_percentiles_bring_any_depth_to_zero_and_one(tmp_path, kind):
    values = np.random.default_rng(0).uniform(20, 120, (2, 30, 40)).astype(kind)
    tifffile.imwrite(tmp_path / "a.tif", values, metadata={"axes": "ZYX"}, byteorder=">" if ">" in str(kind) else "<")
    first, second = read_images(tmp_path, 1, percentiles=(1, 99))
    low, high = np.percentile(values, (1, 99))
    np.testing.assert_allclose(second[0].numpy(), (values[1] - low) / (high - low), rtol=1e-4, atol=1e-5)
    assert first.dtype == torch.float32


def test_pictures_that_do_not_fit_are_refused_by_name(tmp_path):
    def refused(array, match, **keywords):
        tifffile.imwrite(tmp_path / "odd.tif", array)
        with pytest.raises(InputError, match=match):
            read_images(tmp_path, 1, **keywords)

    ramp = np.arange(80, dtype=np.float32).reshape(8, 10)
    refused(ramp, r"odd\.tif.*percentiles")
    refused(ramp.astype(np.int32), r"odd\.tif.*percentiles")
    refused(np.where(ramp == 3, np.nan, ramp), r"odd\.tif.*NaN", percentiles=(0, 100))
    refused(np.ones((8, 8), np.float32), r"odd\.tif", percentiles=(1, 99))
    with pytest.raises(InputError, match="found none"):
        read_images(tmp_path / "nowhere", 1)
    (tmp_path / "odd.tif").write_bytes(b"II*\0no picture")
    with pytest.raises(FormatError, match=r"odd\.tif"):
        read_images(tmp_path, 1)


def test_a_damaged_photograph_is_refused_by_name(tmp_path):
    pytest.importorskip("PIL", reason="Pillow is not installed")
    (tmp_path / "odd.png").write_bytes(b"\x89PNG\r\n\x1a\nno picture")
    with pytest.raises(FormatError, match=r"odd\.png"):
        read_images(tmp_path, 1)


def write_hdf5(path, **arrays):
    h5py = pytest.importorskip("h5py", reason="h5py is not installed: pip install obverse[learn]")
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array
    return path


def write_zarr(path, **arrays):
    zarr = pytest.importorskip("zarr", reason="zarr is not installed: pip install obverse[learn]")
    group = zarr.open_group(str(path), mode="w")
    for name, array in arrays.items():
        group[name] = array
    return path


def write_folders(path, **arrays):
    for name, array in arrays.items():
        (path / name).mkdir(parents=True)
        for index, item in enumerate(array):
            tifffile.imwrite(path / name / f"{index}.tif", item)
    return path


WRITERS = [(write_hdf5, "p.h5"), (write_zarr, "p.zarr"), (write_folders, "p")]


def pairs(count=4, shape=(20, 24)):
    truth = np.random.default_rng(0).random((count, *shape), dtype=np.float32)
    return {"noisy": (truth / 2).astype(np.float32), "clean": truth}


@pytest.mark.parametrize("write, name", WRITERS, ids=["hdf5", "zarr", "folders"])
def test_pairs_stay_together_when_they_are_cut(tmp_path, write, name):
    arrays = pairs()
    path = write(tmp_path / name, **arrays)
    whole, cut = (read_pairs(path, "noisy", "clean", size, 1) for size in (None, 8))
    assert len(whole) == len(cut) == 4
    for index in range(4):
        measurement, truth = whole.item(index, stream(0, index))
        np.testing.assert_array_equal(truth[0].numpy(), arrays["clean"][index])
        torch.testing.assert_close(measurement, truth / 2)
        piece = cut.item(index, stream(0, index))
        assert piece.truth.shape == (1, 8, 8)
        torch.testing.assert_close(piece.measurement, piece.truth / 2)
        assert torch.equal(piece.truth, Crops([truth], 8).item(0, stream(0, index)))


@pytest.mark.parametrize("write, name", WRITERS, ids=["hdf5", "zarr", "folders"])
def test_pairs_that_do_not_match_are_refused(tmp_path, write, name):
    arrays = pairs()
    short = write(tmp_path / f"short-{name}", noisy=arrays["noisy"][:3], clean=arrays["clean"])
    with pytest.raises(InputError, match="as many measurements as truths, got 3 and 4"):
        read_pairs(short, "noisy", "clean", None, 1)
    path = write(tmp_path / name, **arrays)
    with pytest.raises(InputError, match="sharp"):
        read_pairs(path, "noisy", "sharp", None, 1)
    holed = arrays["noisy"].copy()
    holed[2, 3, 3] = np.nan
    path = write(tmp_path / f"holed-{name}", noisy=holed, clean=arrays["clean"])
    with pytest.raises(InputError, match="NaN"):
        read_pairs(path, "noisy", "clean", None, 1).item(2, stream(0, 0))
    other = write(tmp_path / f"other-{name}", noisy=arrays["noisy"][:, ::2, ::2], clean=arrays["clean"])
    with pytest.raises(InputError, match="size"):
        read_pairs(other, "noisy", "clean", 8, 1).item(0, stream(0, 0))


def test_arrays_are_read_an_item_at_a_time():
    class Counting:
        def __init__(self):
            self.asked = []

        def __len__(self):
            return 10**9

        def __getitem__(self, index):
            self.asked.append(index)
            return np.zeros((2, 3), np.float32)

    one, other = Counting(), Counting()
    Pairs(one, other).item(123_456_789, stream(0, 0))
    assert one.asked == other.asked == [123_456_789]


def test_measurements_may_have_another_shape_and_be_complex(tmp_path):
    spectra = np.fft.rfft2(np.random.default_rng(0).random((3, 2, 8, 8))).astype(np.complex64)
    path = write_hdf5(tmp_path / "a.h5", y=spectra, x=np.zeros((3, 8, 8)))
    item = read_pairs(path, "y", "x", None, 1).item(1, stream(0, 0))
    assert item.measurement.shape == (2, 8, 5) and item.measurement.dtype == torch.complex64
    assert item.truth.shape == (1, 8, 8) and item.truth.dtype == torch.float32
    torch.testing.assert_close(item.measurement, torch.from_numpy(spectra[1]))


def test_a_file_that_is_none_is_refused(tmp_path):
    pytest.importorskip("h5py", reason="h5py is not installed: pip install obverse[learn]")
    (tmp_path / "a.h5").write_bytes(b"no file of that kind")
    with pytest.raises(FormatError, match=r"a\.h5"):
        read_pairs(tmp_path / "a.h5", "y", "x", None, 1)
    with pytest.raises(InputError, match="found none"):
        read_pairs(tmp_path / "b.h5", "y", "x", None, 1)


def test_a_recipe_trains_on_pairs(recipe, tmp_path):
    truth = torch.nn.functional.avg_pool2d(torch.rand(4, 1, 24, 24, generator=stream(0, 0)), 3, 1, 1)
    noisy = truth + 0.1 * torch.randn(truth.shape, generator=stream(0, 1))
    path = str(
        write_folders(tmp_path / "p", noisy=(noisy[:, 0] / 2 + 0.25).clamp(0, 1).numpy(), clean=truth[:, 0].numpy())
    )
    data = {
        "kind": "pairs",
        "train": path,
        "validation": path,
        "measurement": "noisy",
        "truth": "clean",
        "licence": "-",
    }
    recipe |= {
        "data": data | {"crop": 8},
        "objective": {"kind": "Paired"},
        "network": {"kind": "UNet", "inputs": 1, "outputs": 1, "widths": [4], "blocks": 1},
        "rate": 1e-2,
        "steps": 30,
        "average": 0.8,
        "validate_every": 1,
    }
    trained(recipe, tmp_path / "out")
    decibels = curve(tmp_path / "out", "psnr")
    assert decibels[-1] > decibels[0] + 3
    with pytest.raises(InputError, match="Denoising expects data of kind images, got pairs"):
        trained(recipe | {"objective": {"kind": "Denoising"}}, tmp_path / "no")
