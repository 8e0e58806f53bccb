"""Does the network change the result? A study of real nodes against the same study in one process, bit for bit.

ECAN from the packaged EMO-DB bundle, three sites of two EMOVO speakers each, 10 rounds. Once with
``fedser-server`` and three ``fedser-client`` processes over TLS on loopback, once with
``fedser.evaluate.federate`` in this process: same names, settings, seed. Ends with 1 when the joint tensors or a
site's personal model differ by more than 1e-6::

    python benchmarks/network/equals_simulation.py --out out/equals [--corpora DIR] [--rounds 10] [--student] [--quick]

``--student`` has the joint network learn from each site's own one, which the method ``fedser`` adapts.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported

import torch
from fedser_server.rounds import plan
from fedser_server.settings import StudySettings
from machine import Processes, Results, arguments, say, table
from nodes import CLASSES, Study, difference, emovo_sites

from fedser import adapt
from fedser import bundle as bundles
from fedser.adapt.site import class_mask
from fedser.audio import dataset
from fedser.config import load
from fedser.evaluate.federate import federate
from fedser.evaluate.simulation_settings import RoundSettings
from fedser.evaluate.world import SiteWorld
from fedser.federation.data import local_data
from fedser.federation.policy import Policy

STUDY = "equals"
PAIRS = (("f1", "m1"), ("f2", "m2"), ("f3", "m3"))
ALLOWED = 1e-6


def main() -> int:
    """Run both, compare, print, write JSON."""
    given = arguments(
        __doc__,
        ("--corpora", {"type": Path, "default": os.environ.get("FEDSER_CORPORA"), "help": "folder with emovo"}),
        ("--rounds", {"type": int, "default": 10}),
        ("--seed", {"type": int, "default": 0}),
        ("--student", {"action": "store_true", "help": "share a student"}),
    )
    if given.corpora is None:
        raise SystemExit("Name the folder of the corpora with --corpora or FEDSER_CORPORA.")
    torch.set_num_threads(1)
    rounds, limit = (3, 24) if given.quick else (given.rounds, None)
    settings = [f"rounds={rounds}", f"seed={given.seed}", *(["utterances=64"] if given.quick else [])]
    if given.student:
        settings += [
            "method.name=fedser",
            "schedule={steps: 60, learning_rate: 0.02}",
            "student.steps=60",
            "personal=0.1",
        ]
    sites = emovo_sites(given.corpora, given.out, PAIRS, limit)
    results = Results(given.out, {"settings": settings, "limit": limit})
    found = results.part("equals", lambda: compare(given.out, sites, settings))
    rows = [(name, found["same"][name], found["difference"][name]) for name in found["difference"]]
    what = "a student of fedser" if given.student else "ECAN"
    say(f"{what}, {rounds} rounds, {found['steps']} local steps, sites of {found['utterances']} utterances")
    say(f"{found['network_seconds']:.1f} s over the network, {found['simulation_seconds']:.1f} s in one process")
    table(("tensors", "bit-identical", "max |difference|"), rows)
    worst = max(found["difference"].values())
    say(f"max |difference| {worst:g}: {'within' if worst <= ALLOWED else 'ABOVE'} {ALLOWED:g}")
    return 0 if worst <= ALLOWED else 1


def compare(out: Path, sites: Mapping[str, Path], settings: list[str]) -> dict[str, Any]:
    """Both studies, and how far they are apart."""
    begin = time.monotonic()
    with Processes(out / "logs") as processes:
        study = Study(out / "study", processes, sites, settings, ("--classes", CLASSES))
        study.invite(STUDY)
        study.start()
        study.join_all()
        study.finish(3600)
    networked = {"joint": study.joint()} | {name: study.personal(name) for name in sites}
    middle = time.monotonic()
    simulated, about = simulate(sites, load(StudySettings, None, ["sites=3", *settings]))
    pairs = {name: (networked[name], simulated[name]) for name in networked}
    return {
        "difference": {name: difference(*pair) for name, pair in pairs.items()},
        "same": {name: _same(*pair) for name, pair in pairs.items()},
        "values": sum(tensor.numel() for tensor in networked["joint"].values()),
        "network_seconds": round(middle - begin, 1),
        "simulation_seconds": round(time.monotonic() - middle, 1),
        **about,
    }


def simulate(
    sites: Mapping[str, Path], settings: StudySettings
) -> tuple[dict[str, dict[str, torch.Tensor]], dict[str, Any]]:
    """The joint tensors and each site's personal model of the same study in this process."""
    bundle = bundles.read(None)
    header, model = bundle.header, bundle.classifier()
    mask = class_mask(header.classes, CLASSES.split(","))
    members = []
    for name, folder in sites.items():
        speech = dataset.load(folder, header.features)
        local, normaliser = local_data(speech, model, bundle.linear(), header.normalisation, mask)
        members.append(SiteWorld(name, tuple(range(len(speech))), local, normaliser))
    planned = plan(STUDY, settings, bundle)
    joined = federate(
        members,
        model,
        adapt.make(settings.method.name, settings.method.options),
        planned.schedule,
        RoundSettings(aggregation=settings.aggregation, encoding=settings.encoding, student=settings.student),
        Policy(),
        study=STUDY,
        rounds=planned.rounds,
        personal_steps=planned.personal_steps,
        seed=settings.seed,
    )
    if joined.refusals:
        raise SystemExit(f"the simulation refused: {joined.refusals}")
    models = {member.name: dict(own.state_dict()) for member, own in zip(members, joined.models, strict=True)}
    about = {"steps": planned.total, "utterances": [len(member.index) for member in members]}
    return {"joint": joined.tensors, **models}, about


def _same(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


if __name__ == "__main__":
    sys.exit(main())
