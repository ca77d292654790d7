"""Sources turn the right way about the right point; between pixels, while exposed, behind a coronagraph, in bands."""

import math
import os
from pathlib import Path

import pytest
import torch

from obverse.errors import InputError
from obverse.operators import FieldRotation, Rotate
from obverse.operators.full_width import full_width_at_half_maximum

ANGLES = (0.0, 17.0, 45.0, -100.0, 213.0)


def gaussian(size=15, fwhm=4.0, centre=(0.0, 0.0)):
    axes = [torch.arange(size, dtype=torch.float64) - size // 2 - c for c in centre]
    return torch.exp(-4 * math.log(2) * (axes[0][:, None] ** 2 + axes[1] ** 2) / fwhm**2)


def blobs(size, places, fwhm=4.0):
    """A round Gaussian at each (row, column), by its formula."""
    rows, columns = (torch.arange(n, dtype=torch.float64) for n in size)
    frames = [(rows[:, None] - row) ** 2 + (columns - column) ** 2 for row, column in places]
    return torch.exp(-4 * math.log(2) * torch.stack(frames) / fwhm**2)


def seen(position, centre, degrees):
    """x = c_x + r cos(θ − pa), y = c_y + r sin(θ − pa)."""
    up, right = position[0] - centre[0], position[1] - centre[1]
    r, theta = math.hypot(up, right), math.atan2(up, right)
    angles = [theta - math.radians(a) for a in degrees]
    return [(centre[0] + r * math.sin(a), centre[1] + r * math.cos(a)) for a in angles]


@pytest.mark.parametrize("size", [(41, 41), (40, 40), (36, 45)])
@pytest.mark.parametrize("centre", [None, (20.0, 20.0), (17.3, 21.8)])
def test_a_source_is_where_the_convention_says(size, centre):
    A = FieldRotation((1, *size), ANGLES, gaussian(), centre=centre, dtype=torch.float64)
    position = (24.3, 27.6)
    expected = 3.0 * blobs(size, seen(position, A.centre, ANGLES))
    assert (A.source(position, 3.0) - expected).abs().max() < 2e-3
    assert torch.allclose(A.positions(position), torch.tensor(seen(position, A.centre, ANGLES), dtype=torch.float64))
    mirrored = 3.0 * blobs(size, seen(position, A.centre, [-a for a in ANGLES]))
    assert (A.source(position, 3.0) - mirrored).abs().max() > 1.0, "the wrong sign is noticed"


@pytest.mark.parametrize("size", [(41, 41), (40, 40)])
def test_a_source_on_a_pixel_is_the_image_of_that_pixel(size):
    A = FieldRotation(
        (1, *size),
        ANGLES,
        gaussian(),
        transmission=[[2.0, 15.0], [0.1, 0.9]],
        exposure_degrees=6.0,
        dtype=torch.float64,
    )
    sky = torch.zeros(A.image_shape, dtype=torch.float64)
    sky[0, 25, 27] = 2.0
    cube = A(sky)
    assert (A.source((25.0, 27.0), 2.0) - cube).abs().max() < 1e-8 * cube.max()
    assert (A.source((25.0, 27.5), 2.0) - cube).abs().max() > 5e-2 * cube.max()


def test_turning_by_the_angles_puts_a_source_back():
    A = FieldRotation((1, 41, 41), ANGLES, gaussian(), dtype=torch.float64)
    frames = Rotate((len(ANGLES), 41, 41), ANGLES, dtype=torch.float64)(A.source((26.0, 24.0)))
    assert (frames - blobs((41, 41), [(26.0, 24.0)])).abs().max() < 2e-3
    away = Rotate((len(ANGLES), 41, 41), [-a for a in ANGLES], dtype=torch.float64)(A.source((26.0, 24.0)))
    assert (away - blobs((41, 41), [(26.0, 24.0)])).abs().max() > 0.9


def test_an_exposure_smears_along_the_arc():
    A = FieldRotation((1, 61, 61), [30.0], gaussian(21), exposure_degrees=12.0, dtype=torch.float64)
    fine = [30.0 + 12.0 * (k + 0.5) / 400 - 6.0 for k in range(400)]
    expected = blobs((61, 61), seen((45.0, 42.0), A.centre, fine)).mean(0)
    smeared = A.source((45.0, 42.0))[0]
    assert (smeared - expected).abs().max() < 3e-3
    sharp = FieldRotation((1, 61, 61), [30.0], gaussian(21), dtype=torch.float64).source((45.0, 42.0))[0]
    assert (sharp - expected).abs().max() > 0.1 and abs(float(smeared.sum() / sharp.sum()) - 1) < 1e-3


def test_transmission_is_that_at_the_source():
    table = torch.tensor([[0.0, 4.0, 10.0], [0.0, 0.5, 1.0]])
    A = FieldRotation((1, 41, 41), ANGLES, gaussian(), transmission=table, dtype=torch.float64)
    bare = FieldRotation((1, 41, 41), ANGLES, gaussian(), dtype=torch.float64)
    for distance, factor in ((2.0, 0.25), (7.0, 0.75), (14.0, 1.0)):
        position = (20.0 + distance * 0.6, 20.0 + distance * 0.8)
        assert torch.allclose(A.source(position, 4.0), factor * bare.source(position, 4.0))


def test_bands_keep_their_own_psf_and_flux():
    psf = torch.stack([gaussian(fwhm=3.0), gaussian(fwhm=4.0)])
    A = FieldRotation((2, 31, 31), ANGLES, psf, wavelengths=[1.5, 2.0], dtype=torch.float64)
    assert A.data_shape == (2, 5, 31, 31) and A.wavelengths == (1.5, 2.0)
    cube = A.source((19.0, 12.0), torch.tensor([2.0, 5.0]))
    for l, flux in enumerate((2.0, 5.0)):
        one = FieldRotation((1, 31, 31), ANGLES, psf[l], dtype=torch.float64)
        assert torch.allclose(cube[l], one.source((19.0, 12.0), flux))
        sky = torch.rand(2, 31, 31, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        assert torch.allclose(A(sky)[l], one(sky[l : l + 1]))


def test_a_source_has_gradients():
    A = FieldRotation(
        (1, 13, 12), [10.0, -50.0], gaussian(9, 3.0), transmission=[[0.0, 9.0], [0.2, 1.0]], dtype=torch.float64
    )
    position = torch.tensor([7.2, 8.1], dtype=torch.float64, requires_grad=True)
    flux = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(A.source, (position, flux), fast_mode=True)
    jacobian = torch.func.jacfwd(A.source)(position.detach(), flux.detach())
    step = torch.tensor([1e-5, 0.0], dtype=torch.float64)
    numeric = (A.source(position + step, flux) - A.source(position - step, flux)) / 2e-5
    assert (jacobian[..., 0] - numeric).abs().max() < 1e-6


def test_a_source_outside_the_frame_does_not_come_in_at_its_other_side():
    A = FieldRotation((1, 21, 20), [0.0, 45.0], gaussian(), dtype=torch.float64)
    for position in ((0.0, 0.0), (20.0, 19.0), (-3.0, 10.0)):
        assert (A.source(position) - blobs((21, 20), seen(position, A.centre, A.degrees))).abs().max() < 2e-3
    sky = torch.zeros(1, 21, 20, dtype=torch.float64)
    sky[0, 0, 0] = 1.0
    assert (A(sky) - A.source((0.0, 0.0))).abs().max() < 1e-8


@pytest.mark.parametrize("side", [9, 8])
def test_a_part_of_a_source_is_cut_from_the_whole(side):
    """The whole by FFT on the grid that the operator uses, as its docstring says."""
    psf = torch.rand(2, side, 11, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    A = FieldRotation((2, 21, 24), ANGLES, psf, exposure_degrees=8.0, dtype=torch.float64)
    place, flux = torch.tensor([14.3, 19.0], dtype=torch.float64), torch.tensor([2.0, 3.0])
    rows, columns = (torch.fft.fftfreq(n, dtype=torch.float64) for n in A._grid)
    moved = [A._track(place, part) - torch.tensor([side // 2, 5]) for part in A._offsets]
    phases = [torch.exp(-2j * math.pi * (r * rows[:, None] + c * columns)) for track in moved for r, c in track]
    spectrum = torch.stack(phases).unflatten(0, (len(moved), -1)).mean(0) * torch.fft.fft2(psf, s=A._grid)[:, None]
    whole = flux[:, None, None, None] * torch.fft.ifft2(spectrum).real[..., :21, :24]
    assert len(moved) > 1 and (A.source(place, flux) - whole).abs().max() < 1e-12
    for cut in ((slice(12, 21), slice(15, 22)), (slice(3, 18, 2), slice(-4, None))):
        part = A.source(place, flux, rows=cut[0], columns=cut[1])
        assert part.shape == whole[:, :, *cut].shape and (part - whole[:, :, *cut]).abs().max() < 1e-12


@pytest.mark.parametrize("fwhm", [2.5, 4.0, 4.8, 7.3])
@pytest.mark.parametrize("size", [25, 26])
def test_width_of_a_gaussian(fwhm, size):
    assert full_width_at_half_maximum(gaussian(size, fwhm, (0.3, -0.2))) == pytest.approx(fwhm, rel=0.02)
    with pytest.raises(InputError, match="positive"):
        full_width_at_half_maximum(-gaussian(size, fwhm))


@pytest.mark.parametrize(
    ("keywords", "word"),
    [
        ({"degrees": [0.0, math.nan]}, "finite"),
        ({"degrees": []}, "none"),
        ({"psf": torch.ones(3)}, "psf"),
        ({"psf": torch.ones(2, 3, 3)}, "one PSF for each"),
        ({"psf": torch.full((3, 3), math.nan)}, "finite"),
        ({"transmission": [[1.0, 0.0], [1.0, 1.0]]}, "sort"),
        ({"transmission": [[0.0, 1.0], [-1.0, 1.0]]}, "at least zero"),
        ({"exposure_degrees": [1.0, 2.0, 3.0]}, "one exposure_degrees or 2"),
        ({"wavelengths": [1.0, 2.0]}, "wavelength"),
        ({"centre": (math.nan, 1.0)}, "finite centre"),
    ],
)
def test_bad_input_is_refused(keywords, word):
    arguments = {"image_shape": (1, 8, 8), "degrees": [0.0, 10.0], "psf": torch.ones(3, 3)}
    FieldRotation(**arguments)
    with pytest.raises(InputError, match=word):
        FieldRotation(**{**arguments, **keywords})


def test_a_source_needs_a_place_and_a_flux():
    A = FieldRotation((1, 8, 8), [0.0, 10.0], torch.ones(3, 3))
    for arguments in (((1.0, 2.0, 3.0), 1.0), ((1.0, 2.0), torch.ones(2))):
        with pytest.raises(InputError, match="source expects"):
            A.source(*arguments)


@pytest.mark.data
@pytest.mark.skipif("OBVERSE_DATA" not in os.environ, reason="needs OBVERSE_DATA")
def test_beta_pictoris_b_appears_with_the_right_sign_only():
    """The subtraction of eight principal components and a median, written out here, on the real cube."""
    fits = pytest.importorskip("astropy.io.fits")
    folder = Path(os.environ["OBVERSE_DATA"]) / "astro" / "naco_betapic"
    cube = torch.from_numpy(fits.getdata(folder / "naco_betapic_cube.fits").astype("float64"))
    angles = torch.from_numpy(fits.getdata(folder / "naco_betapic_pa.fits").astype("float64"))
    y, x = torch.meshgrid(*(torch.arange(101.0) - 50.0,) * 2, indexing="ij")
    centred = (cube - cube.mean(0)) * (y.hypot(x) > 6)
    u = torch.linalg.svd(centred.reshape(61, -1), full_matrices=False)[0][:, :8]
    residual = centred - (u @ (u.T @ centred.reshape(61, -1))).reshape(cube.shape)

    def peak(sign):
        image = Rotate(cube.shape, sign * angles, dtype=torch.float64)(residual).median(0).values
        smooth = torch.nn.functional.avg_pool2d(image[None], 5, 1, 2)[0]
        near = (y.hypot(x) > 8) & (y.hypot(x) < 40)
        inside = smooth[near]
        row, column = divmod(int(torch.where(near, smooth, -math.inf).argmax()), 101)
        return (row, column), float((inside.max() - inside.mean()) / inside.std())

    place, height = peak(+1)
    assert math.hypot(place[0] - 63, place[1] - 62) < 2 and height > 7
    elsewhere, noise = peak(-1)
    assert math.hypot(elsewhere[0] - 63, elsewhere[1] - 62) > 2 and noise < height / 1.3
