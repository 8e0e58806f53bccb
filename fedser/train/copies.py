"""Augmented copies of a corpus: the waveforms are changed, then described like any others."""

from __future__ import annotations

from dataclasses import replace

import torch

from fedser import console
from fedser.audio import features, io
from fedser.audio.augment import augment
from fedser.audio.dataset import SpeechData
from fedser.compute import generator

CHUNK = 64  # utterances whose waveforms lie in memory at once


def augmented(data: SpeechData, kind: str, seed: int, device: torch.device) -> SpeechData:
    """A copy of ``data`` whose recordings went through one augmentation; labels and speakers stay.

    Raises:
        AudioError: a recording cannot be read any more.
    """
    rows = []
    with console.progress(f"{data.name}, copies with {kind}", len(data)) as step:
        for first in range(0, len(data), CHUNK):
            waveforms = []
            for place, utterance in enumerate(data.utterances[first : first + CHUNK], start=first):
                waveform = io.read(utterance.path, channel=utterance.channel, start=utterance.start, end=utterance.end)
                draw = generator(seed, "augment", data.name, kind, place)
                waveforms.append(augment(waveform, kind, draw))
                step()
            rows.append(features.extract(waveforms, data.features, device))
    return replace(data, raw=torch.cat(rows), inspection=None)
