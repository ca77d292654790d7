"""Training of deep PACO on the cube that it is to search, in minutes.

    min E [ BCE(p, g) + Dice(p, g) ],      Dice = 1 − (2 Σ p g + 1)/(Σ p² + Σ g² + 1)

p is the sigmoid of the logit, g the target; sums are over what the frames cover. The cross-entropy, over the number of
the pixels of sources, makes the logit a likelihood ratio, which ranks places best; Dice weighs the thousandth part of
the pixels that hold sources as much as all the others.

The few weights of the linear part are learned first, then, with these fixed, those of the U-Net. Of what that adds all,
half or nothing is kept, whichever has the least loss on samples that were not learned from: so that a network which had
too little time is no worse than the linear part, and that no worse than the S/N of PACO, of which it begins.

A new sample costs more than a step of the network. So each step takes one new sample and some of those before, turned
and mirrored. What is kept is a running mean of the weights.

References: as in `methods.deep_paco`. Milletari, Navab, Ahmadi, "V-Net: fully convolutional neural networks for
volumetric medical image segmentation", 3DV 2016.
"""

__all__ = ["train_deep_paco"]

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from ..errors import InputError, NumericsError
from ..methods import DeepPACO
from ..methods.base import Callback, silent
from ..methods.sky_channels import CHANNELS, turned
from ..networks import SourceDetector
from ..noise.base import stream
from ..problem import Problem
from .muon import Muon
from .planet_samples import PlanetSample, PlanetSamples

_LINEAR_RATE, _RATE, _CLIP, _DECAY = 1e-2, 1e-3, 1.0, 0.98
_LINEAR = 3  # part of the steps, one in three, for the linear part
_OLD = 3  # samples from before in a step
_KEPT = 128  # samples that are kept
_SHARES = (0.0, 0.5, 1.0)  # of what the U-Net adds
_HELD_OUT, _FIRST_HELD_OUT = 16, 2**20  # samples that decide, and the number of the first
_SYMMETRIES = 8


def train_deep_paco(
    cube: Tensor,
    problem: Problem,
    *,
    seed: int = 0,
    steps: int = 500,
    ensemble: int = 1,
    patch_radius: int | None = None,
    threshold: float = 5.0,
    widths: Sequence[int] = (8, 16, 32),
    callback: Callback = silent,
) -> DeepPACO:
    """Networks trained on a cube, as a method to search that cube with.

    Args:
        cube: `(T, H, W)`; a planet in it does no harm.
        problem: its operator is a `FieldRotation`.
        seed: of samples, weights and the calibration; the same seed gives the same method.
        steps: for each network.
        ensemble: networks, each with samples and weights of its own.
        patch_radius: as for `DeepPACO`.
        threshold: likewise.
        widths: of the networks; see `networks.SourceDetector`.
        callback: told of (step, steps of all networks, loss); an exception that it raises ends the training.

    Raises:
        InputError: the cube and the problem are not fit for `DeepPACO`, or a number is out of range.
        NumericsError: the loss is not finite.
    """
    if steps < 1 or ensemble < 1:
        raise InputError(f"train_deep_paco expects at least one step and network, got {steps} and {ensemble}")
    networks = []
    for member in range(ensemble):
        samples = PlanetSamples(cube, problem, patch_radius=patch_radius, seed=seed * ensemble + member)

        def told(step: int, _: int | None, loss: float, done: int = member * steps) -> None:
            callback(done + step, ensemble * steps, loss)

        networks.append(trained_detector(samples, steps, widths, told))
    return DeepPACO(networks, patch_radius, threshold, seed=seed)


def trained_detector(samples: PlanetSamples, steps: int, widths: Sequence[int], callback: Callback) -> SourceDetector:
    """One network, trained on samples."""
    generator = stream(samples.seed, 2**31)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(samples.seed)
        network = SourceDetector(CHANNELS, widths)
    average = copy.deepcopy(network).requires_grad_(False)
    first = steps // _LINEAR
    optimisers = (torch.optim.Adam(network.linear.parameters(), _LINEAR_RATE), Muon(network.unet.parameters(), _RATE))
    kept: list[PlanetSample] = []
    for step in range(steps):
        kept = [*kept[-_KEPT + 1 :], samples.item(step)]
        old = torch.randint(len(kept), (_OLD,), generator=generator).tolist()
        symmetry = int(torch.randint(_SYMMETRIES, (), generator=generator))
        channels, target, covered = _batch(samples, [kept[-1], *(kept[i] for i in old)], symmetry)
        alone = step < first
        loss = detection_loss((network.linear if alone else network)(channels)[:, 0], target, covered)
        rate, part = (_LINEAR_RATE, step / first) if alone else (_RATE, (step - first) / (steps - first))
        optimiser = optimisers[0 if alone else 1]
        for group in optimiser.param_groups:
            group["lr"] = rate * 0.5 * (1 + math.cos(math.pi * part))
        network.zero_grad(set_to_none=True)
        loss.backward()
        norm = float(nn.utils.clip_grad_norm_(network.parameters(), _CLIP))
        if not math.isfinite(norm):
            raise NumericsError(f"expected a finite gradient, got {norm} at step {step}; check the cube for outliers")
        optimiser.step()
        decay = min(_DECAY, (1 + step) / (10 + step))
        with torch.no_grad():
            for mean, now in zip(average.parameters(), network.parameters(), strict=True):
                mean.lerp_(now, 1 - decay)
        callback(step + 1, steps, float(loss.detach()))
    return _shared(average, samples).eval()


@torch.no_grad()
def _shared(network: SourceDetector, samples: PlanetSamples) -> SourceDetector:
    """The network with the share of its U-Net that has the least loss on samples that were not learned from."""
    losses = torch.zeros(len(_SHARES))
    for index in range(_FIRST_HELD_OUT, _FIRST_HELD_OUT + _HELD_OUT):
        channels, target, covered = _batch(samples, [samples.item(index)], 0)
        linear, whole = network.linear(channels)[:, 0], network(channels)[:, 0]
        losses += torch.stack([detection_loss(torch.lerp(linear, whole, s), target, covered) for s in _SHARES])
    for parameter in network.unet.tail.parameters():
        parameter *= _SHARES[int(losses.argmin())]
    return network


def _batch(samples: PlanetSamples, chosen: Sequence[PlanetSample], symmetry: int) -> tuple[Tensor, Tensor, Tensor]:
    """Channels `(B, C, H, W)`, targets `(B, H, W)` and what is covered `(H, W)`, turned alike."""
    channels = turned(torch.stack([sample.channels for sample in chosen]), symmetry)
    target = turned(torch.stack([sample.target for sample in chosen]), symmetry)
    return channels, target, turned(samples.covered.float()[None], symmetry)[0]


def detection_loss(logit: Tensor, target: Tensor, covered: Tensor) -> Tensor:
    """Cross-entropy and Dice of logits `(B, H, W)`, the mean over the batch."""
    p = logit.sigmoid() * covered
    both, power = (p * target).sum((1, 2)), p.square().sum((1, 2)) + target.square().sum((1, 2))
    entropy = (binary_cross_entropy_with_logits(logit, target, reduction="none") * covered).sum((1, 2))
    return (entropy / (target.sum((1, 2)) + 1) + 1 - (2 * both + 1) / (power + 1)).mean()
