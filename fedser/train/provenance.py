"""Which code made a bundle."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

import torch

import fedser


def versions() -> dict[str, str]:
    """Versions that decide the weights."""
    return {
        "fedser": fedser.__version__,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
    }


def revision() -> str | None:
    """The git revision of this package's source tree, with ``-dirty`` where files differ; None without one."""
    package = Path(fedser.__file__).parent
    if not (package.parent / ".git").exists():  # an installed copy, perhaps inside someone else's repository
        return None
    try:
        told = subprocess.run(
            ["git", "-C", str(package), "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return told.stdout.strip() or None
