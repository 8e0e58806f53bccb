"""What a folder means: the order of the rules, and that nothing is overlooked."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from fedser.audio import recordings
from fedser.audio.recordings import Recordings
from fedser.errors import ManifestError, NoAudioError, UnknownLabelError, UsageError


def touch(root: Path, *names: str) -> Path:
    """Files with the given names; resolution looks at names only."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"RIFF")
    return root


def labels(found: Recordings) -> list[str | None]:
    return [utterance.emotion for utterance in found.utterances]


def speakers(found: Recordings) -> list[str | None]:
    return [utterance.speaker for utterance in found.utterances]


def test_a_manifest_inside_wins_over_everything(tmp_path: Path) -> None:
    root = touch(tmp_path / "emodb", "03a01Fa.wav", "03a01Wa.wav")
    (root / "manifest.csv").write_text("path,emotion\n03a01Fa.wav,sad\n")
    found = recordings.resolve(root, corpus="emodb")
    assert found.reader == "manifest"
    assert labels(found) == ["sadness"]
    assert found.speakers_from == "nothing: the speakers are unknown"


def test_a_manifest_file_is_a_dir_too(tmp_path: Path) -> None:
    (tmp_path / "site.jsonl").write_text('{"path": "a.wav", "speaker": "anna"}\n')
    found = recordings.resolve(tmp_path / "site.jsonl")
    assert found.reader == "manifest"
    assert found.utterances[0].path == tmp_path / "a.wav"
    assert found.speakers_from == "the manifest"


@pytest.mark.parametrize("folder", ["EmoDB", "emo-db", "my_emodb_copy"])
def test_the_folders_name_chooses_the_reader(tmp_path: Path, folder: str) -> None:
    root = touch(tmp_path / folder, "wav/03a01Fa.wav", "wav/16b10Wb.WAV", "notes.txt", "wav/odd name.wav")
    found = recordings.resolve(root)
    assert (found.reader, labels(found)) == ("emodb", ["happiness", "anger"])
    assert found.speakers_from == "the corpus emodb"
    assert [(one.utterance.path.name, one.reason) for one in found.aside] == [("odd name.wav", "not_in_corpus")]


def test_a_folder_that_only_bears_a_corpus_name_is_read_by_the_other_rules(tmp_path: Path) -> None:
    root = touch(tmp_path / "tess", "happy/a.wav", "sad/b.wav", "sad/OAF_back_sad.wav")
    assert recordings.resolve(root).reader == "folders"


def test_a_named_corpus_sets_other_files_aside(tmp_path: Path) -> None:
    root = touch(tmp_path / "data", "03a01Fa.wav", "a.wav", "b.wav", "c.wav")
    found = recordings.resolve(root, corpus="EMO-DB")
    assert labels(found) == ["happiness"]
    assert [one.reason for one in found.aside] == ["not_in_corpus"] * 3


def test_a_named_corpus_without_any_match_is_an_error(tmp_path: Path) -> None:
    root = touch(tmp_path / "data", "a.wav")
    with pytest.raises(NoAudioError, match=r"no recording of the corpus emodb.*a\.wav"):
        recordings.resolve(root, corpus="emodb")


