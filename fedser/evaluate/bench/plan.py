"""Which cells there are: the product of the settings' axes, less what cannot or need not be computed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from fedser.audio.dataset import SpeechData
from fedser.errors import TooLittleDataError
from fedser.evaluate.bench.contest import GUARD, SUPERVISED
from fedser.evaluate.bench.pairs import Pair, shared
from fedser.evaluate.bench.settings import BenchSettings
from fedser.evaluate.bench.store import Key
from fedser.evaluate.bench.target_sets import obstacle

ALONE = ("small", "nonspeech")  # sets that have no held-out speakers


@dataclass(frozen=True)
class Cell:
    """One row of the results, less what its job knows."""

    target: str
    target_set: str
    protocol: str
    method: str


@dataclass(frozen=True)
class Job:
    """One source model, and the cells that start from it.

    Attributes:
        sources: names of the labelled corpora.
        classes: that source and targets share.
        features: kind of features.
        normalisation: rule.
        seed: of everything.
        cells: to compute.
    """

    sources: tuple[str, ...]
    classes: tuple[str, ...]
    features: str
    normalisation: str
    seed: int
    cells: tuple[Cell, ...]

    def key(self, cell: Cell) -> Key:
        """What names a row of the results."""
        return Key(
            source=Pair(self.sources, cell.target).source,
            target=cell.target,
            method=cell.method,
            setting="central",
            features=self.features,
            normalisation=self.normalisation,
            protocol=cell.protocol,
            target_set=cell.target_set,
            partition="",
            seed=str(self.seed),
        )


@dataclass
class Plan:
    """All jobs, and what was left out of the product, in words."""

    jobs: list[Job]
    left_out: list[str] = field(default_factory=list)


def plan(settings: BenchSettings, pairs: Sequence[Pair], data: Mapping[str, SpeechData], done: Collection[Key]) -> Plan:
    """Group the cells that are not done yet by the source model that they start from.

    Args:
        settings: of the benchmark.
        pairs: of corpora.
        data: corpus name → its utterances, of any features.
        done: rows that exist.

    Raises:
        TooLittleDataError: a pair that the user wrote down shares fewer than two emotions.
    """
    notes: dict[str, None] = {}  # in order, each once
    emotions = {name: part.emotions for name, part in data.items()}
    groups: dict[tuple[tuple[str, ...], tuple[str, ...]], list[str]] = {}
    for pair in pairs:
        try:
            classes = shared(emotions, pair)
        except TooLittleDataError as error:
            if pair.explicit:
                raise
            notes[f"{pair.source} → {pair.target}: {error}"] = None
            continue
        groups.setdefault((pair.sources, classes), []).append(pair.target)
    # The longest job first within each seed: no process waits long for the last one.
    longest = sorted(groups.items(), key=lambda group: -sum(len(data[target]) for target in group[1]))
    jobs = []
    for seed in settings.seeds:
        for features in settings.features:
            for normalisation in settings.normalisation:
                for (sources, classes), targets in longest:
                    whole = Job(sources, classes, features, normalisation, seed, ())
                    cells = [
                        cell
                        for target in targets
                        for cell in _cells(settings, data[target], target, classes, lambda note: notes.setdefault(note))
                        if whole.key(cell) not in done
                    ]
                    if cells:
                        jobs.append(Job(sources, classes, features, normalisation, seed, tuple(cells)))
    return Plan(jobs, list(notes))


def _cells(
    settings: BenchSettings, data: SpeechData, target: str, classes: Sequence[str], note: Callable[[str], None]
) -> Iterator[Cell]:
    """The cells of one source and target; each obstacle goes to ``note``."""
    voices = {speaker for speaker in data.speakers if speaker is not None}
    known = len(voices) >= 2 and None not in data.speakers
    for target_set in settings.target_set:
        if reason := obstacle(target_set, classes):
            note(f"{target}, {target_set}: {reason}")
            continue
        for protocol in settings.protocol:
            if protocol != "transductive" and target_set in ALONE:
                continue
            if protocol != "transductive" and not known:
                note(f"{target}, {protocol}: the speakers are not known, or there is only one")
                continue
            for method in settings.methods:
                if target_set == "nonspeech" and method != GUARD:
                    continue
                if method == SUPERVISED:
                    if protocol != "transductive" or target_set in ALONE:
                        continue
                    if not known:
                        note(f"{target}, {method}: the speakers are not known, or there is only one")
                        continue
                yield Cell(target, target_set, protocol, method)
