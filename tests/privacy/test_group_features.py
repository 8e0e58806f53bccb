"""Normalised features under a privacy unit inside the site: hand calculations, and what no row may depend on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fedser.audio.normalise import NormalisationSettings, SiteNormaliser
from fedser.audio.utterance import Utterance
from fedser.compute import generator
from fedser.errors import PrivacyError
from fedser.privacy.group_features import PULL, identities, normaliser_for


def published() -> SiteNormaliser:
    raw = torch.tensor([[0.0, 10.0], [2.0, 14.0]])  # mean 1 and 12, standard deviation 1 and 2
    return SiteNormaliser.fit(raw, [None, None], NormalisationSettings(rule="corpus"))


def test_the_utterance_unit_takes_published_statistics_alone() -> None:
    raw = torch.tensor([[3.0, 12.0], [1.0, 8.0]])
    normaliser = normaliser_for("utterance", raw, ["a", "a"], published())
    expected = torch.tensor([[2.0, 0.0], [0.0, -2.0]])
    torch.testing.assert_close(normaliser.transform(raw, ["a", "a"]), expected)
    assert normaliser.speakers == {}


def test_the_speaker_unit_pulls_a_speaker_to_the_published_statistics() -> None:
    raw = torch.tensor([[3.0, 12.0], [5.0, 12.0], [9.0, 9.0]])
    speakers = ["a", "a", None]
    normaliser = normaliser_for("speaker", raw, speakers, published())
    weight = 2 / (2 + PULL)
    mean = 1 + weight * (4 - 1)
    variance = weight * 1 + (1 - weight) * 1 + weight * (1 - weight) * 9
    made = normaliser.transform(raw, speakers)
    assert made[0, 0] == pytest.approx((3 - mean) / variance**0.5, rel=1e-6)
    torch.testing.assert_close(made[2], torch.tensor([5.0, -1.5]))  # unknown: published, cut at 5


def test_the_pull_is_no_choice_of_the_sites_features() -> None:
    raw = torch.randn(60, 2, generator=generator("test"))
    raw[:30] += 8  # two speakers so far apart that `auto` would pull hard
    speakers = ["a"] * 30 + ["b"] * 30
    auto = SiteNormaliser.fit(raw, speakers, NormalisationSettings())
    assert auto.kappa > 10
    assert normaliser_for("speaker", raw, speakers, published()).kappa == PULL


def test_waveforms_need_no_statistics() -> None:
    raw = torch.randn(3, 1, 50, generator=generator("test"))
    source = SiteNormaliser.fit(raw, [None] * 3, NormalisationSettings())
    for unit in ("speaker", "utterance"):
        made = normaliser_for(unit, raw, ["a", "a", None], source).transform(raw, ["a", "a", None])  # type: ignore[arg-type]
        torch.testing.assert_close(made, source.transform(raw, [None] * 3))


def test_without_published_statistics_there_is_no_private_normalisation() -> None:
    bare = SiteNormaliser(NormalisationSettings(rule="corpus"), (2,), "corpus", 0.0, "", None, {})
    with pytest.raises(PrivacyError):
        normaliser_for("speaker", torch.zeros(2, 2), ["a", "b"], bare)


def test_parts_and_channels_of_one_file_are_utterances_of_their_own() -> None:
    told = [
        Utterance(Path("a.wav"), speaker="x", start=0.0, end=1.0),
        Utterance(Path("a.wav"), start=1.0, end=2.0),
        Utterance(Path("a.wav"), speaker="x", channel=1),
    ]
    assert identities(told, "speaker") == ("x", None, "x")
    assert len(set(identities(told, "utterance"))) == 3
