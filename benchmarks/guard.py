"""The experiment behind the guard: which label-free score follows the recall, and what the rule made of them keeps.

    python benchmarks/guard.py CORPORA RUNS --compute --seeds 3     # adds what RUNS, a file of JSON lines, lacks
    python benchmarks/guard.py CORPORA RUNS --table scores
    python benchmarks/guard.py CORPORA RUNS --table rule
    python benchmarks/guard.py CORPORA RUNS --table kept
    python benchmarks/guard.py CORPORA RUNS --table single

CORPORA is a folder with emodb, emovo, ravdess and urdu. A run is one source model at one target: every candidate
adapts to all utterances of the target set. Labels serve for the UAR and for drawing the sets. ``rule`` fits the rule's
settings on three target corpora and tells what they do on the fourth: so the shipped values were justified.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from scipy.stats import spearmanr
from torch import Tensor

from fedser.adapt import adapt, make, scores
from fedser.adapt.guard import CANDIDATES, GuardSettings, candidate, choose, decide
from fedser.audio import dataset
from fedser.audio.dataset import SpeechData
from fedser.audio.features import FeatureSettings
from fedser.audio.normalise import NormalisationSettings, SiteNormaliser
from fedser.compute import generator, one_thread
from fedser.evaluate.bench.nonspeech import noise_site
from fedser.evaluate.bench.target_sets import draw
from fedser.evaluate.metrics import uar
from fedser.evaluate.source import SourceModel, train_source
from fedser.models import ModelSettings
from fedser.train import TrainSettings

CORPORA = ("emodb", "emovo", "ravdess", "urdu")
# Target set and normalisation rule of each setting; all but the first are the harm set.
SETTINGS = {
    "ordinary": ("all", "auto"),
    "corpus": ("all", "corpus"),
    "dirichlet": ("dirichlet", "auto"),
    "neutral70": ("neutral70", "auto"),
    "two_emotions": ("two_emotions", "auto"),
    "small": ("small", "auto"),
}
FEATURES = FeatureSettings(kind="functionals")
SPLITS = 5  # halves of a target on which labels choose, to see what a choice is worth
Run = dict[str, Any]

# --- runs --------------------------------------------------------------------------------------------------


def compute(corpora: Path, out: Path, seeds: int, wanted: Sequence[str]) -> None:
    """Append every missing run to ``out``."""
    one_thread()
    data = {name: dataset.load(corpora / name, FEATURES, name=name, need_labels=True) for name in CORPORA}
    done = {(run["setting"], run["source"], run["target"], run["seed"]) for run in read(out)}
    for seed, (source, target) in itertools.product(range(seeds), itertools.permutations(CORPORA, 2)):
        classes = tuple(sorted({e for e in data[source].emotions if e} & {e for e in data[target].emotions if e}))
        models: dict[str, SourceModel] = {}
        for setting in wanted:
            if (setting, source, target, seed) in done:
                continue
            kind, rule = SETTINGS.get(setting, ("", "auto"))
            if rule not in models:
                models[rule] = trained(data[source], classes, rule, seed)
            key = {"setting": setting, "source": source, "target": target, "seed": seed}
            made = (
                noise(models[rule], seed)
                if setting == "nonspeech"
                else one(models[rule], data[target], kind, rule, seed)
            )
            with out.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps(key | made) + "\n")


def trained(data: SpeechData, classes: tuple[str, ...], rule: str, seed: int) -> SourceModel:
    """The source model of one corpus."""
    known = data.subset(data.labels(classes) >= 0)
    x, y = normalised(known, rule), known.labels(classes)
    cpu = torch.device("cpu")
    return train_source(x, y, known.speakers, classes, ModelSettings(), TrainSettings(), seed=seed, device=cpu)


def normalised(data: SpeechData, rule: str) -> Tensor:
    """A site's z-scores by its own statistics."""
    settings = NormalisationSettings.model_validate({"rule": rule})
    return SiteNormaliser.fit(data.raw, data.speakers, settings).transform(data.raw, data.speakers)


