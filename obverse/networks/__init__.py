"""Networks: plain torch modules, built from a description and stored as safetensors with a card."""

from .dncnn import DnCNN
from .dropout import Dropout
from .gaussian_weights import GaussianWeights
from .gradient_step import GradientStep
from .patch_mixture import PatchMixture
from .preconditioned import Preconditioned
from .ridge import RidgeEnergy
from .unet import UNet
from .unrolled import Stages
from .variational import VAE, ConditionalVAE
from .weights import build, load, read_card, register, save

__all__ = [
    "DnCNN",
    "Dropout",
    "GaussianWeights",
    "GradientStep",
    "PatchMixture",
    "Preconditioned",
    "RidgeEnergy",
    "Stages",
    "UNet",
    "build",
    "load",
    "read_card",
    "register",
    "save",
    "ConditionalVAE",
    "VAE",
]

register(DnCNN, Dropout, GaussianWeights, GradientStep, PatchMixture, Preconditioned, RidgeEnergy, Stages, UNet)
register(ConditionalVAE, VAE)
