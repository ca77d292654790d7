"""Training of deep PACO on the cube that it is to search, in minutes.

The logit is linear in the channels but for what a U-Net adds. The few weights of the linear part come first, from

    min  Σ BCE(p, g) / Σ g + λ |w|²

over the pixels that count of all samples: p is the sigmoid of the logit, g the target. This is convex, and solved by
quasi-Newton steps. Cross-entropy makes the logit a likelihood ratio, which ranks places best. Then, with these weights
fixed, the U-Net is trained by

    min  E [ BCE(p, g) + Dice(p, g) ],      Dice = 1 − (2 Σ p g + 1)/(Σ p² + Σ g² + 1)

on samples turned and mirrored; Dice weighs the thousandth part of the pixels that hold sources as much as all others.
What is kept is a running mean of the weights, and of what the U-Net adds all, a half, a quarter or nothing, whichever
has the least cross-entropy on samples that were not learned from. For one cube has little to teach a U-Net: where that
is nothing, the network is no worse than the linear part.

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

_RATE, _CLIP, _DECAY = 1e-3, 1.0, 0.97
_BATCH = 4
_RIDGE, _NEWTON = 1e-3, 60  # λ, and quasi-Newton steps
_SHARES = (0.0, 0.25, 0.5, 1.0)  # of what the U-Net adds
_HELD_OUT, _FIRST_HELD_OUT = 16, 2**20  # samples that decide, and the number of the first
_SYMMETRIES = 8


def train_deep_paco(
    cube: Tensor,
    problem: Problem,
    *,
    seed: int = 0,
    steps: int = 300,
    samples: int = 96,
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
        steps: of the U-Net, for each network.
        samples: to learn from, for each network; 16 more decide.
        ensemble: networks, each with samples and weights of its own.
        patch_radius: as for `DeepPACO`.
        threshold: likewise.
        widths: of the networks; see `networks.SourceDetector`.
        callback: told of (done, samples and steps of all networks, loss), with a loss of 0 for samples; an exception
            that it raises ends the training.

    Raises:
        InputError: the cube and the problem are not fit for `DeepPACO`, or a number is out of range.
        NumericsError: the loss is not finite.
    """
    if min(steps, samples, ensemble) < 1:
        raise InputError(
            f"train_deep_paco expects at least one step, sample and network, got {steps}, {samples} and {ensemble}"
        )
    networks, total = [], samples + _HELD_OUT + steps
    for member in range(ensemble):
        source = PlanetSamples(cube, problem, patch_radius=patch_radius, seed=seed * ensemble + member)

        def told(done: int, _: int | None, loss: float, before: int = member * total) -> None:
            callback(before + done, ensemble * total, loss)

        networks.append(trained_detector(source, samples, steps, widths, told))
    return DeepPACO(networks, patch_radius, threshold, seed=seed)


def trained_detector(
    source: PlanetSamples, samples: int, steps: int, widths: Sequence[int], callback: Callback
) -> SourceDetector:
    """One network, trained on samples from a source."""
    numbers = [*range(samples), *range(_FIRST_HELD_OUT, _FIRST_HELD_OUT + _HELD_OUT)]
    drawn = []
    for done, number in enumerate(numbers, 1):
        drawn.append(PlanetSample(*(part.half() for part in source.item(number))))  # of S/N it has three digits
        callback(done, None, 0.0)
    learned, held_out = stacked(drawn[:samples]), stacked(drawn[samples:])
    del drawn
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(source.seed)
        network = SourceDetector(CHANNELS, widths)
    fit_linear(network.linear, learned)
    average = copy.deepcopy(network).requires_grad_(False)
    optimiser, generator = Muon(network.unet.parameters(), _RATE), stream(source.seed, 2**31)
    for step in range(steps):
        chosen = torch.randint(samples, (_BATCH,), generator=generator)
        symmetry = int(torch.randint(_SYMMETRIES, (), generator=generator))
        channels, target, counted = (turned(part[chosen].float(), symmetry) for part in learned)
        loss = detection_loss(network(channels)[:, 0], target, counted)
        for group in optimiser.param_groups:
            group["lr"] = _RATE * 0.5 * (1 + math.cos(math.pi * step / steps))
        network.zero_grad(set_to_none=True)
        loss.backward()
        norm = float(nn.utils.clip_grad_norm_(network.unet.parameters(), _CLIP))
        if not math.isfinite(norm):
            raise NumericsError(f"expected a finite gradient, got {norm} at step {step}; check the cube for outliers")
        optimiser.step()
        decay = min(_DECAY, (1 + step) / (10 + step))
        with torch.no_grad():
            for mean, now in zip(average.parameters(), network.parameters(), strict=True):
                mean.lerp_(now, 1 - decay)
        callback(len(numbers) + step + 1, None, float(loss.detach()))
    keep_what_helps(average, held_out)
    return average.eval()


