"""Claim: what a network says of a hole in a photograph in one pass holds, beside what a denoiser says of it.

A hole of 35 × 35 pixels amid crops of 64 × 64 out of the test pictures of BSDS500, one a picture, noise 0.02: the task
of recipes/natural-components.yaml and recipes/natural-conditional-vae.yaml. Figures are those of
components_on_digits.py; `pixels` counts the hole's alone, since the others are seen. Beside the networks, on the first
of the same crops: `LocalGaussian` and draws by diffusion with the shipped gradient-step denoiser, which knows nothing
of holes.

    OBVERSE_DATA=../shared/data python benchmarks/components_on_photographs.py WEIGHTS WEIGHTS [networks] [beside]
        prints its rows, writes the JSON and a picture of each network, beside this file; "networks" and "beside" are
        the two halves, and either may run alone
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from components_on_digits import RANK, Method, measured, picture
from torch import Tensor

import obverse as ob
from obverse.learning.images import as_unit, read_images
from obverse.learning.recipe import data_folder
from obverse.learning.simulation import Simulation
from obverse.noise.base import stream

SIDE, HOLE, NOISE = 64, 35, 0.02
COUNT, FEWER = 100, 6  # crops, and those for methods that take many seconds each
DRAWS = 16
LEVEL = 0.1  # of LocalGaussian; from 0.15 on its covariance is refused on crops of the validation pictures


def main() -> None:
    torch.set_num_threads(1)
    beside = Path(__file__)
    file = beside.with_suffix(".json")
    networks: Mapping[str, Method] = {
        "component network": ob.methods.ComponentNetwork.load(sys.argv[1]),
        "conditional autoencoder": ob.methods.ConditionalVAE.load(sys.argv[2]),
    }
    found, facts = items("test", COUNT), {}
    if "networks" in sys.argv[3:] or len(sys.argv) == 3:
        facts["networks"] = [{"crops": COUNT, **row} for row in measured(networks, found, hole(found))]
        for name, network in networks.items():
            picture(network, found[:6], SIDE).save(beside.with_name(f"{beside.stem}_{name.replace(' ', '_')}.png"))
    if "beside" in sys.argv[3:] or len(sys.argv) == 3:
        denoiser = ob.priors.load("natural-gray-gradient")
        methods: Mapping[str, Method] = {
            **networks,
            f"{DRAWS} draws, diffpir": ob.methods.Diffusion(denoiser, "diffpir", samples=DRAWS, rank=RANK),
            f"{DRAWS} draws, mmps": ob.methods.Diffusion(denoiser, "mmps", samples=DRAWS, rank=RANK),
            f"LocalGaussian, level {LEVEL}": ob.methods.LocalGaussian(
                denoiser, sigma=LEVEL, rank=RANK, probes=36, tolerance=3e-2, max_iterations=60
            ),
        }
        facts["beside"] = [{"crops": FEWER, **row} for row in measured(methods, found[:FEWER], hole(found))]
    facts |= {"torch": torch.__version__, "obverse": ob.__version__, "threads": torch.get_num_threads()}
    before = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(before | facts, indent=1) + "\n")


def items(part: str, count: int) -> list[tuple[Tensor, Tensor, ob.Problem]]:
    """Truth, measurement and problem: one crop of each of the first pictures."""
    simulation = Simulation({"kind": "Mask", "mask": {"hidden": [HOLE, HOLE]}}, {"kind": "Gaussian", "sigma": NOISE})
    found = []
    for i, image in enumerate(read_images(data_folder(f"natural/bsds500/{part}"), 1)[:count]):
        place = stream(11, i)
        y, x = (int(torch.randint(n - SIDE + 1, (), generator=place)) for n in image.shape[1:])
        truth = as_unit(image)[:, y : y + SIDE, x : x + SIDE].contiguous()
        problem = simulation.draw(truth.shape, stream(9, i))
        found.append((truth, problem.simulate(truth, stream(10, i)), problem))
    return found


def hole(found: list[tuple[Tensor, Tensor, ob.Problem]]) -> Tensor:
    """The pixels that no measurement sees, flat."""
    truth, _, problem = found[0]
    return problem.operator(torch.ones_like(truth)).flatten() == 0


if __name__ == "__main__":
    main()
