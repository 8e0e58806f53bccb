"""The quarantine, with made-up files for each reason."""

from __future__ import annotations

import csv
import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from fedser.audio import quality, recordings
from fedser.audio.header import riff_problem
from fedser.audio.quality import Finding, Inspection
from fedser.audio.utterance import Utterance

RATE = 16000


def noise(seconds: float = 1.0, seed: int = 0, level: float = 0.1, channels: int = 1) -> np.ndarray:
    return level * np.random.default_rng(seed).standard_normal((round(seconds * RATE), channels)).clip(-3, 3)


def inspect(root: Path) -> Inspection:
    return quality.inspect(recordings.resolve(root).utterances)


def reasons(inspection: Inspection) -> dict[str, str]:
    return {finding.utterance.path.name: finding.reason for finding in inspection.quarantined}


def flags(inspection: Inspection) -> dict[str, str]:
    return {finding.utterance.path.name: finding.reason for finding in inspection.flagged}


def test_a_good_file_is_kept_with_its_digest_and_duration(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", noise(1.25), RATE)
    result = inspect(tmp_path)
    assert [utterance.path.name for utterance in result.kept] == ["a.wav"]
    assert result.digests == (hashlib.sha256((tmp_path / "a.wav").read_bytes()).hexdigest(),)
    assert result.seconds == (1.25,)
    assert (result.quarantined, result.flagged, result.rates, result.channels) == ((), (), {RATE: 1}, {1: 1})


def test_every_reason(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "good.wav", noise(), RATE)
    (tmp_path / "zero_bytes.wav").write_bytes(b"")
    soundfile.write(tmp_path / "no_samples.wav", np.zeros(0), RATE)
    (tmp_path / "text.wav").write_text("this is no recording")
    soundfile.write(tmp_path / "silent.wav", np.zeros(RATE), RATE)
    soundfile.write(tmp_path / "offset.wav", np.full(RATE, 0.25), RATE)
    soundfile.write(tmp_path / "dither.flac", noise(level=1.0, seed=1) / 32768 / 2, RATE)
    soundfile.write(tmp_path / "short.wav", noise(0.29, seed=2), RATE)
    broken = noise(seed=3)
    broken[5] = np.inf
    soundfile.write(tmp_path / "infinite.wav", broken, RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "slow.wav", noise(seed=4), 2000)
    result = inspect(tmp_path)
    assert reasons(result) == {
        "zero_bytes.wav": "empty",
        "no_samples.wav": "empty",
        "text.wav": "corrupt",
        "silent.wav": "silent",
        "offset.wav": "silent",
        "dither.flac": "silent",
        "short.wav": "too_short",
        "infinite.wav": "corrupt",
        "slow.wav": "wrong_header",
    }
    assert [utterance.path.name for utterance in result.kept] == ["good.wav"]


def test_0_3_seconds_are_enough(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", noise(0.3), RATE)
    assert len(inspect(tmp_path).kept) == 1


def test_quiet_speech_is_not_silence(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", noise(level=0.001), RATE)  # −60 dB
    assert len(inspect(tmp_path).kept) == 1


def test_duplicates_by_content_in_any_format_and_the_first_stays(tmp_path: Path) -> None:
    wave = (32767 * noise()).astype(np.int16)
    soundfile.write(tmp_path / "b.wav", wave, RATE, subtype="PCM_16")
    for name, form in (("c.wav", "AIFF"), ("d.flac", "FLAC")):  # an AIFF inside .wav
        soundfile.write(tmp_path / name, wave, RATE, format=form, subtype="PCM_16")
    (tmp_path / "a copy.wav").write_bytes((tmp_path / "b.wav").read_bytes())
    soundfile.write(tmp_path / "e.wav", wave, 8000, subtype="PCM_16")  # other rate: another recording
    soundfile.write(tmp_path / "f.wav", -wave, RATE, subtype="PCM_16")
    result = inspect(tmp_path)
    assert reasons(result) == {"b.wav": "duplicate", "c.wav": "duplicate", "d.flac": "duplicate"}
    assert "a copy.wav" in result.quarantined[0].detail
    assert [utterance.path.name for utterance in result.kept] == ["a copy.wav", "e.wav", "f.wav"]


def test_parts_and_channels_of_one_file_are_no_duplicates(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, noise(4.0, channels=2), RATE)
    rows = [Utterance(path, start=0.0, end=2.0), Utterance(path, start=2.0), Utterance(path, channel=0),
            Utterance(path, channel=1), Utterance(path), Utterance(path, start=2.0, end=4.0)]  # fmt: skip
    result = quality.inspect(rows)
    assert result.kept == tuple(rows[:5])
    assert result.seconds == (2.0, 2.0, 4.0, 4.0, 4.0)
    assert [finding.reason for finding in result.quarantined] == ["duplicate"]
    assert len(set(result.digests)) == 1


def test_parts_are_judged_by_themselves(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    wave = noise(3.0, channels=2)
    wave[RATE : 2 * RATE] = 0
    wave[:, 1] = 0
    soundfile.write(path, wave, RATE)
    rows = [
        Utterance(path, start=0.0, end=1.0),
        Utterance(path, start=1.0, end=2.0),
        Utterance(path, start=0.0, end=0.2),
        Utterance(path, start=2.0, end=9.0),
        Utterance(path, channel=1),
        Utterance(path, channel=2),
    ]
    result = quality.inspect(rows)
    assert [finding.reason for finding in result.quarantined] == [
        "silent",
        "too_short",
        "out_of_range",
        "silent",
        "no_channel",
    ]
    assert result.kept == (rows[0],)


def test_channels_that_cancel_are_silent_in_the_mix_only(tmp_path: Path) -> None:
    left = noise()
    soundfile.write(tmp_path / "a.wav", np.concatenate([left, -left], axis=1), RATE, subtype="FLOAT")
    mixed, single = Utterance(tmp_path / "a.wav"), Utterance(tmp_path / "a.wav", channel=0)
    result = quality.inspect([mixed, single])
    assert result.kept == (single,)


def test_missing_files_are_set_aside(tmp_path: Path) -> None:
    (tmp_path / "folder.wav").mkdir()
    result = quality.inspect([Utterance(tmp_path / "no.wav"), Utterance(tmp_path / "folder.wav")])
    assert [finding.reason for finding in result.quarantined] == ["missing", "missing"]


def test_clipping_is_flagged_and_kept(tmp_path: Path) -> None:
    loud = np.clip(3 * np.sin(2 * np.pi * 200 * np.arange(RATE) / RATE), -1, 1)
    soundfile.write(tmp_path / "clipped.wav", loud, RATE)
    peak = noise()
    peak[100] = 1.0  # one sample at full scale is only normalisation
    soundfile.write(tmp_path / "peak.wav", peak, RATE)
    result = inspect(tmp_path)
    assert len(result.kept) == 2
    assert flags(result) == {"clipped.wav": "clipped"}


def slow_share_of_clipped(wave: np.ndarray) -> float:
    inside = set()
    for first in range(len(wave) - 2):
        three = wave[first : first + 3]
        if (three >= 0.999).all() or (three <= -0.999).all():
            inside.update(range(first, first + 3))
    return len(inside) / len(wave)


def test_the_share_of_clipped_samples_is_that_of_a_slow_count(tmp_path: Path) -> None:
    wave = np.clip(1.6 * np.random.default_rng(7).standard_normal(5000).cumsum() / 20, -1, 1)
    soundfile.write(tmp_path / "a.wav", wave, RATE, subtype="FLOAT")
    share = slow_share_of_clipped(wave.astype(np.float32))
    assert share > 0.01
    assert f"{100 * share:.2f} %" in inspect(tmp_path).flagged[0].detail


def test_a_lone_rate_is_flagged(tmp_path: Path) -> None:
    for index in range(24):
        soundfile.write(tmp_path / f"{index:02}.wav", noise(0.4, seed=index), 24414 if index else 16000)
    result = inspect(tmp_path)
    assert flags(result) == {"00.wav": "odd_rate"}
    assert result.rates == {16000: 1, 24414: 23}


def patched(path: Path, at: int, value: bytes) -> Path:
    data = bytearray(path.read_bytes())
    data[at : at + len(value)] = value
    path.write_bytes(data)
    return path


def test_headers_that_claim_what_is_not_there(tmp_path: Path) -> None:
    for index, name in enumerate(("rate", "long", "less", "fine", "streamed", "tagged", "cut", "few")):
        soundfile.write(tmp_path / f"{name}.wav", noise(seed=index), RATE, subtype="PCM_16")
    patched(tmp_path / "rate.wav", 24, struct.pack("<I", 48000))  # bytes a second still say 16 kHz
    patched(tmp_path / "long.wav", 40, struct.pack("<I", 10 * 32000))
    patched(tmp_path / "less.wav", 40, struct.pack("<I", 16000))
    patched(tmp_path / "streamed.wav", 40, struct.pack("<I", 0xFFFFFFFF))
    with (tmp_path / "tagged.wav").open("ab") as tagged:
        tagged.write(b"LIST" + struct.pack("<I", 2000) + bytes(2000))
    cut = tmp_path / "cut.wav"
    cut.write_bytes(cut.read_bytes()[:20000])
    few = tmp_path / "few.wav"
    few.write_bytes(few.read_bytes()[:-100])  # three milliseconds: a careless writer
    result = inspect(tmp_path)
    assert reasons(result) == dict.fromkeys(("cut.wav", "less.wav", "long.wav", "rate.wav"), "wrong_header")
    assert {utterance.path.name for utterance in result.kept} == {
        "few.wav",
        "fine.wav",
        "streamed.wav",
        "tagged.wav",
    }
    details = {finding.utterance.path.name: finding.detail for finding in result.quarantined}
    assert details["rate.wav"] == "it claims 48000 Hz but 32000 bytes a second, which is 16000 Hz"
    assert details["long.wav"] == "it claims 10.000 s, 1.000 s are there"


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW", "MS_ADPCM"])
def test_headers_of_honest_writers_pass(tmp_path: Path, subtype: str) -> None:
    soundfile.write(tmp_path / "a.wav", noise(channels=2), 44100, subtype=subtype)
    assert riff_problem(tmp_path / "a.wav") is None
    if subtype != "MS_ADPCM":
        soundfile.write(tmp_path / "b.wav", noise(channels=2), 44100, subtype=subtype, format="WAVEX")
        assert riff_problem(tmp_path / "b.wav") is None


@pytest.mark.parametrize("claimed", [0, 88200])  # left empty, and the channels forgotten
def test_bytes_a_second_that_careless_writers_leave_are_forgiven(tmp_path: Path, claimed: int) -> None:
    soundfile.write(tmp_path / "a.wav", noise(channels=2), 44100, subtype="PCM_16")
    assert riff_problem(patched(tmp_path / "a.wav", 28, struct.pack("<I", claimed))) is None


def test_a_cut_flac_is_set_aside(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.flac", noise(3.0), RATE)
    data = (tmp_path / "a.flac").read_bytes()
    (tmp_path / "a.flac").write_bytes(data[: len(data) // 2])
    assert reasons(inspect(tmp_path))["a.flac"] in {"corrupt", "wrong_header"}


@pytest.mark.parametrize("name", ["a.mp3", "a.ogg", "a.aiff", "a.flac"])
def test_lossy_and_other_formats_have_honest_lengths(tmp_path: Path, name: str) -> None:
    soundfile.write(tmp_path / name, noise(2.0), RATE, **({"format": "MP3"} if name == "a.mp3" else {}))
    assert len(inspect(tmp_path).kept) == 1


def test_long_files_are_measured_by_blocks_like_short_ones(tmp_path: Path) -> None:
    wave = noise(40.0)  # three blocks
    soundfile.write(tmp_path / "long.wav", wave, RATE, subtype="FLOAT")
    rows = [Utterance(tmp_path / "long.wav", start=start, end=start + 10) for start in (0.0, 10.0, 12.5, 30.0)]
    rows.append(Utterance(tmp_path / "long.wav", start=16.0, end=16.8))  # across the edge of a block
    result = quality.inspect(rows)
    assert result.kept == tuple(rows)
    assert np.allclose(result.seconds, (10, 10, 10, 10, 0.8))


def test_what_the_resolution_set_aside_stays_on_the_list(tmp_path: Path) -> None:
    song = Finding(Utterance(tmp_path / "song.wav"), "song", "not speech")
    assert quality.inspect([], [song]).quarantined == (song,)


def test_the_quarantine_file(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a,b.wav", np.zeros(RATE), RATE)
    soundfile.write(tmp_path / "c.wav", np.sign(noise()), RATE)
    quality.write_quarantine(tmp_path / "out" / "quarantine.csv", inspect(tmp_path))
    with (tmp_path / "out" / "quarantine.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [(Path(row["path"]).name, row["action"], row["reason"]) for row in rows] == [
        ("a,b.wav", "set aside", "silent"),
        ("c.wav", "kept", "clipped"),
    ]


@pytest.mark.corpora
def test_the_byte_identical_pair_of_ravdess_actor_07(corpora: Path) -> None:
    seventh = [one for one in recordings.resolve(corpora / "ravdess").utterances if one.speaker == "07"]
    result = quality.inspect(seventh)
    assert reasons(result) == {"03-01-03-01-02-02-07.flac": "duplicate"}
    assert len(result.kept) == 59


def test_under_a_privacy_unit_no_recording_decides_whether_another_units_is_kept(tmp_path: Path) -> None:
    wave = noise()
    for name in ("a", "b", "c"):
        soundfile.write(tmp_path / f"{name}.wav", wave, 16_000)
    told = [Utterance(tmp_path / f"{name}.wav", speaker=who) for name, who in zip("abc", "xxy", strict=True)]

    def kept(duplicates: quality.Duplicates, without: int | None = None) -> list[str]:
        given = [each for place, each in enumerate(told) if place != without]
        return [each.path.stem for each in quality.inspect(given, duplicates=duplicates).kept]

    assert kept("site") == ["a"]
    assert kept("speaker") == ["a", "c"]
    assert kept("speaker", without=2) == ["a"]  # x's first one stays, whether y is there or not
    assert kept("keep") == ["a", "b", "c"]
    assert kept("site", without=0) == ["b"]  # the case that a unit forbids: without one, another comes in
