"""The source bundle: one signed safetensors file that a provider publishes."""

from fedser.bundle.format import Bundle, read, write
from fedser.bundle.keys import SigningKey
from fedser.bundle.schema import BundleHeader

__all__ = ["Bundle", "BundleHeader", "SigningKey", "read", "write"]
