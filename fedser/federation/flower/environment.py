"""What must be set before Flower is imported: no telemetry, no update check, no installing, a home of our own."""

from __future__ import annotations

import logging
import os
import sys
from importlib import metadata
from pathlib import Path

from fedser.errors import DependencyError

SUPPORTED = "1.41."
#: Flower tells home about runs, looks for updates, and installs what an app asks for, unless it is told not to.
SWITCHES = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}


def prepare(home: Path) -> None:
    """Set Flower's switches for this process.

    Args:
        home: folder for whatever Flower writes; inside a node's own state.

    Raises:
        DependencyError: another release of Flower is installed, or it was imported with other switches.
    """
    found = metadata.version("flwr")
    if not found.startswith(SUPPORTED):
        raise DependencyError(
            f"flwr {found} is installed; this release of fedser speaks with {SUPPORTED}x.",
            f"Run: pip install 'flwr=={SUPPORTED}*'",
        )
    told = sys.modules.get("flwr.supercore.telemetry")  # it keeps what it read at its import
    if told is not None and getattr(told, "FLWR_TELEMETRY_ENABLED", "1") != "0":
        raise DependencyError(
            "Flower was imported before its telemetry was switched off.",
            "Import fedser's nodes before flwr, or set FLWR_TELEMETRY_ENABLED=0 for the whole process.",
        )
    os.environ.update(SWITCHES, FLWR_HOME=str(home))


def quieten() -> None:
    """Keep Flower's own log lines back: they name node ids, and the nodes tell the same in their own words.

    To be called after Flower was imported, which sets the level anew.
    """
    logging.getLogger("flwr").setLevel(logging.CRITICAL)
