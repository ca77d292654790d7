"""Networks: plain torch modules, built from a description and stored as safetensors with a card."""

from .preconditioned import Preconditioned
from .unet import UNet
from .weights import build, load, register, save

__all__ = ["Preconditioned", "UNet", "build", "load", "register", "save"]

register(Preconditioned, UNet)
