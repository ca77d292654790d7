"""Objectives: what a network is trained for, one file each."""

from .denoising import Denoising

__all__ = ["Denoising"]
