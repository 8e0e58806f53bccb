"""The source bundle: one signed safetensors file that a provider publishes.

Keys and signatures need no tensors: what does is loaded when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedser.bundle.keys import SigningKey

if TYPE_CHECKING:
    from fedser.bundle.format import Bundle, read, write
    from fedser.bundle.schema import BundleHeader

__all__ = ["Bundle", "BundleHeader", "SigningKey", "read", "write"]


def __getattr__(name: str) -> object:
    """The names that need torch, on first use."""
    if name == "BundleHeader":
        from fedser.bundle import schema

        return schema.BundleHeader
    if name in __all__:
        from fedser.bundle import format

        return getattr(format, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
