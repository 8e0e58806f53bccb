"""The experiment behind the normalisation rule ``auto``: how it decides, and what the decision is worth.

    python benchmarks/normalisation.py CORPORA --table shares
    python benchmarks/normalisation.py CORPORA --table pairs --models logreg,logreg_self,source,ecan --seeds 3
    python benchmarks/normalisation.py CORPORA --table hard
    python benchmarks/normalisation.py CORPORA --table causal

CORPORA is a folder with emodb, emovo, ravdess and urdu. All figures are transductive: a target's statistics and
adaptation see all of its utterances, without labels. UAR in percent.
"""

from __future__ import annotations

import argparse
import functools
import itertools
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from label_shifts import SHIFTS, Draw
from torch import Tensor

from fedser import adapt as adaptation
from fedser.audio import dataset
from fedser.audio.dataset import SpeechData
from fedser.audio.features import FeatureSettings
from fedser.audio.normalise import NormalisationSettings, SiteNormaliser, between_speaker_share
from fedser.compute import one_thread
from fedser.console import progress
from fedser.evaluate.metrics import uar
from fedser.models import EmotionClassifier, ModelSettings
from fedser.train import TrainSettings, fit_linear, train_model

CORPORA = ("emodb", "emovo", "ravdess", "urdu")
BALANCED = CORPORA[:3]  # every speaker shows every emotion: a stock to draw shifted targets from
LINEAR = ("logreg", "logreg_self")
RULES: dict[str, NormalisationSettings] = {
    "auto": NormalisationSettings(),
    "corpus": NormalisationSettings(rule="corpus"),
    "speaker": NormalisationSettings(rule="speaker"),
    **{f"shrunk {k}": NormalisationSettings(rule="shrunk", kappa=k) for k in (10, 30, 100)},
}

# --- one cell ----------------------------------------------------------------------------------------------


def normalised(data: SpeechData, rule: str) -> Tensor:
    """A site's z-scores by its own statistics."""
    return SiteNormaliser.fit(data.raw, data.speakers, RULES[rule]).transform(data.raw, data.speakers)


def only(data: SpeechData, classes: Sequence[str]) -> SpeechData:
    """The utterances with these emotions."""
    return data.subset(data.labels(classes) >= 0)


class Source:
    """Models of one source corpus, trained on the classes shared with the target."""

    def __init__(self, data: SpeechData, classes: Sequence[str], rule: str, models: Sequence[str], seed: int) -> None:
        own = only(data, classes)
        x, y = normalised(own, rule), own.labels(classes)
        self.classes, self.seed = classes, seed
        self.linear = fit_linear(x, y, classes) if set(models) & set(LINEAR) else None
        self.model = EmotionClassifier(ModelSettings(hidden=8, bottleneck=8), tuple(x.shape[1:]), classes)
        if set(models) - set(LINEAR):
            cpu, recipe = torch.device("cpu"), TrainSettings()
            self.model = train_model(x, y, own.speakers, classes, ModelSettings(), recipe, seed, cpu).model

    def score(self, target: SpeechData, rule: str, model: str) -> float:
        """UAR on a target, adapted to all of it."""
        x = normalised(target, rule)
        method = adaptation.make(model)
        adapted = adaptation.adapt(self.model, x, method, seed=self.seed, linear=self.linear).model
        answers = adaptation.probabilities(adapted, x).argmax(dim=1)
        return 100 * uar(target.labels(self.classes), answers)


def shared(a: SpeechData, b: SpeechData) -> list[str]:
    """Emotions that both corpora have."""
    return sorted({str(e) for e in a.emotions} & {str(e) for e in b.emotions})


# --- tables ------------------------------------------------------------------------------------------------


def shares(data: Mapping[str, SpeechData], seeds: int) -> list[list[str]]:
    """ρ and κ of each corpus under each shift, the mean over draws."""
    rows = [["target", *data]]
    for name, draw in SHIFTS.items():
        row = [name]
        for corpus in data.values():
            if corpus.name == "urdu" and name != "as recorded":
                row.append("")
                continue
            parts = [_drawn(corpus, draw, seed) for seed in range(1 if name == "as recorded" else 4 * seeds)]
            found = [between_speaker_share(p.raw.double(), p.speakers)[0] for p in parts]
            rho = [value for value in found if value is not None]
            kappas = [SiteNormaliser.fit(p.raw, p.speakers, RULES["auto"]).kappa for p in parts]
            told = f"{np.mean(rho):.2f}" if rho else "–"
            row.append(f"{told} / {np.exp(np.mean(np.log(kappas))):.3g}")
        rows.append(row)
    return rows


def pair(
    data: Mapping[str, SpeechData], rules: Sequence[str], models: Sequence[str], job: tuple[str, str, int]
) -> list[tuple[str, str, float]]:
    """All rules and models on one ordered pair; the same rule on both sides."""
    one_thread()
    a, b, seed = job
    classes = shared(data[a], data[b])
    target = only(data[b], classes)
    cells = []
    for rule in rules:
        source = Source(data[a], classes, rule, models, seed)
        cells += [(rule, model, source.score(target, rule, model)) for model in models]
    return cells


