"""Networks: plain torch modules, built from a description and stored as safetensors with a card."""

from .components import ComponentPredictor
from .direct import Direct
from .dncnn import DnCNN
from .dropout import Dropout
from .gaussian_weights import GaussianWeights
from .gradient_step import GradientStep
from .patch_mixture import PatchMixture
from .preconditioned import Preconditioned
from .ridge import RidgeEnergy
from .source_detector import SourceDetector
from .unet import UNet
from .unrolled import Stages
from .variational import VAE, ConditionalVAE
from .weights import build, load, read_card, register, save

__all__ = [
    "ConditionalVAE",
    "ComponentPredictor",
    "Direct",
    "DnCNN",
    "Dropout",
    "GaussianWeights",
    "GradientStep",
    "PatchMixture",
    "Preconditioned",
    "RidgeEnergy",
    "SourceDetector",
    "Stages",
    "UNet",
    "VAE",
    "build",
    "load",
    "read_card",
    "register",
    "save",
]

register(
    ComponentPredictor,
    ConditionalVAE,
    Direct,
    DnCNN,
    Dropout,
    GaussianWeights,
    GradientStep,
    PatchMixture,
    Preconditioned,
    RidgeEnergy,
    SourceDetector,
    Stages,
    UNet,
    VAE,
)
