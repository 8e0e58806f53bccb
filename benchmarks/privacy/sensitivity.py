"""How far one unit moves the clipped sum of a private step, searched for from files on.

Neighbours are two manifests, with and without one unit (a speaker, or an utterance), over the same recordings. Both are
read, inspected, normalised, grouped and clipped by the code that a site runs; released weights, coins, the hash's key
and the clipping norm are drawn anew in each trial, and are the same for both. *Random* trials stop there; *optimised*
ones then change the features of all utterances by gradient ascent on the distance itself. No trial may come out
above the clipping norm C. The *control* clips each utterance of a supervised contrastive loss over the batch, as
ordinary DP-SGD would: the same comparison must find it above C::

    python benchmarks/privacy/sensitivity.py --random 10000 --optimised 1000
"""

from __future__ import annotations

import argparse
import csv
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap
from torch.nn import functional

from fedser.adapt import Schedule, make
from fedser.audio import dataset
from fedser.audio.dataset import SpeechData
from fedser.audio.features import FeatureSettings
from fedser.audio.normalise import NormalisationSettings, SiteNormaliser
from fedser.compute import generator, one_thread
from fedser.demo.corpus import CorpusPlan, write_corpus
from fedser.demo.voices import EVERYDAY
from fedser.federation.data import local_data
from fedser.federation.stages import LocalData
from fedser.losses import supervised_contrastive
from fedser.models import EmotionClassifier, ModelSettings, initialise
from fedser.privacy.group_features import DUPLICATES, GroupUnit
from fedser.privacy.group_steps import GroupSettings, PrivateSteps

CLASSES = ("anger", "fear", "happiness", "neutral", "sadness")
METHODS = ("ecan", "aad")
UNITS: tuple[GroupUnit, ...] = ("speaker", "utterance")
SCHEDULE = Schedule(input_noise=0.2)
ASCENTS = 4  # steps of one optimised trial
PACE = 0.5  # of one step, in standard deviations of the features


@dataclass(frozen=True)
class Neighbours:
    """A site's data with and without one unit, each read from its own manifest."""

    gone: str
    whole: LocalData
    rest: LocalData


@dataclass
class Found:
    """The largest distances of one series, in clipping norms."""

    name: str
    random: float = 0.0
    optimised: float = 0.0


def main() -> int:
    """Print the largest distances; 1 if one is above C, or if the control is not caught."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--random", type=int, default=10_000, help="trials of each loss, half of them for either unit")
    parser.add_argument("--optimised", type=int, default=1_000, help="likewise")
    parser.add_argument("--corpora", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    one_thread()
    with tempfile.TemporaryDirectory() as folder:
        world = list(neighbours(Path(folder), given.corpora))
    share = (-(-given.random // len(UNITS)), -(-given.optimised // len(UNITS)))
    rows = [series(world, method, unit, *share, given.seed) for unit in UNITS for method in METHODS]
    caught = control(world, min(given.random, 300), given.seed)
    lines = ["| loss, unit | random | optimised |", "|---|---|---|"]
    lines += [f"| {row.name} | {row.random:.4f} C | {row.optimised:.4f} C |" for row in rows]
    lines += [f"| control: utterances clipped one by one | {caught:.4f} C | |"]
    sys.stdout.write("\n".join(lines) + "\n")
    return 0 if max(max(row.random, row.optimised) for row in rows) <= 1 < caught else 1


def neighbours(
    folder: Path, corpora: int, speakers: int = 8, utterances: int = 40
) -> Iterator[tuple[GroupUnit, Neighbours]]:
    """All pairs of manifests over a few synthetic corpora, as a site's data under each unit.

    Each corpus holds a recording twice, under two speakers, and one of an unknown speaker.
    """
    plan = CorpusPlan("source", speakers=4, utterances=20, seconds=(0.6, 0.9))
    source = read(write_corpus(folder / "source", plan, 0), None)
    published = SiteNormaliser.fit(source.raw, source.speakers, NormalisationSettings())
    for number in range(corpora):
        name = f"site-{number}"
        plan = CorpusPlan(name, speakers, utterances, EVERYDAY, seconds=(0.6, 0.9), first=100 * (number + 1))
        rows = listed(write_corpus(folder / name, plan, number), folder / name)
        for unit in UNITS:
            whole = data_of(folder / name, rows, unit, published)
            for gone in dict.fromkeys(each for each in whole.units or () if each is not None):
                kept = [row for row in rows if identity(folder / name, row, unit) != gone]
                yield unit, Neighbours(gone, whole, data_of(folder / name, kept, unit, published))


def listed(manifest: Path, folder: Path) -> list[dict[str, str]]:
    """The manifest's rows, with a recording that two speakers have and one that nobody has."""
    with manifest.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    other = next(row for row in rows if row["speaker"] != rows[0]["speaker"])
    shutil.copyfile(folder / rows[0]["path"], folder / "again.wav")
    shutil.copyfile(folder / rows[-1]["path"], folder / "unknown.wav")
    return [{**other, "path": "again.wav"}, *rows, {**other, "path": "unknown.wav", "speaker": ""}]


