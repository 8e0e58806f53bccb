"""Speed of feature extraction: audio seconds per core second, ``functionals`` against opensmile's eGeMAPS.

The same files, one core, one run; reading and decoding are left out on both sides. Processor time, so other
programs on the machine disturb little. Run from the repository's root::

    python benchmarks/extraction.py FOLDER... --out extraction.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported

import numpy as np
import torch

from fedser import files
from fedser.audio import io, quality, recordings
from fedser.audio.features import FeatureSettings, extract

KINDS = (FeatureSettings(kind="functionals"), FeatureSettings(kind="egemaps"))


def main() -> None:
    """Measure, print one line a kind, write JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path, help="recordings")
    parser.add_argument("--limit", type=int, default=400, help="files per folder at most, evenly spread")
    parser.add_argument("--repeat", type=int, default=3, help="rounds of which the median is reported")
    parser.add_argument("--out", type=Path, help="JSON file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    waveforms = [wave for folder in arguments.folders for wave in _read(folder, arguments.limit)]
    seconds = sum(len(wave) for wave in waveforms) / io.SAMPLE_RATE
    result = _environment() | {
        "folders": [folder.name for folder in arguments.folders],
        "utterances": len(waveforms),
        "audio_seconds": round(seconds, 1),
        "audio_seconds_per_core_second": _rates(waveforms, seconds, arguments.repeat),
    }
    rates = result["audio_seconds_per_core_second"]
    result["ratio"] = round(rates["functionals"]["median"] / rates["egemaps"]["median"], 2)
    for kind, rate in rates.items():
        rounds = ", ".join(f"{value:.0f}" for value in rate["rounds"])
        sys.stdout.write(f"{kind:12s} {rate['median']:7.0f} audio seconds per core second ({rounds})\n")
    sys.stdout.write(f"ratio        {result['ratio']:7.1f}\n")
    if arguments.out is not None:
        files.write_text(arguments.out, json.dumps(result, indent=2) + "\n")


def _read(folder: Path, limit: int) -> list[np.ndarray]:
    """Waveforms of a folder's usable recordings."""
    found = recordings.resolve(folder)
    kept = quality.inspect(found.utterances, found.aside).kept
    chosen = kept[:: max(1, -(-len(kept) // limit))]
    return [io.read(u.path, channel=u.channel, start=u.start, end=u.end) for u in chosen]


def _rates(waveforms: list[np.ndarray], seconds: float, repeat: int) -> dict[str, dict[str, Any]]:
    """Rounds of both kinds in turn, so that a busy minute hits both."""
    rounds: dict[str, list[float]] = {settings.kind: [] for settings in KINDS}
    for settings in KINDS:
        extract(waveforms[:8], settings)  # tables and plans are made once
    for _ in range(repeat):
        for settings in KINDS:
            start = time.process_time()
            extract(waveforms, settings)
            rounds[settings.kind].append(round(seconds / (time.process_time() - start), 1))
    return {kind: {"median": float(np.median(values)), "rounds": values} for kind, values in rounds.items()}


def _environment() -> dict[str, Any]:
    versions = {"python": platform.python_version()}
    for package in ("torch", "numpy", "opensmile", "fedser"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return {"machine": platform.machine(), "processor": _processor(), "cores": 1, "versions": versions}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    main()
