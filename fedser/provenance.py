"""What made a result: command, versions, machine, git revision. Names no user and no host."""

from __future__ import annotations

import platform
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import fedser

PACKAGES = ("torch", "torchaudio", "flwr", "opacus", "numpy", "scipy", "scikit-learn", "soundfile")


def run_manifest(command: str) -> dict[str, Any]:
    """What a reader needs to repeat a run, JSON-able."""
    return {
        "command": command,
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": {"fedser": fedser.__version__} | {name: _version(name) for name in PACKAGES},
        "git": revision(),
    }


def versions() -> dict[str, str]:
    """Versions that decide the weights of a model."""
    return {
        "fedser": fedser.__version__,
        "torch": _version("torch") or "unknown",
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


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