def one(source: SourceModel, data: SpeechData, kind: str, rule: str, seed: int) -> Run:
    """Adapt every candidate to each site of a target set; answers of several sites are scored together."""
    classes = source.model.classes
    drawn = draw(data, kind, classes, seed)
    sites = [drawn.data] if drawn.sites is None else [drawn.data.subset(rows) for rows in drawn.sites]
    told = [at_site(source, normalised(site, rule), seed) for site in sites]
    y = torch.cat([site.labels(classes) for site in sites])
    answers = {name: torch.cat([each["answers"][name] for each in told]) for name in (*CANDIDATES, "guard")}
    run: Run = {"utterances": len(y), "uar": {name: 100 * uar(y, given) for name, given in answers.items()}}
    run["chosen"] = [each["chosen"] for each in told]
    run["halves"] = halves(y, answers, seed)
    return run if len(sites) > 1 else run | {"scores": told[0]["scores"], "shift": told[0]["shift"]}


def at_site(source: SourceModel, x: Tensor, seed: int) -> Run:
    """All candidates' answers and scores, and what the guard makes of them."""
    found = [candidate("source", source.model, x, temperature=source.temperature)]
    for name in CANDIDATES[1:]:
        model = adapt(source.model, x, make(name), seed=seed, linear=source.linear).model
        found.append(candidate(name, model, x, temperature=source.temperature))
    choice = choose(found, x, temperature=source.temperature)
    answers = {each.name: each.probabilities.argmax(dim=1) for each in found}
    return {
        "answers": answers | {"guard": answers[choice.name]},
        "chosen": choice.name,
        "scores": choice.scores,
        "shift": scores.variance_shift(source.model, x),
    }


def noise(source: SourceModel, seed: int) -> Run:
    """What the guard makes of recordings without speech."""
    site = noise_site(FEATURES, seed)
    told = at_site(source, normalised(site, "auto"), seed)
    return {"utterances": len(site), "chosen": [told["chosen"]], "shift": told["shift"]}


