"""fedser: federated, source-free, privacy-preserving adaptation of speech-emotion models."""

import os
from importlib.metadata import PackageNotFoundError, version

# Flower and Ray send telemetry and install packages unless told otherwise before their first import.
os.environ |= {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}

try:
    __version__ = version("fedser")
except PackageNotFoundError:  # running from a source tree that was never installed
    __version__ = "0+unknown"

__all__ = ["__version__"]
