"""Networks: plain torch modules, built from a description and stored as safetensors with a card."""

from .gradient_step import GradientStep
from .preconditioned import Preconditioned
from .unet import UNet
from .weights import build, load, register, save

__all__ = ["GradientStep", "Preconditioned", "UNet", "build", "load", "register", "save"]

register(GradientStep, Preconditioned, UNet)
