"""The run of a benchmark: what is there is kept, what is missing is computed, and the tables are written anew.

Files in the output folder: ``results.csv``, ``confusions.jsonl`` (the counts behind each row, by speaker),
``summary.md``, ``manifest.json`` (settings, versions, hashes of the recordings, git revision).
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from fedser.audio.dataset import SpeechData
from fedser.config import Settings
from fedser.console import progress, say
from fedser.errors import OutputError
from fedser.evaluate import pool
from fedser.evaluate.bench.cells import Shared, compute, peak_mb, start
from fedser.evaluate.bench.corpora import CLEAN, load
from fedser.evaluate.bench.plan import plan
from fedser.evaluate.bench.settings import BenchSettings, check, with_weights
from fedser.evaluate.bench.store import Store
from fedser.evaluate.bench.summary import summarise
from fedser.files import output_folder, write_text
from fedser.provenance import run_manifest

# A folder holds rows of one value of each of these; all other settings are axes of the table.
FIXED = ("folds", "kappa", "options", "model", "train", "schedule")


def run(settings: BenchSettings, out: Path, *, jobs: int, device: torch.device, command: str) -> dict[str, Any]:
    """Run all cells that ``out`` lacks and write the tables; returns the summary.

    Raises:
        ConfigError: a pair, method, protocol or target set is not known.
        OutputError: ``out`` cannot be written or holds results of other settings.
    """
    begin = time.perf_counter()
    pairs = check(settings)
    output_folder(out)
    settings = settings.model_copy(update={"model": with_weights(settings.model)})
    corpora = load(settings, pairs, device)
    clean = {
        name: data for (name, kind, line), data in corpora.items() if (kind, line) == (settings.features[0], CLEAN)
    }
    remember(settings, out, FIXED, clean, command)
    store = Store(out)
    todo = plan(settings, pairs, clean, store.rows.keys())
    for note in todo.left_out:
        say(f"left out: {note}")
    with progress("benchmark", len(todo.jobs)) as step:
        for rows, failures in pool.results(compute, todo.jobs, start, Shared(settings, corpora), jobs):
            store.add(rows)
            for failure in failures:
                say(f"failed: {failure}")
            todo.left_out += failures
            step()
    summary = summarise(
        list(store.rows.values()),
        store.counts,
        reference=settings.reference,
        resamples=settings.resamples,
        left_out=todo.left_out,
    )
    write_text(out / "summary.md", summary.markdown)
    return {"results": str(out / "results.csv"), "summary": str(out / "summary.md"), "uar": summary.uar} | {
        "seconds": round(time.perf_counter() - begin, 1),
        "computed": len(todo.jobs),
        "left_out": todo.left_out,
        "peak_mb": peak_mb(),
    }


def remember(
    settings: Settings, out: Path, fields: tuple[str, ...], data: Mapping[str, SpeechData], command: str
) -> None:
    """Write the manifest; refuse a folder whose results came from other settings or other recordings.

    Raises:
        OutputError: it does, or its manifest is damaged.
    """
    fixed = settings.model_dump(mode="json", include=set(fields))
    fixed["recordings"] = {
        name: hashlib.sha256("".join(part.inspection.digests).encode()).hexdigest() if part.inspection else ""
        for name, part in sorted(data.items())
    }
    place = out / "manifest.json"
    if place.exists():
        try:
            before = json.loads(place.read_text(encoding="utf-8"))["fixed"]
            recordings = dict(before.pop("recordings"))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise OutputError(f"{place} is damaged.", "Choose an empty --out folder.") from None
        ours = fixed.pop("recordings")
        if before != fixed or any(recordings.get(name, value) != value for name, value in ours.items()):
            raise OutputError(f"{out} holds results of other settings.", "Choose an empty --out folder.")
        fixed["recordings"] = recordings | ours
    record = run_manifest(command) | {"settings": settings.model_dump(mode="json"), "fixed": fixed}
    write_text(place, json.dumps(record, indent=1))