def stacked(samples: Sequence[PlanetSample]) -> PlanetSample:
    """Samples as one, `(B, C, H, W)` and `(B, H, W)` twice."""
    return PlanetSample(*(torch.stack(parts) for parts in zip(*samples, strict=True)))


def fit_linear(layer: nn.Conv2d, samples: PlanetSample) -> None:
    """The weights of least cross-entropy.

    Raises:
        NumericsError: they are not finite.
    """
    assert layer.bias is not None
    counted = samples.counted > 0
    x = samples.channels.movedim(1, -1)[counted].float()
    target = samples.target[counted].float()
    weight, bias = layer.weight.detach().flatten().requires_grad_(), layer.bias.detach().clone().requires_grad_()
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=_NEWTON, line_search_fn="strong_wolfe")

    def closure() -> float:
        optimiser.zero_grad()
        entropy = binary_cross_entropy_with_logits(x @ weight + bias, target, reduction="sum")
        loss = entropy / target.sum().clamp_min(1) + _RIDGE * weight.square().sum()
        loss.backward()
        return float(loss.detach())

    optimiser.step(closure)
    if not bool(weight.isfinite().all() & bias.isfinite().all()):
        raise NumericsError("expected finite weights of the channels, got others; check the cube for outliers")
    with torch.no_grad():
        layer.weight.copy_(weight.reshape_as(layer.weight))
        layer.bias.copy_(bias)


@torch.no_grad()
def keep_what_helps(network: SourceDetector, samples: PlanetSample) -> None:
    """Scales what the U-Net adds by the share that has the least cross-entropy on samples."""
    losses = torch.zeros(len(_SHARES))
    for channels, target, counted in zip(*samples, strict=True):
        x, target, counted = channels[None].float(), target[None].float(), counted[None].float()
        linear, whole = network.linear(x)[:, 0], network(x)[:, 0]
        losses += torch.stack([entropy_of(torch.lerp(linear, whole, s), target, counted).sum() for s in _SHARES])
    for parameter in network.unet.tail.parameters():
        parameter *= _SHARES[int(losses.argmin())]


def entropy_of(logit: Tensor, target: Tensor, counted: Tensor) -> Tensor:
    """Cross-entropy over the number of pixels of sources, of logits `(B, H, W)`: `(B,)`."""
    entropy = binary_cross_entropy_with_logits(logit, target, reduction="none") * counted
    return entropy.sum((1, 2)) / (target.sum((1, 2)) + 1)


def detection_loss(logit: Tensor, target: Tensor, counted: Tensor) -> Tensor:
    """Cross-entropy and Dice of logits `(B, H, W)` where pixels count, the mean over the batch."""
    p = logit.sigmoid() * counted
    both, power = (p * target).sum((1, 2)), p.square().sum((1, 2)) + target.square().sum((1, 2))
    return (entropy_of(logit, target, counted) + 1 - (2 * both + 1) / (power + 1)).mean()
