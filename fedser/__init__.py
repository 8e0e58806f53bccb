"""fedser: federated, source-free, privacy-preserving adaptation of speech-emotion models."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("fedser")
except PackageNotFoundError:  # running from a source tree that was never installed
    __version__ = "0+unknown"

__all__ = ["__version__"]
