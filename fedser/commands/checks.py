"""The checks of ``fedser doctor``: each looks at one thing and says what it found and what to do about it."""

from __future__ import annotations

import importlib
import importlib.util
import io
import os
import platform
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from fedser.errors import FedserError

EXTRAS = {
    "opensmile": ("opensmile", "the feature set egemaps, for comparison"),
    "audformat": ("audformat", "reading audformat databases"),
    "ray": ("ray", "Flower's own simulation engine"),
}
TELEMETRY = {"FLWR_TELEMETRY_ENABLED": "0", "RAY_USAGE_STATS_ENABLED": "0"}
_PYTHON = ((3, 11), (3, 14))  # from, below
_FLWR = "1.41"
_LITTLE, _TOO_LITTLE = 2e9, 2e8  # bytes of free disk


class Status(StrEnum):
    """How a check ended; only a problem stops work."""

    ok = "ok"
    info = "info"
    warning = "warning"
    problem = "problem"


@dataclass(frozen=True)
class Check:
    """One line of the doctor's answer.

    Attributes:
        name: what was looked at.
        status: how it ended.
        found: what was found, in one sentence.
        fix: what to do; empty where nothing is to be done.
    """

    name: str
    status: Status
    found: str
    fix: str = ""


def run_all() -> list[Check]:
    """Run every check; one that breaks down becomes a problem instead of a traceback."""
    return [_guarded(name, check) for name, check in CHECKS.items()]


def _guarded(name: str, check: Callable[[], tuple[Status, str, str]]) -> Check:
    try:
        return Check(name, *check())
    except FedserError as error:
        return Check(name, Status.problem, str(error), error.hint)
    except Exception as error:  # whatever is broken here is what the doctor is there to tell
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        return Check(name, Status.problem, f"the check failed: {reason}.", "Install fedser anew: pip install .")


def python() -> tuple[Status, str, str]:
    """The interpreter's version."""
    found = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}."
    low, high = _PYTHON
    if low <= sys.version_info[:2] < high:
        return Status.ok, found, ""
    return Status.problem, found, f"Use Python {low[0]}.{low[1]} to {high[0]}.{high[1] - 1}."


def torch_pair() -> tuple[Status, str, str]:
    """Torch and torchaudio share compiled code: their versions move together, and both have to load."""
    pair = {name: _installed(name) for name in ("torch", "torchaudio")}
    found = ", ".join(f"{name} {number or 'missing'}" for name, number in pair.items())
    fix = "Install a matching pair: pip install 'torch>=2.11,<2.12' 'torchaudio>=2.11,<2.12'."
    minors = {".".join((number or "").split(".")[:2]) for number in pair.values()}
    if None in pair.values() or len(minors) != 1:
        return Status.problem, f"{found}: no pair.", fix
    try:
        torch, functional = importlib.import_module("torch"), importlib.import_module("torchaudio.functional")
        functional.resample(torch.zeros(160), 8000, 16000)
    except (ImportError, OSError, RuntimeError) as error:
        return Status.problem, f"{found}, but they do not load: {' '.join(str(error).split())[:160]}.", fix
    return Status.ok, f"{found}; both load.", ""


def flower() -> tuple[Status, str, str]:
    """Flower's version; its internals change between minor releases."""
    number = _installed("flwr")
    if number is not None and number.startswith(_FLWR + "."):
        return Status.ok, f"flwr {number}.", ""
    return Status.problem, f"flwr {number or 'missing'}.", f"pip install 'flwr>={_FLWR},<1.42'."


def telemetry() -> tuple[Status, str, str]:
    """Flower and Ray send usage reports unless told otherwise."""
    on = [name for name, off in TELEMETRY.items() if os.environ.get(name) != off]
    if not on:
        return Status.ok, "switched off for Flower and Ray in every fedser command.", ""
    fix = "Set " + ", ".join(f"{name}={TELEMETRY[name]}" for name in on) + " before Flower is imported."
    return Status.problem, f"{' and '.join(on)} would let usage reports out.", fix


def codecs() -> tuple[Status, str, str]:
    """Whether soundfile decodes what people send: encode and decode a short tone in each format."""
    numpy, soundfile = importlib.import_module("numpy"), importlib.import_module("soundfile")
    tone = 0.5 * numpy.sin(numpy.arange(8000) / 10)
    bad = []
    for name in ("WAV", "FLAC", "OGG", "AIFF", "MP3"):
        buffer = io.BytesIO()
        try:
            soundfile.write(buffer, tone, 16_000, format=name)
            buffer.seek(0)
            decoded, _ = soundfile.read(buffer)
            if len(decoded) < 8000 or not 0.2 < float(abs(decoded).max()) < 0.8:
                bad.append(name)
        except (soundfile.LibsndfileError, ValueError, TypeError):
            bad.append(name)
    library = f"libsndfile {soundfile.__libsndfile_version__}"
    if bad:
        fix = "Install soundfile's own wheel (pip install --force-reinstall soundfile), or libsndfile 1.1 or later."
        return Status.problem, f"{library} cannot decode {', '.join(bad)}.", fix
    return Status.ok, f"{library} decodes WAV, FLAC, OGG, AIFF and MP3.", ""