def identity(folder: Path, row: Mapping[str, str], unit: GroupUnit) -> str:
    """The unit of a manifest's row, as the site names it."""
    return row["speaker"] if unit == "speaker" else f"{folder / row['path']}\0None\0None\0None"


def data_of(folder: Path, rows: Sequence[Mapping[str, str]], unit: GroupUnit, published: SiteNormaliser) -> LocalData:
    """Write a manifest, read it as a site does, and prepare its data."""
    manifest = folder / "manifest.csv"
    with manifest.open("w", encoding="utf-8", newline="") as stream:
        table = csv.DictWriter(stream, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    rule = NormalisationSettings()
    return local_data(read(manifest, unit), network(0), None, rule, None, unit=unit, published=published)[0]


def read(manifest: Path, unit: GroupUnit | None) -> SpeechData:
    """A manifest's utterances and features."""
    return dataset.load(manifest, FeatureSettings(), duplicates=DUPLICATES[unit] if unit else "site")


def network(seed: int, spread: float = 0.0) -> EmotionClassifier:
    """Released weights of a small network: the usual first ones, and noise on them."""
    model = EmotionClassifier(ModelSettings(hidden=16, depth=1, bottleneck=8), (134,), CLASSES)
    chance = generator("sensitivity", "weights", seed)
    initialise(model, chance)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += spread * torch.randn(parameter.shape, generator=chance)
    return model.eval()


def series(
    world: Sequence[tuple[GroupUnit, Neighbours]], method: str, unit: GroupUnit, random: int, optimised: int, seed: int
) -> Found:
    """The largest distance of so many random and optimised trials."""
    pairs = [pair for its, pair in world if its == unit]
    found = Found(f"{method}, {unit}")
    for trial in range(random):
        chance = np.random.default_rng([seed, trial, UNITS.index(unit)])
        found.random = max(found.random, distance(*both(pairs[trial % len(pairs)], method, unit, chance)))
    for trial in range(optimised):
        chance = np.random.default_rng([seed, trial, 2 + UNITS.index(unit)])
        found.optimised = max(found.optimised, ascend(pairs[trial % len(pairs)], method, unit, chance))
    sys.stderr.write(f"{found}\n")
    return found


def both(
    pair: Neighbours, method: str, unit: GroupUnit, chance: np.random.Generator
) -> tuple[Callable[[], Tensor], Callable[[], Tensor], float]:
    """The clipped sums of two neighbours under the same weights, coins and key, and C."""
    clip = float(10 ** chance.uniform(-4, 1))
    model = network(int(chance.integers(2**31)), float(10 ** chance.uniform(-2, 0.5)))
    key, step = chance.bytes(32), int(chance.integers(40))
    settings = GroupSettings(clip=clip, rate=0.7, groups=8, size=6, together=unit == "utterance", trained="all")
    names = dict.fromkeys(each for each in pair.whole.units or () if each is not None)
    coins = {name: bool(coin) for name, coin in zip(names, chance.random(len(names)) < 0.7, strict=True)}
    coins[pair.gone] = True  # where the unit is not drawn, the sums are equal

    def summed(data: LocalData) -> Callable[[], Tensor]:
        run = PrivateSteps(model, data.x, data.units or (), make(method), SCHEDULE, settings, key=key)
        drawn = np.array([coins[name] for name in run.groups.units])
        return lambda: run.clipped_sum(step, 40, coins=lambda *_: drawn)

    return summed(pair.whole), summed(pair.rest), clip


def distance(whole: Callable[[], Tensor], rest: Callable[[], Tensor], clip: float) -> float:
    """How far apart two sums lie, in C."""
    return float((whole() - rest()).detach().norm()) / clip


def ascend(pair: Neighbours, method: str, unit: GroupUnit, chance: np.random.Generator) -> float:
    """The largest distance on the way of a gradient ascent over the features of all utterances."""
    kept = [row for row, name in enumerate(pair.whole.units or ()) if name != pair.gone]
    moving = pair.whole.x.clone().requires_grad_()
    worst, seed = 0.0, chance.bytes(16)
    for _ in range(ASCENTS):
        again = np.random.default_rng(list(seed))  # the same weights, coins and key at each step
        moved = Neighbours(pair.gone, changed(pair.whole, moving), changed(pair.rest, moving[kept]))
        whole, rest, clip = both(moved, method, unit, again)
        apart = (whole() - rest()).norm() / clip
        worst = max(worst, float(apart.detach()))
        (uphill,) = torch.autograd.grad(apart, moving)
        size = uphill.norm(dim=1, keepdim=True)
        stride = PACE * moving.shape[1] ** 0.5 * uphill / size.clamp_min(1e-12)
        moving = (moving + stride).detach().requires_grad_()
    return worst


def changed(data: LocalData, x: Tensor) -> LocalData:
    """The same data with other features."""
    return LocalData(data.model, x, data.speakers, units=data.units, statistics=data.statistics)


def control(world: Sequence[tuple[GroupUnit, Neighbours]], trials: int, seed: int) -> float:
    """The largest distance, in C = 1, where each utterance's gradient of a batch's contrastive loss is clipped."""
    pairs = [pair for its, pair in world if its == "utterance"]
    worst = 0.0
    for trial in range(trials):
        pair = pairs[trial % len(pairs)]
        model = network(trial + seed, 0.1)
        apart = one_by_one(model, pair.whole.x) - one_by_one(model, pair.rest.x)
        worst = max(worst, float(apart.detach().norm()))
    return worst


def one_by_one(model: EmotionClassifier, x: Tensor) -> Tensor:
    """Sum of utterances' gradients, each cut to 1: what of the batch's loss flows through the utterance's embedding."""
    labels = model(x).argmax(dim=1).detach()
    f = functional.normalize(model.embed(x), dim=1).detach()
    names = [name for name in model.adaptable() if name.startswith("bottleneck.0")]
    own = {name: model.get_parameter(name).detach() for name in names}
    hidden = model.encoder(x).detach()

    def loss(parameters: dict[str, Tensor], mask: Tensor) -> Tensor:
        plain = {name.removeprefix("bottleneck."): tensor for name, tensor in parameters.items()}
        seen: Any = functional_call(model.bottleneck, plain, (hidden,))
        mixed = torch.where(mask[:, None], functional.normalize(seen, dim=1), f)
        return len(f) * supervised_contrastive(mixed, labels, 0.2)

    found = vmap(grad(loss), in_dims=(None, 0))(own, torch.eye(len(x), dtype=torch.bool))
    flat = torch.cat([each.flatten(1) for each in found.values()], dim=1)
    return (flat / flat.norm(dim=1, keepdim=True).clamp_min(1.0)).sum(dim=0)


if __name__ == "__main__":
    sys.exit(main())
