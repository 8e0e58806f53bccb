"""Telephone lines and noises: what the harder target sets are made of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fedser.audio import dataset, io
from fedser.audio import features as extraction
from fedser.audio.augment import augment
from fedser.audio.features import FeatureSettings
from fedser.audio.utterance import Utterance
from fedser.compute import generator
from fedser.evaluate.bench import nonspeech, telephone

CPU = torch.device("cpu")


def test_a_telephone_line_gives_the_features_of_degraded_recordings(speech: Path) -> None:
    data = dataset.load(speech, FeatureSettings())
    over = telephone.over_telephone(data, CPU)
    assert over.utterances == data.utterances
    row = 7
    codec = telephone.line(data.utterances[row])
    waveform = augment(io.read(data.utterances[row].path), codec, generator(0))
    expected = extraction.extract([waveform], data.features)[0]
    assert torch.allclose(over.raw[row], expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(over.raw[row], data.raw[row], rtol=1e-2)


def test_the_second_time_comes_from_the_cache(speech: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = dataset.load(speech, FeatureSettings())
    first = telephone.over_telephone(data, CPU)
    monkeypatch.setattr(telephone, "augment", None)  # would be called for a missing entry
    assert torch.equal(telephone.over_telephone(data, CPU).raw, first.raw)
    assert torch.equal(dataset.load(speech, FeatureSettings()).raw, data.raw)  # clean entries stay their own
    with pytest.raises(ValueError, match="digests"):
        telephone.over_telephone(data.subset([0, 1]), CPU)


def test_a_speaker_calls_over_one_line() -> None:
    lines = {telephone.line(Utterance(Path(f"{k}.wav"), speaker="anna")) for k in range(5)}
    assert len(lines) == 1
    everyone = {telephone.line(Utterance(Path("x.wav"), speaker=f"s{k}")) for k in range(20)}
    assert everyone == set(telephone.LINES)


@pytest.mark.parametrize("kind", nonspeech.KINDS)
def test_noises_are_bounded_and_repeatable(kind: str) -> None:
    one, two = (nonspeech.noise(kind, generator("noise", 3)) for _ in range(2))
    assert np.array_equal(one, two)
    assert one.dtype == np.float32
    assert 16_000 <= len(one) <= 48_000
    assert 0.3 < np.abs(one).max() <= 0.6


def test_a_noise_site_has_neither_labels_nor_speakers() -> None:
    site = nonspeech.noise_site(FeatureSettings(), seed=0)
    assert len(site) == nonspeech.RECORDINGS
    assert set(site.emotions) == set(site.speakers) == {None}
    assert bool(site.raw.isfinite().all())
