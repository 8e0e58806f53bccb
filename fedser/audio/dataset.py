"""Recordings as data: utterances with their features, in one object."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fedser import console
from fedser.audio import cache as caching
from fedser.audio import features as extraction
from fedser.audio import io, quality, recordings
from fedser.audio.features import FeatureSettings
from fedser.audio.utterance import Utterance
from fedser.errors import NoAudioError, UsageError

CHUNK_SECONDS = 600.0  # of audio that lie in memory at a time (about 40 MB)
CHUNK = 256  # utterances at a time: the progress bar moves


@dataclass(frozen=True)
class SpeechData:
    """Utterances and their features.

    Attributes:
        name: of the corpus or site.
        utterances: N of them.
        raw: features before normalisation, float32 [N, *shape].
        features: how they were computed.
        inspection: what the look at the recordings found, where these are all of its kept utterances.
        reader: which rule found the utterances.
        extracted: how many rows were computed by this load; the others came from the cache.
    """

    name: str
    utterances: tuple[Utterance, ...]
    raw: Tensor
    features: FeatureSettings
    inspection: quality.Inspection | None = None
    reader: str = ""
    extracted: int = 0

    def __len__(self) -> int:
        """Number of utterances."""
        return len(self.utterances)

    @property
    def speakers(self) -> tuple[str | None, ...]:
        """Each utterance's speaker, None where unknown."""
        return tuple(utterance.speaker for utterance in self.utterances)

    @property
    def emotions(self) -> tuple[str | None, ...]:
        """Each utterance's emotion, None where unlabelled."""
        return tuple(utterance.emotion for utterance in self.utterances)

    def labels(self, classes: Sequence[str]) -> Tensor:
        """Class numbers, int64 [N]; -1 for utterances without a label or with one outside ``classes``."""
        number = {name: index for index, name in enumerate(classes)}
        return torch.tensor([-1 if e is None else number.get(e, -1) for e in self.emotions], dtype=torch.int64)

    def subset(self, index: Sequence[int] | Tensor) -> SpeechData:
        """Some of the utterances, by their numbers or by a bool mask [N]."""
        rows = torch.as_tensor(index)
        rows = rows.nonzero()[:, 0] if rows.dtype == torch.bool else rows.long()
        chosen = tuple(self.utterances[row] for row in rows.tolist())
        return replace(self, utterances=chosen, raw=self.raw[rows], inspection=None)


def load(
    directory: Path,
    features: FeatureSettings,
    *,
    name: str | None = None,
    corpus: str | None = None,
    speaker_from: str | None = None,
    need_labels: bool = False,
    device: torch.device = torch.device("cpu"),
    cache: Path | None = None,
    without: Callable[[Utterance], bool] | None = None,
    duplicates: quality.Duplicates = "site",
) -> SpeechData:
    """Read a folder or manifest: find utterances, set unusable ones aside, compute or recall their features.

    Args:
        directory: a folder or a manifest.
        features: what to compute.
        name: of the result; the folder's without one.
        corpus: the corpus reader to use; found by the folder's content without one.
        speaker_from: rule that tells the speaker from the path.
        need_labels: refuse recordings without emotions.
        device: where features are computed; the result lies on the CPU.
        cache: folder of the cache; the user's without one.
        without: tells the utterances that are left alone, unread, as if they were not there.
        duplicates: see :func:`fedser.audio.quality.inspect`.

    Raises:
        NoAudioError: no usable recording.
        DataError: the recordings, their manifest or labels do not fit.
        DependencyError: an optional package is missing.
    """
    found = recordings.resolve(directory, corpus=corpus, speaker_from=speaker_from, need_labels=need_labels)
    wanted = tuple(each for each in found.utterances if without is None or not without(each))
    if not wanted:
        raise NoAudioError(f"No recording in {directory} is left.", "Everybody there has withdrawn; add recordings.")
    inspection = quality.inspect(wanted, found.aside, duplicates)
    if not inspection.kept:
        raise NoAudioError(
            f"No recording in {directory} can be used: {_reasons(inspection)}.",
            f"'fedser corpus scan {directory}' lists the reasons.",
        )
    name = name or found.root.name or directory.name
    raw, extracted = _features(inspection, features, device, cache, f"features of {name}")
    return SpeechData(name, inspection.kept, raw, features, inspection, found.reader, extracted)


def _reasons(inspection: quality.Inspection) -> str:
    """Why everything was set aside: counts by reason, or the one file's own reason."""
    counts = Counter(finding.reason for finding in inspection.quarantined)
    if len(inspection.quarantined) == 1:
        only = inspection.quarantined[0]
        return f"it is set aside as {only.reason}" + (f" ({only.detail})" if only.detail else "")
    return ", ".join(f"{count} {reason}" for reason, count in counts.most_common())


def join(parts: Sequence[SpeechData]) -> SpeechData:
    """Put data together; speakers become ``name/speaker``, so equal ids of two corpora stay two speakers.

    Raises:
        UsageError: nothing to join, or features of different settings.
    """
    if not parts:
        raise UsageError("There is nothing to join.", "Name at least one corpus.")
    if any(part.features != parts[0].features for part in parts):
        raise UsageError("These recordings have features of different settings.", "Use one setting for all of them.")
    return SpeechData(
        name="+".join(part.name for part in parts),
        utterances=tuple(_prefixed(u, part.name) for part in parts for u in part.utterances),
        raw=torch.cat([part.raw for part in parts]),
        features=parts[0].features,
        reader="+".join(dict.fromkeys(part.reader for part in parts)),
        extracted=sum(part.extracted for part in parts),
    )


def _prefixed(utterance: Utterance, name: str) -> Utterance:
    if utterance.speaker is None:
        return utterance
    return replace(utterance, speaker=f"{name}/{utterance.speaker}")


def _features(
    inspection: quality.Inspection,
    settings: FeatureSettings,
    device: torch.device,
    place: Path | None,
    title: str,
) -> tuple[Tensor, int]:
    """Features [N, *shape] of the kept utterances, and how many had to be computed."""
    shape = extraction.shape(settings)
    store = caching.FeatureCache(extraction.version(settings), shape, place)
    keys = [caching.key(d, u) for d, u in zip(inspection.digests, inspection.kept, strict=True)]
    raw = torch.empty(len(keys), *shape)
    missing = []
    for row, key in enumerate(keys):
        entry = store.get(key)
        if entry is None:
            missing.append(row)
        else:
            raw[row] = torch.from_numpy(entry.copy())
    with console.progress(title, len(missing)) as step:
        for chunk in _chunks(missing, inspection.seconds):
            waveforms = [_read(inspection.kept[row]) for row in chunk]
            computed = extraction.extract(waveforms, settings, device)
            raw[chunk] = computed
            for row, entry in zip(chunk, computed.numpy(), strict=True):
                store.put(keys[row], entry)
                step()
    return raw, len(missing)


def _read(utterance: Utterance) -> np.ndarray:
    return io.read(utterance.path, channel=utterance.channel, start=utterance.start, end=utterance.end)


def _chunks(rows: Sequence[int], seconds: Sequence[float]) -> Iterator[list[int]]:
    """Rows by length, so that a chunk's utterances batch well, in chunks of bounded size."""
    chunk: list[int] = []
    total = 0.0
    for row in sorted(rows, key=lambda row: seconds[row]):
        if chunk and (total + seconds[row] > CHUNK_SECONDS or len(chunk) == CHUNK):
            yield chunk
            chunk, total = [], 0.0
        chunk.append(row)
        total += seconds[row]
    if chunk:
        yield chunk