def cache() -> tuple[Status, str, str]:
    """The feature cache: features are personal data, so it belongs to its owner only."""
    from fedser.audio.cache import root

    place = root()
    if place is None:
        return Status.warning, "there is no place for the feature cache.", "Set FEDSER_CACHE to a folder."
    existing = _existing(place)
    fix = "Set FEDSER_CACHE to a folder of your own that can be written."
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        return Status.problem, f"{place} cannot be written.", fix
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        return Status.problem, f"{place} cannot be written: {(error.strerror or str(error)).lower()}.", fix
    if existing == place:
        about = place.stat()
        if hasattr(os, "getuid") and about.st_uid != os.getuid():
            return Status.warning, f"{place} belongs to another user.", fix
        if os.name == "posix" and stat.S_IMODE(about.st_mode) & 0o077:
            return Status.warning, f"{place} is open to other users.", f"chmod 700 '{place}'"
        return Status.ok, f"{place}, yours only.", ""
    return Status.ok, f"{place} will be made when it is needed.", ""


def disk() -> tuple[Status, str, str]:
    """Free space where features are kept."""
    from fedser.audio.cache import root

    place = _existing(root() or Path.cwd())
    free = shutil.disk_usage(place).free
    found = f"{free / 1e9:.1f} GB free at {place}."
    fix = "Make room, or set FEDSER_CACHE to another disk."
    if free < _TOO_LITTLE:
        return Status.problem, found, fix
    return (Status.warning, found, fix) if free < _LITTLE else (Status.ok, found, "")


def cores() -> tuple[Status, str, str]:
    """Cores and thread settings; more threads than cores only wait for each other."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    wanted = os.environ.get("OMP_NUM_THREADS")
    found = f"{count} cores; OMP_NUM_THREADS {wanted or 'not set'}."
    if wanted is not None and wanted.isdigit() and int(wanted) > count:
        return Status.warning, found, f"Set OMP_NUM_THREADS to at most {count}."
    return Status.ok, f"{found} fedser uses one thread a process unless told otherwise.", ""


def gpu() -> tuple[Status, str, str]:
    """A GPU is welcome and never needed."""
    torch = importlib.import_module("torch")
    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count()))
        return Status.ok, f"{names} (CUDA {torch.version.cuda}).", ""
    if Path("/proc/driver/nvidia/version").exists():
        fix = "Install a torch build for the driver's CUDA version, or use --device cpu."
        return Status.warning, "there is an NVIDIA driver, but torch cannot use it.", fix
    return Status.info, "none; everything runs on the CPU.", ""


def clock() -> tuple[Status, str, str]:
    """Signed orders expire: a clock far off refuses good ones or accepts old ones."""
    now = time.time()
    newest = max(path.stat().st_mtime for path in Path(__file__).parents[1].glob("**/*.py"))
    shown = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    if now < newest - 86_400:
        fix = "Set the clock, for instance with timedatectl set-ntp true."
        return Status.problem, f"{shown} lies before the installation of fedser.", fix
    return Status.ok, f"{shown}.", ""


def default_bundle() -> tuple[Status, str, str]:
    """The source bundle inside the package: its signature and its contents."""
    from fedser import bundle

    header = bundle.read(None).header
    return Status.ok, f"{header.name} version {header.version}: signature and contents are in order.", ""


def extras() -> tuple[Status, str, str]:
    """Optional packages."""
    missing = {extra: use for extra, (package, use) in EXTRAS.items() if importlib.util.find_spec(package) is None}
    if not missing:
        return Status.ok, f"{', '.join(EXTRAS)} are installed.", ""
    uses = "; ".join(f"{extra} ({use})" for extra, use in missing.items())
    return Status.info, f"not installed: {uses}.", f"Only if you need it: pip install 'fedser[{','.join(missing)}]'."


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _existing(place: Path) -> Path:
    """The place itself, or the nearest folder above it that exists."""
    return next(folder for folder in (place, *place.absolute().parents) if folder.exists())


CHECKS: Mapping[str, Callable[[], tuple[Status, str, str]]] = {
    "python": python,
    "torch": torch_pair,
    "flower": flower,
    "telemetry": telemetry,
    "codecs": codecs,
    "cache": cache,
    "disk": disk,
    "cores": cores,
    "gpu": gpu,
    "clock": clock,
    "default bundle": default_bundle,
    "extras": extras,
}
