"""Restoration of photographs and micrographs: every scheme with a learned prior beside Tikhonov and total variation.

    deblur      the eight camera-shake kernels of Levin et al. 2009, circular, σ = 7.65/255; two for each picture
    sr2, sr3    cubic downsampling by 2 and 3, σ = 2.55/255
    inpaint     30 % of the pixels missing, σ = 2.55/255
    microscopy  Gaussian blur of 1.5 pixels, 50 electrons at the brightest, read noise of 2 electrons

Photographs are the central 240² of all of Set12 and of every sixth of CBSD68, grey, and a third of these but for
deblurring; micrographs the central 240² of a membrane stain (BBBC034) and of a tubulin reference (BioSR). Tikhonov and
TV get, for each single picture, the weight that is best against the truth, which no user could do; every other method
runs with its defaults. The figure is PSNR in dB, peak 1.

Reference: Levin, Weiss, Durand, Freeman, "Understanding and evaluating blind deconvolution algorithms", CVPR 2009.
Needs OBVERSE_DATA; the unrolled and the direct network are trained on these kernels first, into OBVERSE_TRAINED, as
`unrolled_beats_direct.py` says. Name methods or tasks on the command line to do only these; what is done is kept in the
JSON file.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import tifffile
import torch
from torch import Tensor

import obverse as ob
from obverse.learning.data import as_unit, read_images

SIDE = 240  # divisible by 2, 3 and the networks' 8
ASKED = 1.5  # dB of plug-and-play above the best TV, on deblurring
TRAINED = Path(os.environ.get("OBVERSE_TRAINED", "trained"))  # holds NAME/NAME.safetensors
DATA = Path(os.environ.get("OBVERSE_DATA", "."))
Problem = ob.problem.Problem
SLOW = "gs-pnp"  # may have done fewer cases than the others


def main() -> None:
    path = Path(__file__).with_suffix(".json")
    done = {tuple(row[:3]): row[3:] for row in (json.loads(path.read_text())["rows"] if path.exists() else [])}
    methods, tasks = schemes(), dict(TASKS)
    chosen = set(sys.argv[1:])
    for task in [name for name in tasks if name in chosen or not chosen & set(tasks)]:
        for number, (problem, truth) in enumerate(tasks[task]()):
            y = problem.simulate(truth, seed=number)
            for name in [name for name in methods if name in chosen or not chosen & set(methods)]:
                if (task, number, name) in done or not methods[name][0](task):
                    continue
                began = time.perf_counter()
                image = methods[name][1](y, problem, truth)
                seconds = time.perf_counter() - began
                done[task, number, name] = [round(psnr(image, truth), 3), round(seconds, 1)]
                print(f"{task:11}{number:3} {name:14}{done[task, number, name][0]:8.2f} dB{seconds:7.1f} s", flush=True)
                store(path, done)
    table(done)


def photographs() -> list[Tensor]:
    """Centres of grey pictures in [0, 1]: 12 and 12."""
    files = [*read_images(DATA / "natural/set12", 1), *read_images(DATA / "natural/cbsd68", 1)[::6]]
    return [centre(as_unit(image)) for image in files]


def micrographs() -> list[Tensor]:
    """Centres of micrographs, brightest at 1."""
    names = ("cells/bbbc034_aics_c0.tif", "biosr/microtubules_gt.tif")
    images = [torch.from_numpy(tifffile.imread(DATA / "microscopy" / name).astype(np.float32))[None] for name in names]
    return [centre((x - x.min()) / (torch.quantile(x[..., ::2, ::2].flatten(), 0.999) - x.min())) for x in images]


def centre(x: Tensor) -> Tensor:
    top, left = ((n - SIDE) // 2 for n in x.shape[-2:])
    return x[:, top : top + SIDE, left : left + SIDE].contiguous()


def deblur() -> Iterator[tuple[Problem, Tensor]]:
    kernels = np.load(DATA / "kernels/levin09_8.npz")
    for picture, x in enumerate(photographs()):
        for number in (picture % 8, (picture + 4) % 8):
            kernel = torch.from_numpy(kernels[f"k{number}"]).float()
            operator = ob.operators.Convolution(kernel, x.shape, boundary="circular")
            yield Problem(operator, ob.noise.Gaussian(7.65 / 255)), x


def downsampled(factor: int) -> Callable[[], Iterator[tuple[Problem, Tensor]]]:
    def problems() -> Iterator[tuple[Problem, Tensor]]:
        for x in photographs()[::3]:
            yield Problem(ob.operators.Downsample(x.shape, factor), ob.noise.Gaussian(2.55 / 255)), x

    return problems


def inpaint() -> Iterator[tuple[Problem, Tensor]]:
    for number, x in enumerate(photographs()[::3]):
        kept = torch.rand(x.shape, generator=torch.Generator().manual_seed(number)) >= 0.3
        yield Problem(ob.operators.Mask(kept.float()), ob.noise.Gaussian(2.55 / 255)), x


def microscopy() -> Iterator[tuple[Problem, Tensor]]:
    axis = torch.arange(-6, 7, dtype=torch.float32)
    profile = torch.exp(-0.5 * (axis / 1.5).square())
    kernel = torch.outer(profile, profile)
    for x in micrographs():
        operator = ob.operators.Convolution(kernel / kernel.sum(), x.shape, boundary="reflect")
        yield Problem(operator, ob.noise.PoissonGaussian(gain=1 / 50, sigma=2 / 50)), x


def schemes() -> dict[str, tuple[Callable[[str], bool], Callable[[Tensor, Problem, Tensor], Tensor]]]:
    """By name: which tasks a scheme does, and the scheme."""
    shipped = ob.priors.available()

    def everywhere(task: str) -> bool:
        return True

    def plug_and_play(prior: str, scheme: str = "hqs") -> Callable[[Tensor, Problem, Tensor], Tensor]:
        method = ob.methods.PlugAndPlay(ob.priors.load(prior), scheme)
        return lambda y, problem, truth: method(y, problem).image

    def trained(kind: type, name: str) -> Callable[[Tensor, Problem, Tensor], Tensor]:
        method = kind.load(TRAINED / name / f"{name}.safetensors")
        return lambda y, problem, truth: method(y, problem).image

    found = {
        "tikhonov": (everywhere, lambda y, problem, truth: best(smooth(truth), y, problem, truth)),
        "tv": (everywhere, lambda y, problem, truth: best(ob.priors.TotalVariation(), y, problem, truth)),
        "pnp-hqs": (everywhere, plug_and_play("natural-gray")),
    }
    if "natural-gray-gradient" in shipped:
        found["gs-pnp"] = (lambda task: task != "microscopy", plug_and_play("natural-gray-gradient", "gradient-step"))
    for name, kind in (("unrolled-levin", ob.methods.Unrolled), ("direct-levin", ob.methods.Network)):
        if (TRAINED / name / f"{name}.safetensors").exists():
            found[name] = (lambda task: task == "deblur", trained(kind, name))
    if "microscopy" in shipped:
        found["pnp-micro"] = (lambda task: task == "microscopy", plug_and_play("microscopy"))
    return found


def smooth(x: Tensor) -> "ob.priors.Prior":
    return ob.priors.Tikhonov(ob.operators.Gradient(x.shape))


def best(prior: "ob.priors.Prior", y: Tensor, problem: Problem, truth: Tensor) -> Tensor:
    """The answer at the weight that is best for this picture, to a factor of 1.4: a walk from the last one's."""

    def answer(weight: float) -> Tensor:
        return ob.methods.MAP(prior, weight=weight, tolerance=3e-3)(y, problem).image

    key = type(prior).__name__, tuple(problem.operator.data_shape), problem.noise.sigma
    here = _LAST.get(key, 8.0)
    image = answer(here)
    value, moved = psnr(image, truth), False
    for factor in (2**0.5, 0.5**0.5):
        while True:
            other = answer(here * factor)
            if psnr(other, truth) <= value:
                break
            here, image, value, moved = here * factor, other, psnr(other, truth), True
        if moved:
            break
    _LAST[key] = here
    return image


