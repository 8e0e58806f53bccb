"""RTTM files: turns, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedser.audio import rttm
from fedser.errors import ManifestError

GOOD = "SPEAKER call1 2 3.20 2.15 <NA> <NA> alice <NA> <NA>"


def test_a_turn(tmp_path: Path) -> None:
    (tmp_path / "a.rttm").write_text(
        ";; comment\n\nSPKR-INFO call1 1 <NA> <NA> <NA> unknown alice <NA>\n" + GOOD + "\n"
    )
    (turn,) = rttm.read(tmp_path / "a.rttm")["call1"]
    assert (turn.start, round(turn.end, 6), turn.speaker, turn.channel) == (3.2, 5.35, "alice", 1)


def test_a_folder_and_the_order_of_time(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "a.rttm").write_text(GOOD + "\n" + GOOD.replace("3.20", "1.20") + "\n")
    (tmp_path / "deep" / "b.RTTM").write_text(GOOD.replace("call1", "call2") + "\n")
    found = rttm.read(tmp_path)
    assert sorted(found) == ["call1", "call2"]
    assert [turn.start for turn in found["call1"]] == [1.2, 3.2]


def test_numbered_speakers_of_several_recordings_are_told_apart_and_names_are_not(tmp_path: Path) -> None:
    lines = [
        GOOD.replace("call1", call).replace("alice", name) for call in ("c1", "c2") for name in ("SPEAKER_00", "eve")
    ]
    (tmp_path / "a.rttm").write_text("\n".join(lines))
    found = rttm.read(tmp_path / "a.rttm")
    assert {turn.speaker for turn in found["c1"]} == {"c1/SPEAKER_00", "eve"}
    assert {turn.speaker for turn in found["c2"]} == {"c2/SPEAKER_00", "eve"}


def test_a_numbered_speaker_of_one_recording_keeps_its_name(tmp_path: Path) -> None:
    (tmp_path / "a.rttm").write_text(GOOD.replace("alice", "A"))
    assert rttm.read(tmp_path / "a.rttm")["call1"][0].speaker == "A"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("SPEAKER call1 1 3.2", "line 2: not a speaker turn"),
        ("TURN call1 1 3.2 2.1 <NA> <NA> alice <NA> <NA>", "line 2: not a speaker turn"),
        (GOOD.replace("3.20", "-1"), "the start '-1' is no number"),
        (GOOD.replace("3.20", "nan"), "the start 'nan' is no number"),
        (GOOD.replace("2.15", "x"), "the duration 'x' is no number"),
        (GOOD.replace("2.15", "0"), "lasts 0 s"),
        (GOOD.replace(" 2 ", " 0 "), "'0' is no channel"),
        (GOOD.replace(" 2 ", " ² "), "'²' is no channel"),
        (GOOD.replace("alice", "<NA>"), "names no speaker"),
    ],
)
def test_refused_lines(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "a.rttm").write_text(GOOD + "\n" + line + "\n", encoding="utf-8")
    with pytest.raises(ManifestError, match=message):
        rttm.read(tmp_path / "a.rttm")


def test_missing_and_empty_places(tmp_path: Path) -> None:
    (tmp_path / "bytes.rttm").write_bytes(b"\xff\xfe")
    for place, message in ((tmp_path / "no", "does not exist"), (tmp_path / "bytes.rttm", "UTF-8")):
        with pytest.raises(ManifestError, match=message):
            rttm.read(place)
    (tmp_path / "bytes.rttm").write_text(";; nothing\n")
    with pytest.raises(ManifestError, match="no speaker turns"):
        rttm.read(tmp_path)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(st.one_of(st.text(max_size=6), st.sampled_from(GOOD.split())), max_size=11), max_size=4))
def test_only_manifest_errors_come_out(tmp_path_factory: pytest.TempPathFactory, lines: list[list[str]]) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.rttm"
    path.write_bytes("\n".join(" ".join(fields) for fields in lines).encode("utf-8", "surrogatepass"))
    try:
        found = rttm.read(path)
    except ManifestError:
        return
    assert all(turn.end > turn.start >= 0 for turns in found.values() for turn in turns)