def pairs(
    data: Mapping[str, SpeechData], rules: Sequence[str], models: Sequence[str], seeds: int, jobs: int
) -> list[list[str]]:
    """UAR of every ordered pair, rule and model, the mean over seeds."""
    work = [(a, b, seed) for seed in range(seeds) for a, b in itertools.permutations(data, 2)]
    cells: dict[tuple[str, str, str], list[float]] = {}
    with ProcessPoolExecutor(jobs) as pool, progress("pairs", len(work)) as step:
        for (a, b, _), found in zip(work, pool.map(functools.partial(pair, data, rules, models), work), strict=True):
            step()
            for rule, model, value in found:
                for place in (f"{a}:{b}", "mean"):
                    cells.setdefault((model, rule, place), []).append(value)
    places = [*(f"{a}:{b}" for a, b in itertools.permutations(data, 2)), "mean"]
    table = [["model", "rule", *places]]
    for model, rule in itertools.product(models, rules):
        table.append([model, rule, *(f"{np.mean(cells[model, rule, place]):.1f}" for place in places)])
    return table


def hard(data: Mapping[str, SpeechData], rules: Sequence[str], models: Sequence[str], seeds: int) -> list[list[str]]:
    """UAR on shifted targets (source as recorded, rule ``auto``), the mean over six pairs and draws."""
    names = [model for model in models if model in LINEAR]
    table = [["target", "model", *rules]]
    sources = {
        (a, b): Source(data[a], shared(data[a], data[b]), "auto", names, 0)
        for a, b in itertools.permutations(BALANCED, 2)
    }
    for name, draw in SHIFTS.items():
        values: dict[tuple[str, str], list[float]] = {}
        for (_, b), seed in itertools.product(sources, range(seeds)):
            source = sources[_, b]
            target = _drawn(only(data[b], source.classes), draw, seed)
            for rule, model in itertools.product(rules, names):
                values.setdefault((model, rule), []).append(source.score(target, rule, model))
        table += [[name, m, *(f"{np.mean(values[m, rule]):.1f}" for rule in rules)] for m in names]
    return table


def causal(data: Mapping[str, SpeechData], seeds: int) -> list[list[str]]:
    """UAR of logreg on speakers whom the site's statistics never saw (fitted on the other half of them)."""
    values: dict[str, list[float]] = {}
    for (a, b), seed in itertools.product(itertools.permutations(BALANCED, 2), range(seeds)):
        source = Source(data[a], shared(data[a], data[b]), "auto", ["logreg"], seed)
        target = only(data[b], source.classes)
        names = np.random.default_rng(seed).permutation(sorted({str(name) for name in target.speakers}))
        first = torch.tensor([name in set(names[: len(names) // 2]) for name in target.speakers])
        order = torch.randperm(int((~first).sum()), generator=torch.Generator().manual_seed(seed))
        seen, new = target.subset(first), target.subset((~first).nonzero()[order, 0])
        site = SiteNormaliser.fit(seen.raw, seen.speakers, RULES["auto"])
        ways = {
            "site's statistics": site.transform(new.raw, [None] * len(new)),
            "running statistics": site.transform_causal(new.raw, new.speakers),
            "whole batch": normalised(new, "auto"),
        }
        assert source.linear is not None
        for way, x in ways.items():
            answers = adaptation.probabilities(source.linear, x).argmax(dim=1)
            values.setdefault(way, []).append(100 * uar(new.labels(source.classes), answers))
    return [["unseen speakers", "UAR"], *([way, f"{np.mean(found):.1f}"] for way, found in values.items())]


def _drawn(data: SpeechData, draw: Draw, seed: int) -> SpeechData:
    emotions, speakers = [str(e) for e in data.emotions], [str(s) for s in data.speakers]
    return data.subset(sorted(draw(emotions, speakers, np.random.default_rng([seed, 7]))))


def markdown(table: Sequence[Sequence[str]]) -> str:
    """A table as docs/normalisation.md shows it."""
    head, *rows = ("| " + " | ".join(row) + " |" for row in table)
    return "\n".join([head, "|" + "---|" * len(table[0]), *rows])


def main() -> None:
    """Compute one table and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpora", type=Path)
    parser.add_argument("--table", choices=("shares", "pairs", "hard", "causal"), default="shares")
    parser.add_argument("--features", choices=("functionals", "egemaps"), default="functionals")
    parser.add_argument("--models", default="logreg,logreg_self", help="logreg, logreg_self, source, ecan, …")
    parser.add_argument("--rules", default=",".join(RULES), help="auto, corpus, speaker, shrunk 10, …")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1, help="processes, for the table of pairs")
    asked = parser.parse_args()
    one_thread()
    settings = FeatureSettings(kind=asked.features)
    data = {name: dataset.load(asked.corpora / name, settings, corpus=name) for name in CORPORA}
    models, rules = asked.models.split(","), asked.rules.split(",")
    if asked.table == "shares":
        table = shares(data, asked.seeds)
    elif asked.table == "pairs":
        table = pairs(data, rules, models, asked.seeds, asked.jobs)
    elif asked.table == "causal":
        table = causal(data, asked.seeds)
    else:
        table = hard(data, rules, models, asked.seeds)
    print(markdown(table))


if __name__ == "__main__":
    main()
