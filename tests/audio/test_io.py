"""Reading: formats, rates, channels and parts, against signals that are known in closed form."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from fedser.audio import io
from fedser.errors import AudioError


def sine(rate: int, seconds: float, hertz: float = 440.0) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate)


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 24414, 44100, 48000])
def test_any_rate_becomes_the_same_signal_at_16_khz(tmp_path: Path, rate: int) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, sine(rate, 1.0), rate, subtype="FLOAT")
    wave = io.read(path)
    assert wave.dtype == np.float32
    assert wave.shape == (16000,)
    inside = slice(400, -400)  # the filter's tails
    assert np.abs(wave - sine(16000, 1.0))[inside].max() < 1e-4


@pytest.mark.parametrize("rate", [24414, 44100, 48000])
def test_what_lies_above_8_khz_does_not_fold_back(tmp_path: Path, rate: int) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, sine(rate, 0.5, hertz=9000.0), rate, subtype="FLOAT")
    assert np.abs(io.read(path))[400:-400].max() < 0.5e-3  # 60 dB below


@pytest.mark.parametrize(
    ("name", "options", "tolerance"),
    [
        ("a.wav", {}, 1e-4),
        ("a.flac", {}, 1e-4),
        ("a.aiff", {}, 1e-4),
        ("a.ogg", {}, 0.02),
        ("a.mp3", {"format": "MP3"}, 0.02),
        ("A.WAV", {"format": "WAV"}, 1e-4),
        ("aiff_inside.wav", {"format": "AIFF"}, 1e-4),
        ("flac_inside.wav", {"format": "FLAC"}, 1e-4),
    ],
)
def test_formats_are_told_by_content(tmp_path: Path, name: str, options: dict[str, str], tolerance: float) -> None:
    soundfile.write(tmp_path / name, sine(16000, 1.0), 16000, **options)
    wave = io.read(tmp_path / name)
    assert wave.shape == (16000,)
    assert np.abs(wave - sine(16000, 1.0))[1000:-1000].max() < tolerance


def test_channels_are_averaged_or_picked(tmp_path: Path) -> None:
    path = tmp_path / "stereo.wav"
    left, right = sine(48000, 0.5, 300.0), sine(48000, 0.5, 700.0)
    soundfile.write(path, np.stack([left, right], axis=1), 48000, subtype="FLOAT")
    both, first, second = io.read(path), io.read(path, channel=0), io.read(path, channel=1)
    assert np.allclose(both, (first + second) / 2, atol=1e-6)
    assert np.abs(second - sine(16000, 0.5, 700.0))[400:-400].max() < 1e-4
    with pytest.raises(AudioError, match=r"stereo\.wav has no channel 2: it has 2"):
        io.read(path, channel=2)


def test_channel_0_of_a_mono_file_is_the_file(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "mono.wav", sine(16000, 0.5), 16000)
    assert np.array_equal(io.read(tmp_path / "mono.wav", channel=0), io.read(tmp_path / "mono.wav"))
    with pytest.raises(AudioError, match="no channel 1"):
        io.read(tmp_path / "mono.wav", channel=1)


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3"])
def test_a_part_is_the_slice_of_the_whole(tmp_path: Path, name: str) -> None:
    noise = 0.2 * np.random.default_rng(0).standard_normal(3 * 16000)
    options = {"format": "MP3"} if name.endswith("mp3") else {}
    soundfile.write(tmp_path / name, noise, 16000, **options)
    whole = io.read(tmp_path / name)
    part = io.read(tmp_path / name, start=1.2345, end=2.0)
    assert np.abs(part - whole[round(1.2345 * 16000) : 32000]).max() < 1e-5
    assert np.array_equal(io.read(tmp_path / name, end=2.0), io.read(tmp_path / name, start=0.0, end=2.0))


@pytest.mark.parametrize(("start", "end"), [(1.0, 5.0), (3.0, None), (0.5, 0.5), (1.0, 0.5), (-1.0, None)])
def test_parts_outside_the_recording_are_errors(tmp_path: Path, start: float, end: float | None) -> None:
    soundfile.write(tmp_path / "a.wav", sine(16000, 2.0), 16000)
    with pytest.raises(AudioError, match=r"a\.wav has no part"):
        io.read(tmp_path / "a.wav", start=start, end=end)


def test_a_rounded_end_is_forgiven(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", sine(16000, 2.0), 16000)
    assert io.read(tmp_path / "a.wav", start=1.0, end=2.05).shape == (16000,)


@pytest.mark.parametrize("content", [b"", b"not audio at all", b"RIFF\x00\x00\x00\x00WAVEfmt "])
def test_what_is_no_recording_is_an_error_with_its_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.wav"
    path.write_bytes(content)
    with pytest.raises(AudioError, match=r"broken\.wav"):
        io.read(path)


def test_a_missing_file_and_a_folder_are_errors(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing.wav", tmp_path):
        with pytest.raises(AudioError, match="does not exist or is no file"):
            io.read(path)


def test_samples_that_are_no_numbers_are_an_error(tmp_path: Path) -> None:
    wave = sine(16000, 0.5)
    wave[100] = np.nan
    soundfile.write(tmp_path / "nan.wav", wave, 16000, subtype="FLOAT")
    with pytest.raises(AudioError, match="no finite numbers"):
        io.read(tmp_path / "nan.wav")


def test_a_header_that_claims_hours_costs_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    soundfile.write(path, sine(16000, 0.5), 16000)
    data = bytearray(path.read_bytes())
    data[21:26] = bytes([data[21] | 0x0F, 0xFF, 0xFF, 0xFF, 0xFF])  # total samples of STREAMINFO: 2^36 − 1
    path.write_bytes(data)
    with contextlib.suppress(AudioError):
        assert io.read(path).size <= 16000


@settings(max_examples=100, deadline=None)
@given(junk=st.binary(max_size=200), at=st.integers(0, 60), kind=st.sampled_from(["WAV", "FLAC", "AIFF", "OGG"]))
def test_damaged_headers_raise_only_audio_errors(
    tmp_path_factory: pytest.TempPathFactory, junk: bytes, at: int, kind: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.wav"
    soundfile.write(path, np.zeros(2000), 16000, format=kind)
    data = bytearray(path.read_bytes())
    data[at : at + len(junk)] = junk
    path.write_bytes(data)
    try:
        wave = io.read(path)
    except AudioError:
        return
    assert wave.dtype == np.float32
    assert np.isfinite(wave).all()


def test_an_implausible_rate_is_refused_before_a_filter_for_it_is_built(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", sine(16000, 0.5), 2_000_000_011)
    with pytest.raises(AudioError, match="claims 2000000011 Hz"):
        io.read(tmp_path / "a.wav")


@pytest.mark.parametrize("rate", [11_027, 24_414, 383_987])
def test_awkward_rates_keep_the_length_and_the_clock(tmp_path: Path, rate: int) -> None:
    soundfile.write(tmp_path / "a.wav", sine(rate, 3.0, hertz=5.0), rate, subtype="FLOAT")
    wave = io.read(tmp_path / "a.wav")
    assert wave.shape == (48000,)
    assert np.abs(wave - sine(16000, 3.0, hertz=5.0))[400:-400].max() < 2e-3
