"""A target corpus as it would have arrived over telephone lines; the features are cached like any others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from fedser import console
from fedser.audio import cache as caching
from fedser.audio import features as extraction
from fedser.audio import io
from fedser.audio.augment import augment
from fedser.audio.dataset import SpeechData
from fedser.audio.utterance import Utterance
from fedser.compute import generator

LINES = ("mulaw", "gsm")  # 300 to 3400 Hz, sampled at 8 kHz, then one of two codecs
VERSION = 1  # raised with every change of a line: it is part of the cache's folder
CHUNK = 64  # utterances whose waveforms lie in memory at once


def over_telephone(data: SpeechData, device: torch.device) -> SpeechData:
    """The corpus with features of degraded recordings: each speaker calls over one line with one codec.

    The codec follows from the speaker's name alone, so every seed and method meets the same recordings.

    Args:
        data: a whole corpus, as loaded: its inspection names the recordings' digests.
        device: where features are computed; the result lies on the CPU.

    Raises:
        AudioError: a recording cannot be read any more.
    """
    if data.inspection is None:
        raise ValueError("a part of a corpus: the recordings' digests are not known")
    version = f"{extraction.version(data.features)}-telephone{VERSION}"
    shape = extraction.shape(data.features)
    store = caching.FeatureCache(version, shape)
    lines = [line(utterance) for utterance in data.utterances]
    digests = zip(data.inspection.digests, data.utterances, lines, strict=True)
    keys = [caching.key(f"{digest}/{codec}", utterance) for digest, utterance, codec in digests]
    raw, missing = torch.empty(len(data), *shape), list[int]()
    for row, key in enumerate(keys):
        entry = store.get(key)
        if entry is None:
            missing.append(row)
        else:
            raw[row] = torch.from_numpy(entry.copy())
    with console.progress(f"features of {data.name} over the telephone", len(missing)) as step:
        for first in range(0, len(missing), CHUNK):
            chunk = missing[first : first + CHUNK]
            raw[chunk] = extraction.extract(_degraded(data, chunk, lines), data.features, device)
            for row in chunk:
                store.put(keys[row], raw[row].numpy())
                step()
    return replace(data, raw=raw, inspection=None)


def line(utterance: Utterance) -> str:
    """The codec of the speaker's line; of the recording's own where the speaker is unknown."""
    caller = utterance.speaker if utterance.speaker is not None else utterance.path.name
    return LINES[int(torch.randint(len(LINES), (), generator=generator("telephone", caller)))]


def _degraded(data: SpeechData, rows: Sequence[int], lines: Sequence[str]) -> list[np.ndarray]:
    waveforms = []
    for row in rows:
        own = data.utterances[row]
        waveform = io.read(own.path, channel=own.channel, start=own.start, end=own.end)
        waveforms.append(augment(waveform, lines[row], generator("telephone", lines[row])))
    return waveforms
