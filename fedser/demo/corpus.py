"""Writes synthetic corpora as real files: WAV recordings and a manifest, like anybody's data."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from fedser import files
from fedser.demo.rooms import CLINIC, OFFICE, PHONE, STUDIO, Channel, impulse_response, record
from fedser.demo.synth import RATE, synthesise
from fedser.demo.voices import EVERYDAY, STAGE, Population, draw_voice

DEMO_EMOTIONS = ("anger", "fear", "happiness", "neutral", "sadness")

_COLUMNS = ("path", "speaker", "gender", "emotion", "site")


@dataclass(frozen=True)
class CorpusPlan:
    """What a synthetic corpus holds.

    Attributes:
        name: the folder's name, and the ``site`` in its manifest.
        speakers: how many voices.
        utterances: how many recordings; emotions and speakers get nearly equal shares.
        population: whose habits the speakers share.
        channel: where they are recorded.
        emotions: which emotions they show.
        seconds: shortest and longest recording.
        first: number of the first voice, so that corpora of one seed share no speaker.
    """

    name: str
    speakers: int
    utterances: int
    population: Population = STAGE
    channel: Channel = STUDIO
    emotions: Sequence[str] = DEMO_EMOTIONS
    seconds: tuple[float, float] = (1.5, 2.5)
    first: int = 0


SOURCE = CorpusPlan("source", speakers=10, utterances=250)
SITES = (
    CorpusPlan("clinic", speakers=4, utterances=80, population=EVERYDAY, channel=CLINIC, first=100),
    CorpusPlan("phone", speakers=4, utterances=80, population=EVERYDAY, channel=PHONE, first=200),
    CorpusPlan("office", speakers=4, utterances=80, population=EVERYDAY, channel=OFFICE, first=300),
)


def write_corpus(folder: Path, plan: CorpusPlan, seed: int, tell: Callable[[], None] = lambda: None) -> Path:
    """Synthesise a corpus into ``folder``: ``<speaker>/NNNN.wav`` and ``manifest.csv``.

    The manifest holds the true emotions. Of a site they serve for the figures only: adaptation never reads them.

    Args:
        folder: where to; it is made.
        plan: what to make.
        seed: the same seed gives the same bytes.
        tell: called after each recording.

    Returns:
        The manifest's path.

    Raises:
        OutputError: the folder cannot be written.
        KeyError: the plan names an unknown emotion.
    """
    files.output_folder(folder)
    stream = int.from_bytes(hashlib.sha256(plan.name.encode()).digest()[:4], "big")
    room = impulse_response(plan.channel, np.random.default_rng([seed, stream]))
    voices = [draw_voice(seed, plan.first + number, plan.population) for number in range(plan.speakers)]
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(_COLUMNS)
    for number in range(plan.utterances):
        rng = np.random.default_rng([seed, stream, number])
        voice = voices[number % plan.speakers]
        emotion = plan.emotions[(number // plan.speakers) % len(plan.emotions)]
        speech = synthesise(emotion, voice, rng, round(float(rng.uniform(*plan.seconds)), 2))
        name = f"{voice.name}/{number:04d}.wav"
        sound = record(speech, plan.channel, room, rng)
        files.write_bytes(folder / name, _wav(sound))
        rows.writerow((name, voice.name, voice.gender, emotion, plan.name))
        tell()
    files.write_text(folder / "manifest.csv", table.getvalue())
    return folder / "manifest.csv"


def _wav(sound: np.ndarray) -> bytes:
    """A 16-bit WAV file's bytes."""
    buffer = io.BytesIO()
    soundfile.write(buffer, sound, RATE, format="WAV", subtype="PCM_16")
    return buffer.getvalue()