def halves(y: Tensor, answers: Mapping[str, Tensor], seed: int) -> list[float]:
    """Gains over the source on one half of the utterances of the candidate that is best on the other half."""
    gains = []
    for split in range(SPLITS):
        order = torch.randperm(len(y), generator=generator("halves", seed, split))
        one_half, other = order[: len(y) // 2], order[len(y) // 2 :]
        best = max(CANDIDATES, key=lambda name: uar(y[one_half], answers[name][one_half]))
        gains.append(100 * (uar(y[other], answers[best][other]) - uar(y[other], answers["source"][other])))
    return gains


def read(path: Path) -> list[Run]:
    """All runs so far."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


# --- tables ------------------------------------------------------------------------------------------------


def gain(run: Run, name: str) -> float:
    """Points of UAR over the source."""
    return float(run["uar"][name] - run["uar"]["source"])


def harmful(run: Run) -> bool:
    """Whether a run belongs to the harm set."""
    return bool(run["setting"] != "ordinary")


def table_scores(runs: Sequence[Run]) -> None:
    """Rank correlation of each score's change with the change in UAR, over all candidates and runs."""
    whole = [run for run in runs if "scores" in run]
    parts = {"all": whole}
    parts |= {name: [run for run in whole if run["setting"] == name] for name in SETTINGS if name != "small"}
    parts |= {f"→ {name}": [run for run in whole if run["target"] == name] for name in CORPORA}
    print("| score | " + " | ".join(parts) + " |\n" + "|---" * (len(parts) + 1) + "|")
    for score in whole[0]["scores"]["source"]:
        cells = []
        for part in parts.values():
            picked = [(run, name) for run in part for name in CANDIDATES[1:]]
            change = [run["scores"][name][score] - run["scores"]["source"][score] for run, name in picked]
            cells.append(f"{spearmanr(change, [gain(run, name) for run, name in picked]).statistic:+.2f}")
        print(f"| {score} | " + " | ".join(cells) + " |")


def table_rule(runs: Sequence[Run]) -> None:
    """The rule's settings fitted without the target corpus that they are used on."""
    whole = [run for run in runs if "scores" in run]
    grid = [
        GuardSettings(margin=margin, company=company, least=least)
        for margin, company, least in itertools.product((0, 0.5, 1), (0, 1, 4), (0, 0.1, 0.3))
    ]
    gains = {settings: [gain(run, by(settings, run)) for run in whole] for settings in grid}
    # A run of the harm set weighs a quarter, as there are four such settings; losses beyond a point count twice.
    weights = [0.25 if harmful(run) else 1.0 for run in whole]
    use = {s: [w * (g + min(0.0, g + 1)) for w, g in zip(weights, found, strict=True)] for s, found in gains.items()}
    left: dict[int, str] = {}
    for target in CORPORA:
        known = [i for i, run in enumerate(whole) if run["target"] != target]
        best = max(grid, key=lambda settings: sum(use[settings][i] for i in known))
        print(f"without {target}: margin {best.margin:g}, company {best.company:g}, least {best.least:g}")
        left |= {i: by(best, run) for i, run in enumerate(whole) if run["target"] == target}
    lines(whole, {"fitted without the target": [left[i] for i in range(len(whole))]})
    lines(whole, {"shipped": [by(GuardSettings(), run) for run in whole]})


def by(settings: GuardSettings, run: Run) -> str:
    """What the rule chooses for a run, from its scores."""
    if run["shift"] > settings.strangest or run["utterances"] < settings.fewest:
        return "source"
    return decide(run["scores"], run["utterances"], settings)[0]


def table_single(runs: Sequence[Run]) -> None:
    """The guard between the source and one method alone, and always adapting by that method."""
    whole = [run for run in runs if "scores" in run]
    for name in CANDIDATES[1:]:
        cells = []
        for part in ([run for run in whole if not harmful(run)], [run for run in whole if harmful(run)]):
            only = [run | {"scores": {each: run["scores"][each] for each in ("source", name)}} for run in part]
            possible = sum(max(0.0, gain(run, name)) for run in part)
            for names in ([by(GuardSettings(), run) for run in only], [name] * len(part)):
                found = [gain(run, each) for run, each in zip(part, names, strict=True)]
                cells.append(f"{100 * fmean(g >= -1 for g in found):.0f} %, {100 * sum(found) / possible:.0f} %")
        print(f"| {name} | " + " | ".join(cells) + " |")


def table_kept(runs: Sequence[Run]) -> None:
    """The guard beside always and never adapting, and beside labels that choose on one half of the utterances."""
    speech = [run for run in runs if run["setting"] != "nonspeech"]
    lines(speech, {"guard": ["guard"] * len(speech)} | {f"always {name}": [name] * len(speech) for name in CANDIDATES})
    for title, part in groups(speech):
        possible = sum(max(gain(run, name) for name in CANDIDATES) for run in part)
        kept = sum(fmean(run["halves"]) for run in part) / possible
        safe = fmean(value >= -1 for run in part for value in run["halves"])
        print(f"| {title} | labels of one half choose | {len(part)} | {100 * safe:.1f} % | – | {100 * kept:.0f} % |")
    silent = [run for run in runs if run["setting"] == "nonspeech"]
    if silent:
        print(f"without speech: source kept in {sum(run['chosen'] == ['source'] for run in silent)} of {len(silent)}")


def groups(runs: Sequence[Run]) -> Iterator[tuple[str, list[Run]]]:
    """The ordinary runs, the harm set, and each of its settings."""
    yield "ordinary", [run for run in runs if not harmful(run)]
    yield "harm set", [run for run in runs if harmful(run)]
    for name in list(SETTINGS)[1:]:
        if part := [run for run in runs if run["setting"] == name]:
            yield name, part


def lines(runs: Sequence[Run], policies: Mapping[str, Sequence[str]]) -> None:
    """One line a group and policy: share of runs at most a point below the source, mean gain, gain kept."""
    place = {id(run): i for i, run in enumerate(runs)}
    print("| runs | policy | n | ≥ source − 1 | mean gain | gain kept |\n|---|---|---|---|---|---|")
    for title, part in groups(runs):
        possible = sum(max(gain(run, name) for name in CANDIDATES) for run in part)
        for policy, names in policies.items():
            values = [gain(run, names[place[id(run)]]) for run in part]
            safe, kept = fmean(value >= -1 for value in values), sum(values) / (possible or math.nan)
            print(
                f"| {title} | {policy} | {len(part)} | {100 * safe:.1f} % | {fmean(values):+.2f} | {100 * kept:.0f} % |"
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpora", type=Path)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--compute", action="store_true")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--settings", default=",".join([*SETTINGS, "nonspeech"]))
    parser.add_argument("--table", choices=("scores", "rule", "kept", "single"))
    asked = parser.parse_args()
    if asked.compute:
        compute(asked.corpora, asked.runs, asked.seeds, asked.settings.split(","))
    if asked.table:
        tables = {"scores": table_scores, "rule": table_rule, "kept": table_kept, "single": table_single}
        tables[asked.table](read(asked.runs))