_LAST: dict[tuple, float] = {}

TASKS = {"deblur": deblur, "sr2": downsampled(2), "sr3": downsampled(3), "inpaint": inpaint, "microscopy": microscopy}


def psnr(image: Tensor, truth: Tensor) -> float:
    return float(-10 * (image - truth).double().square().mean().log10())


def store(path: Path, done: dict) -> None:
    rows = [[*key, *value] for key, value in sorted(done.items())]
    versions = {"torch": torch.__version__, "obverse": ob.__version__, "threads": torch.get_num_threads()}
    path.write_text(
        json.dumps({"columns": ["task", "case", "method", "psnr", "seconds"], "rows": rows} | versions) + "\n"
    )


def table(done: dict) -> None:
    """Mean PSNR and median seconds by method and task, over the cases that all of a task's methods have done.

    Of deblurring also the two sets of pictures by themselves.
    """
    tasks = [task for task in TASKS if any(key[0] == task for key in done)]
    print(f"{'method':14}" + "".join(f"{task:>18}" for task in tasks))
    means: dict[tuple[str, str], float] = {}
    for name in [name for name in schemes() if name != SLOW]:
        cells = []
        for task in tasks:
            values = [done[task, case, name] for case in common(done, task) if (task, case, name) in done]
            cells.append(" " * 18)
            if values:
                means[task, name] = float(np.mean([v[0] for v in values]))
                cells[-1] = f"{means[task, name]:8.2f} dB{np.median([v[1] for v in values]):5.1f} s"
        print(f"{name:14}" + "".join(cells))
    for task in tasks:
        cases = [case for case in common(done, task) if (task, case, SLOW) in done]
        if cases:
            pair = [np.mean([done[task, case, name][0] for case in cases]) for name in (SLOW, "tv")]
            print(f"{SLOW} on {len(cases)} cases of {task}: {pair[0]:.2f} dB, the best TV there {pair[1]:.2f} dB")
    cases = common(done, "deblur")
    for title, part in (("Set12", cases[: 2 * 12]), ("CBSD68", cases[2 * 12 :])) if len(cases) == 48 else ():
        gains = [done["deblur", case, "pnp-hqs"][0] - done["deblur", case, "tv"][0] for case in part]
        print(f"deblurring, {title}: plug-and-play {np.mean(gains):+.2f} dB beside the best TV")
    if ("deblur", "pnp-hqs") in means and ("deblur", "tv") in means:
        gain = means["deblur", "pnp-hqs"] - means["deblur", "tv"]
        print(f"deblurring: plug-and-play {gain:+.2f} dB beside the best TV; asked for {ASKED}: {gain >= ASKED}")


def common(done: dict, task: str) -> list[int]:
    """The cases of a task that every method which has done any of them has done, but for the slow one."""
    names = {key[2] for key in done if key[0] == task} - {SLOW}
    cases = {key[1] for key in done if key[0] == task}
    return sorted(case for case in cases if all((task, case, name) in done for name in names))


if __name__ == "__main__":
    main()
