"""The demonstration: synthetic speech through the whole toolkit, with the calls that a user's own data would take.

``OUT/`` afterwards::

    fedser-demo.json        says that the folder is the demo's own
    speech/source/          labelled recordings of the provider
    speech/clinic, phone, office/   the sites' recordings
    source.safetensors      the signed source bundle, with its .sig; key and key.pub made for this demo alone
    run/                    results.json, results.csv, predictions.csv, report.html, figures/
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from fedser import __version__, console, files
from fedser.adapt import Schedule
from fedser.audio import dataset
from fedser.audio.features import FeatureSettings
from fedser.bundle import format, keys
from fedser.bundle.keys import SigningKey
from fedser.demo.corpus import SITES, SOURCE, CorpusPlan, write_corpus
from fedser.errors import OutputError
from fedser.evaluate import simulate
from fedser.evaluate.partition import PartitionSettings
from fedser.evaluate.report import write_report
from fedser.evaluate.simulation_settings import (
    MethodSettings,
    RoundSettings,
    SimulationSettings,
    SourceSettings,
    TargetSettings,
)
from fedser.federation.student import StudentSettings
from fedser.train import train_bundle

NOTE = (
    "All speech in this run is synthetic: a formant synthesiser with the cues that the literature reports for acted "
    "emotions. Its difficulty and the length of the adaptation were set so that the source model has room to improve. "
    "The figures show that the toolkit works. They say nothing about real voices."
)
#: Small sites make few steps an epoch: the length counts in steps, and the rate is larger than for real corpora.
#: Both were chosen by the figures of voices 0 and 1, which the report says.
SCHEDULE = Schedule(steps=200, learning_rate=2e-2)
#: What is shared is a student of each site's own network (docs/joining.md).
JOINING = RoundSettings(personal=0, student=StudentSettings(steps=300))
_MARK = "fedser-demo.json"


def run(
    out: Path,
    seed: int = 0,
    *,
    seeds: int = 3,
    jobs: int = 1,
    source: CorpusPlan = SOURCE,
    sites: Sequence[CorpusPlan] = SITES,
    command: str = "fedser demo",
) -> dict[str, Any]:
    """Synthesise, train, sign, simulate, report.

    Args:
        out: a new or empty folder, or one that an earlier demo made.
        seed: of the voices, the training and the adaptation.
        seeds: how many repetitions of training's randomness at the sites: ``seed`` and those after it.
        jobs: processes; the result does not depend on them.
        source: the provider's corpus.
        sites: the sites' corpora.
        command: for the report.

    Returns:
        The results of :func:`fedser.evaluate.simulate.run` with ``bundle``, ``note`` and the seconds of all steps.

    Raises:
        OutputError: the folder holds other files, or cannot be written.
        FedserError: see the steps.
    """
    begin = time.perf_counter()
    claim(out, seed)
    speech = synthesise(out / "speech", (source, *sites), seed)
    bundle, key = train(out, speech[source.name], source.name, seed)
    settings = SimulationSettings(
        name="Demo: synthetic speech",
        source=SourceSettings(bundle=bundle, signer=key.public_hex),
        target=TargetSettings(corpora={plan.name: speech[plan.name] for plan in sites}),
        partition=PartitionSettings(by="corpus"),
        method=MethodSettings(name="fedser"),
        schedule=SCHEDULE,
        federation=JOINING,
        seeds=tuple(range(seed, seed + seeds)),
    )
    results = simulate.run(settings, out / "run", jobs=jobs, command=command)
    results |= {"notes": [NOTE], "seconds": round(time.perf_counter() - begin, 1)}
    _note(out / "run", results)
    return results | {"bundle": str(bundle), "report": str(write_report(out / "run"))}


def claim(out: Path, seed: int) -> None:
    """Take a folder that is new, empty or an earlier demo's; never one with other people's files."""
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out} is a file.", "Choose another --out folder.")
    if out.is_dir() and any(out.iterdir()) and not (out / _MARK).is_file():
        raise OutputError(f"{out} holds files that are not of a demo.", "Choose an empty --out folder.")
    files.output_folder(out)
    about = {"made by": f"fedser {__version__}", "seed": seed, "note": NOTE}
    files.write_text(out / _MARK, json.dumps(about, indent=1) + "\n")


def synthesise(folder: Path, plans: Sequence[CorpusPlan], seed: int) -> dict[str, Path]:
    """Write all corpora; their folders by name."""
    with console.progress("synthesising", sum(plan.utterances for plan in plans)) as step:
        return {plan.name: write_corpus(folder / plan.name, plan, seed, step).parent for plan in plans}


def train(out: Path, folder: Path, name: str, seed: int) -> tuple[Path, SigningKey]:
    """What ``fedser keys create`` and ``fedser train`` do: a key, and a bundle signed with it."""
    secret = out / "key"
    key = keys.load(secret) if secret.exists() else keys.create(secret)
    data = dataset.load(folder, FeatureSettings(), name=name, need_labels=True)
    source = train_bundle(
        {name: data}, key=key, name="demo", licence="Apache-2.0", seed=seed, device=torch.device("cpu")
    )
    path = out / "source.safetensors"
    format.write(path, source.header, source.tensors, key)
    return path, key


def _note(folder: Path, results: Mapping[str, Any]) -> None:
    """Keep the note and the whole duration with the results, so that ``fedser report`` shows them too."""
    path = folder / "results.json"
    kept = json.loads(path.read_text(encoding="utf-8"))
    kept |= {"notes": results["notes"], "seconds": results["seconds"]}
    files.write_text(path, json.dumps(kept, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
