"""Segmentation of made-up recordings whose bursts of noise stand for speech at known times."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from fedser.audio import recordings, rttm, segment, vad
from fedser.audio.segment import Segmentation
from fedser.errors import ManifestError

Bursts = list[tuple[float, float]]


def sound(bursts: Bursts, seconds: float, rate: int = 16000, floor: float = 1e-3, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    wave = floor * random.standard_normal(round(seconds * rate))
    for start, end in bursts:
        inside = slice(round(start * rate), round(end * rate))
        wave[inside] += 0.1 * random.standard_normal(len(wave[inside]))
    return wave


def cut(root: Path, *args, **kwargs) -> Segmentation:
    return segment.segment(recordings.resolve(root), *args, **kwargs)


def spans(outcome: Segmentation) -> Bursts:
    return [(one.start or 0.0, one.end or 0.0) for one in outcome.segments]


def assert_near(found: Bursts, expected: Bursts, tolerance: float = 0.2) -> None:
    assert len(found) == len(expected), found
    assert np.abs(np.array(found) - np.array(expected)).max() < tolerance, found


@pytest.mark.parametrize("rate", [8000, 16000, 24414, 44100])
@pytest.mark.parametrize("floor", [0.0, 1e-3, 2e-2])
def test_bursts_are_found_where_they_are(tmp_path: Path, rate: int, floor: float) -> None:
    bursts = [(1.0, 3.0), (4.0, 5.5), (7.0, 8.2)]
    soundfile.write(tmp_path / "a.wav", sound(bursts, 10.0, rate, floor), rate)
    assert_near(spans(cut(tmp_path)), bursts)


def test_the_noise_floor_follows_the_recording(tmp_path: Path) -> None:
    bursts = [(5.0, 7.0), (20.0, 22.0), (45.0, 47.0), (70.0, 72.0), (85.0, 87.0)]
    seconds = np.arange(90 * 16000) / 16000
    hiss = 1e-4 * 10 ** (2.4 * seconds / 90)  # from −80 to −32 dB: at last louder than a fixed threshold
    growing = hiss * np.random.default_rng(1).standard_normal(len(seconds))
    wave = 2 * sound(bursts, 90.0, floor=0.0) + growing
    soundfile.write(tmp_path / "a.wav", wave, 16000)
    assert_near(spans(cut(tmp_path)), bursts, tolerance=0.25)


@pytest.mark.parametrize("floor", [0.0, 1e-5, 1e-2])
def test_silence_and_steady_hiss_give_no_segment_but_a_reason(tmp_path: Path, floor: float) -> None:
    soundfile.write(tmp_path / "a.wav", sound([], 60.0, floor=floor), 16000)
    outcome = cut(tmp_path)
    assert outcome.segments == []
    assert [finding.reason for finding in outcome.aside] == ["no_speech"]


def test_a_recording_that_is_speech_throughout_is_one_segment(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", sound([(0.0, 8.0)], 8.0), 16000)
    assert_near(spans(cut(tmp_path)), [(0.0, 8.0)], tolerance=0.02)


def test_clicks_are_not_speech(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", sound([(2.0, 2.02), (5.0, 7.0), (9.0, 9.03)], 12.0), 16000)
    assert_near(spans(cut(tmp_path)), [(5.0, 7.0)])


def test_short_neighbours_are_joined_and_lone_short_ones_widened(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", sound([(2.0, 2.5), (3.0, 3.6), (8.0, 8.4)], 12.0), 16000)
    assert_near(spans(cut(tmp_path)), [(2.0, 3.6), (7.7, 8.7)])


def test_long_stretches_are_cut_at_their_deepest_pause(tmp_path: Path) -> None:
    wave = sound([(1.0, 21.0)], 23.0)
    wave[round(8.0 * 16000) : round(8.15 * 16000)] *= 0.5
    wave[round(12.0 * 16000) : round(12.15 * 16000)] *= 0.02
    soundfile.write(tmp_path / "a.wav", wave, 16000)
    assert_near(spans(cut(tmp_path)), [(1.0, 12.07), (12.07, 21.0)])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.floats(0.35, 4.0), st.floats(0.05, 20.0)), min_size=1, max_size=5), st.integers(0, 9))
def test_segments_are_ordered_apart_and_of_the_promised_length(
    tmp_path_factory: pytest.TempPathFactory, plan: Bursts, seed: int
) -> None:
    bursts, at = [], 0.0
    for pause, length in plan:
        bursts.append((at + pause, at + pause + length))
        at += pause + length
    folder = tmp_path_factory.mktemp("random")
    soundfile.write(folder / "a.wav", sound(bursts, at + 1.0, rate=8000, seed=seed), 8000)
    found = spans(cut(folder))
    assert all(0.999 <= end - start <= 15.001 for start, end in found)
    assert all(after[0] >= before[1] - 1e-9 for before, after in pairwise(found))
    assert all(start >= 0 and end <= at + 1.0 for start, end in found)


def test_two_party_calls_are_split_and_leakage_is_not_speech(tmp_path: Path) -> None:
    first, second = [(1.0, 4.0), (10.0, 12.0)], [(5.0, 8.0)]
    left, right = sound(first, 14.0, seed=1), sound(second, 14.0, seed=2)
    call = np.stack([left + 0.05 * right, right + 0.05 * left], axis=1)
    (tmp_path / "monday").mkdir()
    soundfile.write(tmp_path / "monday" / "call1.wav", call, 16000)
    outcome = cut(tmp_path, "split")
    assert_near(spans(outcome), first + second)
    assert [one.channel for one in outcome.segments] == [0, 0, 1]
    assert [one.speaker for one in outcome.segments] == ["monday/call1/ch0"] * 2 + ["monday/call1/ch1"]
    mixed = cut(tmp_path)
    assert_near(spans(mixed), [(1.0, 4.0), (5.0, 8.0), (10.0, 12.0)])
    assert {(one.channel, one.speaker) for one in mixed.segments} == {(None, None)}


def test_labels_and_declared_parts_are_passed_on(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", sound([(1.0, 3.0), (5.0, 7.0)], 9.0), 16000)
    (tmp_path / "manifest.csv").write_text("path,speaker,emotion,start,end\na.wav,anna,sad,4,9\n")
    outcome = cut(tmp_path)
    assert_near(spans(outcome), [(5.0, 7.0)])
    assert (outcome.segments[0].speaker, outcome.segments[0].emotion) == ("anna", "sadness")


def test_a_broken_file_is_set_aside_and_the_run_goes_on(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_text("no sound")
    soundfile.write(tmp_path / "b.wav", sound([(1.0, 3.0)], 4.0), 16000)
    outcome = cut(tmp_path)
    assert len(outcome.segments) == 1
    assert [finding.reason for finding in outcome.aside] == ["corrupt"]


def test_a_rate_that_no_speech_has_is_set_aside(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", sound([], 1.0), 50)
    assert [finding.reason for finding in cut(tmp_path).aside] == ["corrupt"]


def test_levels_do_not_depend_on_the_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    soundfile.write(tmp_path / "a.wav", sound([(0.2, 0.9)], 2.0, rate=24414), 24414, subtype="DOUBLE")
    whole = vad.levels(tmp_path / "a.wav", mix=True)
    monkeypatch.setattr(vad, "_BLOCK", 1000)
    assert whole.shape == (1, 200)
    assert np.allclose(vad.levels(tmp_path / "a.wav", mix=True), whole, atol=1e-4)


def test_levels_are_those_of_a_slow_loop(tmp_path: Path) -> None:
    wave = sound([(0.2, 0.9)], 1.0)
    soundfile.write(tmp_path / "a.wav", wave, 16000, subtype="DOUBLE")
    power = [np.var(wave[160 * frame : 160 * frame + 160]) for frame in range(100)]
    slow = [10 * np.log10(np.mean(power[max(0, at - 2) : at + 3])) for at in range(100)]
    assert np.allclose(vad.levels(tmp_path / "a.wav", mix=True)[0], slow, atol=1e-3)


def turns(tmp_path: Path, text: str) -> dict[str, list[rttm.Turn]]:
    (tmp_path / "turns.rttm").write_text(text)
    return rttm.read(tmp_path / "turns.rttm")


def test_turns_give_speakers_and_bounds(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "call.wav", sound([(0.5, 30.0)], 32.0), 16000)
    known = turns(
        tmp_path,
        "SPEAKER call 1 1.00 2.00 <NA> <NA> anna <NA> <NA>\n"
        "SPEAKER call 1 3.20 0.90 <NA> <NA> anna <NA> <NA>\n"  # 0.2 s later: one turn
        "SPEAKER call 1 5.00 20.00 <NA> <NA> ben <NA> <NA>\n"  # too long: cut
        "SPEAKER call 1 26.00 0.40 <NA> <NA> anna <NA> <NA>\n",  # too short: counted
    )
    outcome = cut(tmp_path, turns=known)
    found = [(one.speaker, one.start, round(one.end or 0.0, 6)) for one in outcome.segments]
    assert found[0] == ("anna", 1.0, 4.1)
    assert {speaker for speaker, _, _ in found[1:]} == {"ben"}
    assert (found[1][1], found[-1][2]) == (5.0, 25.0)
    assert outcome.short == 1


def test_turns_name_their_channel_when_channels_are_split(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "call.wav", np.stack([sound([(0, 4)], 6.0)] * 2, axis=1), 16000)
    known = turns(
        tmp_path,
        "SPEAKER call 1 0.0 2.0 <NA> <NA> anna <NA> <NA>\nSPEAKER call 2 2.0 2.0 <NA> <NA> ben <NA> <NA>\n",
    )
    outcome = cut(tmp_path, "split", known)
    assert [(one.speaker, one.channel) for one in outcome.segments] == [("anna", 0), ("ben", 1)]


def test_recordings_without_turns_fall_back_and_are_counted(tmp_path: Path) -> None:
    for name in ("a", "b"):
        soundfile.write(tmp_path / f"{name}.wav", sound([(1.0, 3.0)], 4.0), 16000)
    outcome = cut(tmp_path, turns=turns(tmp_path, "SPEAKER a 1 1.5 1.0 <NA> <NA> anna <NA> <NA>\n"))
    assert [one.speaker for one in outcome.segments] == ["anna", None]
    assert outcome.without_turns == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("SPEAKER other 1 1.0 2.0 <NA> <NA> anna <NA> <NA>", "name none of the recordings: they name other"),
        ("SPEAKER a 1 9.0 2.0 <NA> <NA> anna <NA> <NA>", r"turns\.rttm, line 1: the turn starts after"),
    ],
)
def test_turns_that_do_not_fit_the_recordings(tmp_path: Path, line: str, message: str) -> None:
    soundfile.write(tmp_path / "a.wav", sound([(1.0, 3.0)], 4.0), 16000)
    with pytest.raises(ManifestError, match=message):
        cut(tmp_path, turns=turns(tmp_path, line + "\n"))
