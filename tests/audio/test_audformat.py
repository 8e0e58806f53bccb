"""audformat databases, written with the package itself."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from fedser.audio import recordings
from fedser.errors import DependencyError, ManifestError, UnknownLabelError

audformat = pytest.importorskip("audformat", reason="the extra audformat is not installed")
# audformat uses parts of pandas that are on their way out
pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning:audformat")]


def database(folder: Path, emotions: list[str], *, segmented: bool = False) -> Path:
    """Two files with emotion and speaker, the speakers' gender in the scheme."""
    known = audformat.Database("toy")
    known.schemes["emotion"] = audformat.Scheme(labels=sorted(set(emotions)))
    known.schemes["speaker"] = audformat.Scheme(labels={"s1": {"gender": "female"}, "s2": {"gender": "male"}})
    files = ["wav/a.wav", "wav/b.wav"]
    index = (
        audformat.segmented_index(files, starts=["0s", "1.5s"], ends=["1s", None])
        if segmented
        else audformat.filewise_index(files)
    )
    known["emotion"] = audformat.Table(index)
    known["emotion"]["emotion"] = audformat.Column(scheme_id="emotion")
    known["emotion"]["emotion"].set(emotions)
    known["files"] = audformat.Table(index)
    known["files"]["speaker"] = audformat.Column(scheme_id="speaker")
    known["files"]["speaker"].set(["s1", "s2"])
    known.save(str(folder))
    return folder


def test_emotion_speaker_and_gender_come_from_the_tables(tmp_path: Path) -> None:
    found = recordings.resolve(database(tmp_path, ["happy", "anger"]))
    assert (found.reader, found.speakers_from) == ("audformat", "the database")
    assert [(one.path, one.emotion, one.speaker, one.gender) for one in found.utterances] == [
        (tmp_path / "wav/a.wav", "happiness", "s1", "female"),
        (tmp_path / "wav/b.wav", "anger", "s2", "male"),
    ]
    assert [(one.start, one.end) for one in found.utterances] == [(None, None)] * 2


def test_segments_keep_their_bounds(tmp_path: Path) -> None:
    found = recordings.resolve(database(tmp_path, ["sad", "sad"], segmented=True))
    assert [(one.start, one.end) for one in found.utterances] == [(None, 1.0), (1.5, None)]


def test_an_unknown_label_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(UnknownLabelError, match=r"b\.wav: 'hangry'"):
        recordings.resolve(database(tmp_path, ["sad", "hangry"]))


def test_a_damaged_database_is_a_manifest_error(tmp_path: Path) -> None:
    (tmp_path / "db.yaml").write_text("tables: [1, 2")
    with pytest.raises(ManifestError, match=r"db\.yaml cannot be read"):
        recordings.resolve(tmp_path)


def test_without_the_package_the_error_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "audformat", None)
    (tmp_path / "db.yaml").write_text("name: toy")
    with pytest.raises(DependencyError) as caught:
        recordings.resolve(tmp_path)
    assert caught.value.hint == "Run: pip install 'fedser[audformat]'"
