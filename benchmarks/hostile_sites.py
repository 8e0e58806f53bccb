"""What two of ten sites that flip the sign of their update cost, by aggregation rule.

The target's utterances are spread over ten sites (Dirichlet over the emotions; alpha 100 makes them alike, 1 unlike);
two of them, the third and the eighth, send the negative of their update, as it is or ten times as long, which still
lies within the norm that a provider accepts. UAR of the joint model over all sites, percent, mean ± standard deviation
over seeds::

    python benchmarks/hostile_sites.py emodb=DIR emovo=DIR [--seeds 3] [--alpha 100] [--out out/hostile.json]

The first corpus is the source's. One process, one thread.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from fedser.adapt import Schedule, make, probabilities
from fedser.compute import one_thread
from fedser.evaluate import metrics
from fedser.evaluate.federate import federate
from fedser.evaluate.partition import PartitionSettings
from fedser.evaluate.simulation_settings import RoundSettings, SimulationSettings, SourceSettings, TargetSettings
from fedser.evaluate.world import SiteWorld, World, build, build_sites, labels_of, source_model
from fedser.federation.aggregation import AggregationSettings
from fedser.federation.policy import Policy
from fedser.federation.stages import SiteStage, SiteWork

SITES, HOSTILE = 10, (2, 7)
RULES = ("mean", "norm_bounded", "trimmed_mean", "median", "multi_krum")
STRENGTHS = (0.0, 1.0, 10.0)  # 0: all sites are honest
CPU = torch.device("cpu")
SCHEDULE = Schedule(steps=120, learning_rate=0.01)


def flip(strength: float) -> SiteStage:
    """A stage that turns an update around and makes it longer."""

    def stage(work: SiteWork) -> SiteWork:
        return replace(work, update=-strength * work.update)

    return stage


def joined(world: World, sites: Sequence[SiteWorld], model: nn.Module, rule: str, strength: float, seed: int) -> float:
    """UAR of one federation, percent."""
    hostile = {sites[number].name: (flip(strength),) for number in HOSTILE} if strength else {}
    settings = RoundSettings(aggregation=AggregationSettings.model_validate({"rule": rule, "byzantine": len(HOSTILE)}))
    made = federate(
        sites,
        model,  # type: ignore[arg-type]
        make("ecan"),
        SCHEDULE,
        settings,
        Policy(),
        study="hostile",
        rounds=settings.rounds,
        personal_steps=0,
        seed=seed,
        stages=hostile,
    )
    answers = torch.zeros(len(world.target), len(world.classes))
    for site, own in zip(sites, made.models, strict=True):
        answers[list(site.index)] = probabilities(own, site.data.x)
    labels = labels_of(world)
    return 100 * metrics.uar(labels, answers.argmax(dim=1))


def main() -> int:
    """Measure, print, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpora", nargs=2, metavar="NAME=DIR")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--alpha", type=float, default=100.0)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    one_thread()
    source, target = ({name: Path(place)} for name, _, place in (pair.partition("=") for pair in given.corpora))
    settings = SimulationSettings(
        source=SourceSettings(corpora=source),
        target=TargetSettings(corpora=target),
        partition=PartitionSettings.model_validate({"by": "dirichlet", "sites": SITES, "alpha": given.alpha}),
    )
    world = build(settings, CPU)
    found: dict[str, dict[str, list[float]]] = {rule: {f"{s:g}": [] for s in STRENGTHS} for rule in RULES}
    for seed in range(given.seeds):
        trained = source_model(settings, world, seed, CPU)
        sites = build_sites(settings, world, trained)
        for rule in RULES:
            for strength in STRENGTHS:
                found[rule][f"{strength:g}"].append(joined(world, sites, trained.model, rule, strength, seed))
                sys.stderr.write(f"seed {seed} {rule} {strength:g}: {found[rule][f'{strength:g}'][-1]:.2f}\n")
    report(found)
    if given.out:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps(found, indent=1) + "\n")
    return 0


def report(found: Mapping[str, Mapping[str, Sequence[float]]]) -> None:
    """The table."""
    sys.stdout.write("| rule | honest | two of ten flipped | flipped and ten times as long |\n|---|---|---|---|\n")
    for rule, columns in found.items():
        cells = (f"{statistics.mean(v):.1f} ± {statistics.stdev(v) if len(v) > 1 else 0:.1f}" for v in columns.values())
        sys.stdout.write(f"| `{rule}` | {' | '.join(cells)} |\n")


if __name__ == "__main__":
    sys.exit(main())