def test_a_misspelt_corpus_is_guessed(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Did you mean 'emovo'"):
        recordings.resolve(touch(tmp_path, "a.wav"), corpus="emowo")


def test_one_reader_that_matches_95_percent_is_taken(tmp_path: Path) -> None:
    names = [f"{emotion}-{speaker}-b{number}.wav" for emotion in ("rab", "dis", "pau", "gio", "neu", "sor", "tri")
             for speaker in ("f1", "m1") for number in range(1, 4)]  # fmt: skip
    root = touch(tmp_path / "f1", *names, "strange.wav")  # 42 of 43
    found = recordings.resolve(root)
    assert found.reader == "emovo"
    assert len(found.utterances) == 42
    assert [one.utterance.path.name for one in found.aside] == ["strange.wav"]
    touch(root, "stranger.wav", "strangest.wav")  # 42 of 45: 93 %
    assert recordings.resolve(root).reader == "unlabelled"


def test_ravdess_song_counts_for_the_corpus_and_is_set_aside(tmp_path: Path) -> None:
    root = touch(tmp_path / "x", "03-01-05-01-02-01-12.wav", "03-02-05-01-02-01-12.wav")
    found = recordings.resolve(root)
    assert found.reader == "ravdess"
    assert [one.reason for one in found.aside] == ["song"]


def test_casia_by_name_takes_any_speaker_and_without_the_name_only_its_own(tmp_path: Path) -> None:
    named = touch(tmp_path / "CASIA", "spk1/angry/201.wav", "spk2/sad/202.wav")
    assert speakers(recordings.resolve(named)) == ["spk1", "spk2"]
    unnamed = touch(tmp_path / "mandarin", "liuchanhg/angry/201.wav", "wangzhe/sad/202.wav")
    assert recordings.resolve(unnamed).reader == "casia"
    other = recordings.resolve(touch(tmp_path / "mine", "train/angry/201.wav", "test/sad/202.wav"))
    assert (other.reader, speakers(other)) == ("folders", [None, None])


def test_folders_named_after_emotions(tmp_path: Path) -> None:
    root = touch(tmp_path, "Happy/anna/1.wav", "01_sad/2.flac", "Pleasant Surprise/3.mp3")
    found = recordings.resolve(root, need_labels=True)
    assert found.reader == "folders"
    assert sorted(filter(None, labels(found))) == ["happiness", "pleasant_surprise", "sadness"]


def test_a_folder_that_is_no_emotion_among_others_is_an_error_where_labels_count(tmp_path: Path) -> None:
    root = touch(tmp_path, "happy/1.wav", "sad/2.wav", "weird/3.wav")
    with pytest.raises(UnknownLabelError, match=r"weird/3\.wav"):
        recordings.resolve(root, need_labels=True)
    assert labels(recordings.resolve(root)) == ["happiness", "sadness", None]


def test_unlabelled_recordings_and_the_error_that_lists_the_rules(tmp_path: Path) -> None:
    root = touch(tmp_path, "calls/1.wav", "calls/2.wav")
    found = recordings.resolve(root)
    assert (found.reader, labels(found), found.aside) == ("unlabelled", [None, None], ())
    with pytest.raises(UnknownLabelError) as caught:
        recordings.resolve(root, need_labels=True)
    assert all(word in caught.value.hint for word in ("manifest.csv", "--corpus", "95 %", "happy/"))


def test_a_single_file(tmp_path: Path) -> None:
    root = touch(tmp_path, "call.wav", "16b10Wb.wav")
    assert recordings.resolve(root / "call.wav").reader == "unlabelled"
    assert labels(recordings.resolve(root / "16b10Wb.wav")) == ["anger"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: root / "nothing", "does not exist"),
        (lambda root: root, "holds no recordings"),
        (lambda root: touch(root, "a.txt", ".hidden.wav", "__MACOSX/b.wav"), "holds no recordings"),
        (lambda root: touch(root, "s1_an_1.avi", "b.m4a"), "2 files, but none in a format"),
        (lambda root: touch(root, "notes.txt") / "notes.txt", "neither a folder, nor a manifest, nor a recording"),
    ],
)
def test_nothing_to_read(tmp_path: Path, make, message: str) -> None:
    with pytest.raises(NoAudioError, match=message):
        recordings.resolve(make(tmp_path))


def test_formats_that_are_not_read_are_set_aside(tmp_path: Path) -> None:
    found = recordings.resolve(touch(tmp_path, "a.wav", "b.m4a"))
    assert [(one.utterance.path.name, one.reason) for one in found.aside] == [("b.m4a", "unsupported")]


def test_link_loops_end_and_linked_folders_are_read_once(tmp_path: Path) -> None:
    root = touch(tmp_path / "root", "a/1.wav")
    touch(tmp_path / "elsewhere", "2.wav")
    (root / "a" / "loop").symlink_to(root)
    (root / "b").symlink_to(tmp_path / "elsewhere")
    (root / "c").symlink_to(tmp_path / "elsewhere")
    names = [utterance.path.relative_to(root).as_posix() for utterance in recordings.resolve(root).utterances]
    assert names == ["a/1.wav", "b/2.wav"]


