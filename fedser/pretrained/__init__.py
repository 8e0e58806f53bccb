"""Pretrained speech encoders: a fixed table of architectures, weights pinned by their digest, and the forward pass."""

from fedser.pretrained.settings import Pretrained

__all__ = ["Pretrained"]
