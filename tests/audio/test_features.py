"""Contract of the features: shapes, company, silence, gain; log-mel, waveform and egemaps."""

from __future__ import annotations

import importlib.util
import sys

import numpy as np
import pytest
import torch

from fedser.audio import features
from fedser.audio.features import FeatureSettings, extract, names, shape, version
from fedser.audio.features import egemaps as egemaps_module
from fedser.errors import AudioError, DependencyError

KINDS = ("functionals", "logmel", "waveform")
RATE = 16_000


def _speechlike(seconds: float, seed: int) -> np.ndarray:
    """Syllables of a gliding harmonic tone with noise between them."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(RATE * seconds)) / RATE
    f0 = 110 + 60 * rng.random() + 30 * np.sin(2 * np.pi * 0.7 * time + rng.random())
    phase = 2 * np.pi * np.cumsum(f0) / RATE
    voice = sum(np.sin(k * phase) / k for k in range(1, 20))
    syllables = np.clip(np.sin(2 * np.pi * 3 * time + rng.random()), 0, None)
    noise = rng.standard_normal(len(time))
    return (0.2 * voice * syllables + 0.01 * noise).astype(np.float32)


def _odd_signals() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(7)
    loud = 3.0 * _speechlike(1.0, 3)
    return {
        "silence": np.zeros(RATE, np.float32),
        "one sample": np.ones(1, np.float32),
        "constant": np.full(RATE, 0.25, np.float32),
        "DC and voice": _speechlike(1.0, 1) + np.float32(5.0),
        "noise": rng.standard_normal(RATE).astype(np.float32),
        "0.3 s": _speechlike(0.3, 2),
        "60 s": _speechlike(60.0, 4),
        "clipped": np.clip(loud, -0.2, 0.2),
        "tiny": _speechlike(0.7, 5) * np.float32(1e-6),
        "click": np.eye(1, RATE, RATE // 2, dtype=np.float32)[0],
        "square": np.sign(np.sin(2 * np.pi * 150 * np.arange(RATE) / RATE)).astype(np.float32),
    }


@pytest.mark.parametrize("kind", KINDS)
def test_odd_signals_give_finite_features(kind):
    settings = FeatureSettings(kind=kind, seconds=1.0)
    signals = _odd_signals()
    found = extract(list(signals.values()), settings)
    assert found.shape == (len(signals), *shape(settings))
    assert found.dtype == torch.float32
    for name, row in zip(signals, found, strict=True):
        assert bool(torch.isfinite(row).all()), name


@pytest.mark.parametrize("kind", KINDS)
def test_company_does_not_matter(kind):
    settings = FeatureSettings(kind=kind, seconds=1.0)
    odd = [signal for name, signal in _odd_signals().items() if name != "60 s"]
    waveforms = [_speechlike(0.3 + 0.37 * n, n) for n in range(6)] + odd
    together = extract(waveforms, settings)
    for waveform, row in zip(waveforms, together, strict=True):
        torch.testing.assert_close(extract([waveform], settings)[0], row, rtol=1e-4, atol=1e-4)
    assert torch.equal(extract(waveforms, settings), together)


@pytest.mark.parametrize("kind", KINDS)
def test_gain_and_offset_do_not_matter(kind):
    waveform = _speechlike(1.0, 11)
    settings = FeatureSettings(kind=kind, seconds=1.0)
    one, other = extract([waveform, waveform * np.float32(0.03) + np.float32(0.2)], settings)
    torch.testing.assert_close(one, other, rtol=2e-2, atol=2e-2)


def test_extract_leaves_the_waveforms_alone():
    waveform = _speechlike(0.5, 1) + np.float32(0.5)
    before = waveform.copy()
    extract([waveform], FeatureSettings())
    np.testing.assert_array_equal(waveform, before)


def test_nothing_in_nothing_out():
    assert extract([], FeatureSettings()).shape == (0, *shape(FeatureSettings()))


@pytest.mark.parametrize("bad", [np.zeros(0, np.float32), np.array([0.1, np.nan], np.float32)])
def test_no_samples_or_no_numbers_is_an_error(bad):
    with pytest.raises(AudioError):
        extract([bad], FeatureSettings())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device")
@pytest.mark.parametrize("kind", KINDS)
def test_gpu_gives_the_same(kind):
    settings = FeatureSettings(kind=kind, seconds=1.0)
    waveforms = [_speechlike(0.5 + 0.3 * n, n) for n in range(4)]
    on_gpu = extract(waveforms, settings, torch.device("cuda"))
    assert on_gpu.device.type == "cpu"
    torch.testing.assert_close(on_gpu, extract(waveforms, settings), rtol=1e-2, atol=1e-2)


def test_names_and_versions():
    found = names(FeatureSettings())
    assert len(found) == len(set(found)) == shape(FeatureSettings())[0]
    assert names(FeatureSettings(kind="logmel")) == []
    kinds = [FeatureSettings(kind=kind) for kind in KINDS] + [FeatureSettings(kind="logmel", mels=40)]
    assert len({version(settings) for settings in kinds}) == 4
    # Settings that the kind does not use do not move its version.
    assert version(FeatureSettings(seconds=9.0)) == version(FeatureSettings())


def test_a_changed_algorithm_changes_the_version(monkeypatch):
    before = version(FeatureSettings())
    monkeypatch.setattr(features, "ALGORITHM", features.ALGORITHM + 1)
    assert version(FeatureSettings()) != before


def test_logmel_of_a_tone_against_a_slow_spectrum():
    time = np.arange(RATE) / RATE
    waveform = np.sin(2 * np.pi * 1000 * time).astype(np.float32)
    found = extract([waveform], FeatureSettings(kind="logmel", mels=40, seconds=1.0))[0].numpy()
    frame = 50
    window = np.hanning(400) * 2 / np.hanning(400).sum()
    start = frame * 160 + 80 - 200
    power = np.abs(np.fft.rfft(waveform[start : start + 400] * window, 512)) ** 2
    mel = 2595 * np.log10(1 + np.arange(257) * RATE / 512 / 700)
    edges = np.linspace(2595 * np.log10(1 + 20 / 700), 2595 * np.log10(1 + 8000 / 700), 42)
    for band in range(40):
        low, centre, high = edges[band : band + 3]
        triangle = [max(0.0, min((m - low) / (centre - low), (high - m) / (high - centre))) for m in mel]
        expected = np.log(max(float(np.dot(triangle, power)), 1e-8))
        assert found[band, frame] == pytest.approx(expected, abs=1e-2)


def test_logmel_is_cut_and_padded_around_the_centre():
    settings = FeatureSettings(kind="logmel", mels=20, seconds=1.0)
    long, whole = extract([_speechlike(2.0, 1)], settings), FeatureSettings(kind="logmel", mels=20, seconds=2.0)
    torch.testing.assert_close(long[0], extract([_speechlike(2.0, 1)], whole)[0][:, 50:150])
    short = extract([_speechlike(0.5, 1)], settings)[0]
    floor = float(np.log(1e-8))
    assert torch.all(short[:, :25] == np.float32(floor))
    assert torch.all(short[:, 75:] == np.float32(floor))
    assert bool((short[:, 25:75] > floor).any())


def test_waveform_is_standardised_then_cut_or_repeated():
    settings = FeatureSettings(kind="waveform", seconds=1.0)
    waveform = _speechlike(1.5, 1)
    standard = (waveform - waveform.mean()) / waveform.std()
    found = extract([waveform], settings)[0, 0].numpy()
    np.testing.assert_allclose(found, standard[4000:20_000], atol=1e-3)
    short = extract([waveform[:8000]], settings)[0, 0]
    assert torch.equal(short[:8000], short[8000:])
    assert float(short.mean()) == pytest.approx(0.0, abs=1e-4)
    assert float(short.std()) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.skipif(importlib.util.find_spec("opensmile") is None, reason="the extra 'opensmile' is not installed")
def test_egemaps_equals_opensmile_on_the_peak_normalised_signal():
    import opensmile

    settings = FeatureSettings(kind="egemaps")
    waveform = 0.1 * _speechlike(1.0, 1)
    waveform -= waveform.mean()
    smile = opensmile.Smile(opensmile.FeatureSet.eGeMAPSv02, opensmile.FeatureLevel.Functionals)
    expected = smile.process_signal(waveform / np.abs(waveform).max(), RATE).to_numpy()[0]
    found = extract([waveform, waveform[:8000]], settings)
    np.testing.assert_allclose(found[0].numpy(), expected, rtol=1e-3, atol=1e-3)
    assert len(names(settings)) == shape(settings)[0] == 88
    assert egemaps_module._smile() is egemaps_module._smile()


def test_egemaps_without_the_package_says_what_to_install(monkeypatch):
    egemaps_module._smile.cache_clear()
    monkeypatch.setitem(sys.modules, "opensmile", None)
    with pytest.raises(DependencyError) as caught:
        extract([_speechlike(0.5, 1)], FeatureSettings(kind="egemaps"))
    assert "pip install 'fedser[opensmile]'" in caught.value.hint
    egemaps_module._smile.cache_clear()