@pytest.fixture
def strangers_folder() -> Iterator[Path]:
    """A folder that is not pytest's own, looked at without the superuser's rights."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o777)
        superuser = os.geteuid() == 0
        if superuser:
            os.seteuid(65534)
        yield Path(name)
        if superuser:
            os.seteuid(0)
        (Path(name) / "closed").chmod(0o755)


def test_a_closed_folder_is_an_error_and_below_the_root_set_aside(strangers_folder: Path) -> None:
    root = touch(strangers_folder, "open/1.wav", "closed/2.wav")
    (root / "closed").chmod(0)
    assert [one.reason for one in recordings.resolve(root).aside] == ["unreadable"]
    for place in (root / "closed", root / "closed" / "2.wav"):
        with pytest.raises(NoAudioError, match="permission denied"):
            recordings.resolve(place)


def test_the_order_is_sorted_and_repeats(tmp_path: Path) -> None:
    root = touch(tmp_path, "b/2.wav", "a/9.wav", "b/1.wav", "c.wav")
    names = [utterance.path.relative_to(root).as_posix() for utterance in recordings.resolve(root).utterances]
    assert names == ["a/9.wav", "b/1.wav", "b/2.wav", "c.wav"]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("parent", ["day1", "day2"]),
        ("grandparent", ["anna", "ben"]),
        ("none", [None, None]),
        (r"^([a-z]+)/", ["anna", "ben"]),
        (r"(day)(?P<speaker>\d)", ["1", "2"]),
    ],
)
def test_speaker_rules(tmp_path: Path, rule: str, expected: list[str | None]) -> None:
    found = recordings.resolve(touch(tmp_path, "anna/day1/x.wav", "ben/day2/y.wav"), speaker_from=rule)
    assert speakers(found) == expected


def test_a_rule_overrides_the_corpus_and_drops_its_genders(tmp_path: Path) -> None:
    found = recordings.resolve(touch(tmp_path / "emodb", "x/03a01Fa.wav"), speaker_from="parent")
    assert (found.utterances[0].speaker, found.utterances[0].gender) == ("x", None)
    assert found.utterances[0].emotion == "happiness"
    assert found.speakers_from == "the rule 'parent'"


def test_files_that_a_rule_does_not_fit_are_counted(tmp_path: Path) -> None:
    found = recordings.resolve(touch(tmp_path, "anna_1.wav", "ben_2.wav", "3.wav"), speaker_from="([a-z]+)_")
    assert speakers(found) == [None, "anna", "ben"]
    assert "1 of 3 files" in found.speakers_from


@pytest.mark.parametrize(
    ("rule", "message"),
    [("([a-z]+", "no regular expression"), ("anna", "0 groups"), ("(a)(b)", "2 groups"), ("(zzz)", "fits no file")],
)
def test_bad_rules(tmp_path: Path, rule: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        recordings.resolve(touch(tmp_path, "anna_1.wav"), speaker_from=rule)


def test_a_manifest_about_to_be_written_anew_does_not_count(tmp_path: Path) -> None:
    root = touch(tmp_path, "1.wav")
    (root / "manifest.csv").write_text("path\n2.wav\n")
    assert recordings.resolve(root, ignore=root / "manifest.csv").reader == "unlabelled"
    assert recordings.resolve(root, ignore=root / "other.csv").reader == "manifest"


def test_a_broken_manifest_is_not_passed_over(tmp_path: Path) -> None:
    root = touch(tmp_path, "1.wav")
    (root / "manifest.csv").write_text("file\n1.wav\n")
    with pytest.raises(ManifestError):
        recordings.resolve(root)


def test_iemocap_from_its_root(tmp_path: Path) -> None:
    wav = tmp_path / "IEMOCAP_full_release/Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav"
    wav.parent.mkdir(parents=True)
    soundfile.write(wav, np.zeros(1600), 16000)
    whole = touch(tmp_path / "IEMOCAP_full_release/Session1/dialog/wav", "Ses01F_impro01.wav")
    notes = whole.parent / "EmoEvaluation"
    notes.mkdir()
    (notes / "Ses01F_impro01.txt").write_text("[6.29 - 8.23]\tSes01F_impro01_F000\tfru\t[2.5, 2.5, 2.5]\n")
    for root in (tmp_path / "IEMOCAP_full_release", tmp_path):
        found = recordings.resolve(root)
        assert (found.reader, labels(found), speakers(found)) == ("iemocap", ["frustration"], ["Ses01F"])
        assert [one.reason for one in found.aside] == ["whole_dialogue"]


@pytest.mark.corpora
@pytest.mark.parametrize(
    ("name", "emotions", "speakers_expected", "genders"),
    [
        (
            "emodb",
            {"anger": 127, "boredom": 81, "disgust": 46, "fear": 69, "happiness": 71, "neutral": 79, "sadness": 62},
            10,
            {"female": 5, "male": 5},
        ),
        (
            "emovo",
            dict.fromkeys(("anger", "disgust", "fear", "happiness", "neutral", "surprise", "sadness"), 84),
            6,
            {"female": 3, "male": 3},
        ),
        (
            "ravdess",
            {"neutral": 96}
            | dict.fromkeys(("calm", "happiness", "sadness", "anger", "fear", "disgust", "surprise"), 192),
            24,
            {"female": 12, "male": 12},
        ),
        ("urdu", dict.fromkeys(("anger", "happiness", "neutral", "sadness"), 100), 29, None),
    ],
)
def test_the_real_corpora(
    corpora: Path, tmp_path: Path, name: str, emotions: dict[str, int], speakers_expected: int, genders
) -> None:
    found = recordings.resolve(corpora / name, need_labels=True)
    assert found.reader == name
    assert found.aside == ()
    assert Counter(labels(found)) == emotions
    known = {utterance.speaker: utterance.gender for utterance in found.utterances}
    assert len(known) == speakers_expected
    assert genders is None or Counter(known.values()) == genders
    (tmp_path / "renamed").symlink_to(corpora / name)
    assert recordings.resolve(tmp_path / "renamed").reader == name
