from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest
import torch

from fedser import bundle as bundles
from fedser.adapt import make
from fedser.adapt.local import LocalRun, adapt_site
from fedser.adapt.schedule import Schedule
from fedser.adapt.site import UNKNOWN, SiteModel
from fedser.audio import dataset
from fedser.audio.dataset import SpeechData
from fedser.bundle import Bundle
from fedser.errors import BundleError, UsageError

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def bundle(signed: Any) -> Bundle:
    return bundles.read(signed.path, signer=signed.signer)


@pytest.fixture
def data(speech: Path, bundle: Bundle) -> SpeechData:
    return dataset.load(speech, bundle.header.features)


def run(bundle: Bundle, data: SpeechData, method: str = "ecan", **extra: Any) -> LocalRun:
    extra = {"seed": 1, "device": CPU, "schedule": Schedule(epochs=3), "guard": None} | extra
    return adapt_site(bundle, data.raw, data.speakers, [make(method)], **extra)


def test_the_same_seed_gives_the_same_answers_and_another_seed_others(bundle: Bundle, data: SpeechData) -> None:
    first = run(bundle, data).answer.probabilities
    assert torch.equal(first, run(bundle, data).answer.probabilities)
    assert not torch.equal(first, run(bundle, data, seed=2).answer.probabilities)


def test_what_is_saved_answers_as_before(bundle: Bundle, data: SpeechData, tmp_path: Path) -> None:
    for method in ("ecan", "logreg_self"):
        local = run(bundle, data, method)
        path = tmp_path / f"{method}.safetensors"
        local.site.save(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        again = SiteModel.load(path)
        assert torch.equal(again.answer(data.raw, data.speakers).probabilities, local.answer.probabilities)
        assert again.header == local.site.header


def test_absent_classes_are_never_answered(bundle: Bundle, data: SpeechData) -> None:
    answer = run(bundle, data, allowed=("anger", "sadness")).answer
    assert set(answer.emotions) <= {"anger", "sadness"}
    column = list(bundle.header.classes).index("neutral")
    assert bool((answer.probabilities[:, column] == 0).all())
    with pytest.raises(UsageError, match="joy"):
        run(bundle, data, allowed=("joy",))


def test_low_confidence_is_answered_unknown(bundle: Bundle, data: SpeechData) -> None:
    plain = run(bundle, data).answer
    middle = sorted(plain.confidences)[len(data) // 2]
    answer = run(bundle, data, unknown_below=middle).answer
    for emotion, before, confidence in zip(answer.emotions, plain.emotions, plain.confidences, strict=True):
        assert emotion == (UNKNOWN if confidence < middle else before)


def test_a_speaker_that_was_never_seen_gets_the_sites_statistics(bundle: Bundle, data: SpeechData) -> None:
    site = run(bundle, data).site
    answer = site.answer(data.raw[:1], [None])
    assert answer.statistics == (f"site ({len(data)} utterances)",)
    x = site.normaliser.transform(data.raw[:1], [None])
    expected = (site.model(x) / site.header.temperature).softmax(1)
    assert torch.allclose(answer.probabilities, expected, atol=1e-6)


def test_updates_are_causal_and_only_made_when_asked(bundle: Bundle, data: SpeechData) -> None:
    site = run(bundle, data).site
    before = site.normaliser.header()["speakers"]
    site.answer(data.raw, ["new"] * len(data))
    assert site.normaliser.header()["speakers"] == before
    first = site.answer(data.raw[:5], ["new"] * 5, update=True)
    assert "new (5 utterances)" in first.statistics[-1]
    fresh = run(bundle, data).site
    more = fresh.answer(data.raw[:9], ["new"] * 9, update=True)
    assert torch.allclose(more.probabilities[:5], first.probabilities, atol=1e-6)


def test_what_is_no_model_is_refused(tmp_path: Path, signed: Any) -> None:
    for content in (b"", b"junk" * 100, signed.path.read_bytes()):
        path = tmp_path / "model.safetensors"
        path.write_bytes(content)
        with pytest.raises(BundleError):
            SiteModel.load(path)
    with pytest.raises(BundleError, match="cannot be read"):
        SiteModel.load(tmp_path / "missing.safetensors")


def test_a_damaged_model_raises_nothing_but_a_bundle_error(bundle: Bundle, data: SpeechData, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    run(bundle, data, "source").site.save(path)
    whole = path.read_bytes()
    for cut in range(0, len(whole), max(1, len(whole) // 40)):
        path.write_bytes(whole[:cut])
        with pytest.raises(BundleError):
            SiteModel.load(path)


def test_the_source_bundle_answers_with_the_sources_statistics(bundle: Bundle, data: SpeechData) -> None:
    answer = SiteModel.of_bundle(bundle).answer(data.raw[:2], [None, "tiny-stranger"])
    assert answer.statistics == ("source (48 utterances)",) * 2
