"""Synthetic corpora: real files, the same bytes for a seed, and rooms that do what they say."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from fedser.audio.recordings import resolve
from fedser.demo.corpus import DEMO_EMOTIONS, SITES, SOURCE, CorpusPlan, write_corpus
from fedser.demo.rooms import CLINIC, PHONE, RATE, STUDIO, impulse_response, record
from fedser.errors import OutputError

SMALL = CorpusPlan("small", speakers=2, utterances=10, seconds=(0.6, 0.8))


def test_writes_recordings_that_the_project_reads(tmp_path: Path) -> None:
    calls: list[int] = []
    manifest = write_corpus(tmp_path / "small", SMALL, seed=0, tell=lambda: calls.append(1))
    with manifest.open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert len(rows) == len(calls) == 10
    assert {(row["speaker"], row["emotion"]) for row in rows} == {
        (speaker, emotion) for speaker in ("f000", "m001") for emotion in DEMO_EMOTIONS
    }
    sound, rate = soundfile.read(manifest.parent / rows[0]["path"])
    assert rate == RATE
    assert 0.55 * RATE < len(sound) < 0.85 * RATE
    found = resolve(manifest.parent, need_labels=True)
    assert len(found.utterances) == 10
    assert {u.site for u in found.utterances} == {"small"}


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    def digest(folder: str, seed: int) -> dict[str, bytes]:
        write_corpus(tmp_path / folder, SMALL, seed=seed)
        return {path.name: path.read_bytes() for path in (tmp_path / folder).rglob("*.*")}

    first = digest("a", 0)
    assert first == digest("b", 0)
    assert first != digest("c", 1)


def test_corpora_of_the_demo_share_no_speaker_and_hold_what_they_say() -> None:
    ranges = [set(range(plan.first, plan.first + plan.speakers)) for plan in (SOURCE, *SITES)]
    assert sum(len(numbers) for numbers in ranges) == len(set().union(*ranges))
    assert SOURCE.speakers >= 8  # enough for speaker-independent validation
    assert len(SITES) == 3


def test_an_unwritable_place_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        write_corpus(tmp_path / "file" / "corpus", SMALL, seed=0)


def test_a_room_rings_as_long_as_it_says() -> None:
    response = impulse_response(CLINIC, np.random.default_rng(0))
    energy = np.cumsum(response[1:][::-1] ** 2)[::-1]
    level = 10 * np.log10(energy / energy[0])
    early, late = np.argmax(level < -5), np.argmax(level < -25)
    assert 3 * (late - early) / RATE == pytest.approx(CLINIC.reverberation, rel=0.15)
    assert 10 * np.log10(energy[0] / response[0] ** 2) == pytest.approx(CLINIC.distance, abs=0.01)
    dry = impulse_response(replace(STUDIO, reverberation=0.0), np.random.default_rng(0))
    np.testing.assert_array_equal(dry, [1.0])


def test_the_telephone_band_and_the_noise_level() -> None:
    speech = np.random.default_rng(1).standard_normal(4 * RATE).astype(np.float32)
    direct = np.ones(1)
    heard = record(speech, replace(PHONE, noise=80.0), direct, np.random.default_rng(2))
    power = np.abs(np.fft.rfft(heard)) ** 2
    hertz = np.fft.rfftfreq(len(heard), 1 / RATE)
    assert power[hertz > 5000].mean() < 1e-2 * power[(hertz > 500) & (hertz < 3000)].mean()
    assert np.abs(heard).max() <= 1.0
    clean = record(speech, replace(STUDIO, noise=200.0, gain=1.0), direct, np.random.default_rng(3))
    noisy = record(speech, replace(STUDIO, noise=20.0, gain=1.0), direct, np.random.default_rng(3))
    scale = float(clean @ noisy / (clean @ clean))
    ratio = 10 * np.log10(np.mean((scale * clean) ** 2) / np.mean((noisy - scale * clean) ** 2))
    assert ratio == pytest.approx(20.0, abs=6.5)  # the level varies by 2 dB from recording to recording
