"""Corpus readers, against names written down from the corpora's own documentation."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedser.audio.corpora import CORPORA, Aside
from fedser.audio.labels import EMOTIONS
from fedser.audio.utterance import Utterance
from fedser.errors import ManifestError

# corpus, path, emotion, speaker, gender, sentence, language
CASES = [
    ("emodb", "wav/03a01Fa.wav", "happiness", "03", "male", "a01", "de"),
    ("emodb", "16b10Wb.flac", "anger", "16", "female", "b10", "de"),
    ("emodb", "12A05LD.WAV", "boredom", "12", "male", "a05", "de"),
    ("emodb", "08a01Na.wav", "neutral", "08", "female", "a01", "de"),
    ("emodb", "15a04Ac.wav", "fear", "15", "male", "a04", "de"),
    ("emodb", "14a05Ea.wav", "disgust", "14", "female", "a05", "de"),
    ("emodb", "13b02Ta.wav", "sadness", "13", "female", "b02", "de"),
    ("emovo", "f1/rab-f1-b1.wav", "anger", "f1", "female", "b1", "it"),
    ("emovo", "gio-m3-n5.ogg", "happiness", "m3", "male", "n5", "it"),
    ("emovo", "PAU-M2-L4.wav", "fear", "m2", "male", "l4", "it"),
    ("emovo", "sor-f3-d1.wav", "surprise", "f3", "female", "d1", "it"),
    ("casia", "liuchanhg/angry/201.wav", "anger", "liuchanhg", "female", "201", "zh"),
    ("casia", "deep/er/ZhaoZuoxiang/sad/250.mp3", "sadness", "zhaozuoxiang", "male", "250", "zh"),
    ("casia", "anyone/happy/001.wav", "happiness", "anyone", None, "001", "zh"),
    ("casia", "6/sad/201-sad-zhaoquanyin.wav", "sadness", "zhaoquanyin", "female", "201", "zh"),
    ("enterface", "subject 1/anger/sentence 1/s1_an_1.wav", "anger", "s1", None, "an1", "en"),
    ("enterface", "subject 6/surprise/s6_su_5.wav", "surprise", "s6", None, "su5", "en"),
    ("enterface", "S12_HA_3.WAV", "happiness", "s12", None, "ha3", "en"),
    ("enterface", "s_3_di_2.wav", "disgust", "s3", None, "di2", "en"),
    ("enterface", "subject 44/fear/sentence 4/sound.wav", "fear", "s44", None, "fe4", "en"),
    ("enterface", "subject_7/sadness/clip.wav", "sadness", "s7", None, None, "en"),
    ("ravdess", "Actor_12/03-01-05-01-02-01-12.wav", "anger", "12", "female", "02", "en"),
    ("ravdess", "01-01-02-02-01-02-23.wav", "calm", "23", "male", "01", "en"),
    ("savee", "AudioData/DC/a01.wav", "anger", "DC", "male", "a01", "en"),
    ("savee", "JK_sa15.wav", "sadness", "JK", "male", "sa15", "en"),
    ("savee", "kl/SU03.WAV", "surprise", "KL", "male", "su03", "en"),
    ("tess", "OAF_angry/OAF_back_angry.wav", "anger", "OAF", "female", "back", "en"),
    ("tess", "YAF_youth_ps.wav", "pleasant_surprise", "YAF", "female", "youth", "en"),
    ("tess", "OA_bite_neutral.wav", "neutral", "OAF", "female", "bite", "en"),
    ("cremad", "AudioWAV/1001_DFA_ANG_XX.wav", "anger", "1001", "male", "DFA", "en"),
    ("cremad", "1091_WSI_SAD_HI.flac", "sadness", "1091", "female", "WSI", "en"),
    ("cremad", "1040_ITH_SAD_X.wav", "sadness", "1040", "male", "ITH", "en"),
    ("urdu", "Angry/SM1_F19_A019.wav", "anger", "SM1", "male", None, "ur"),
    ("urdu", "SF2_F3_S020.wav", "sadness", "SF2", "female", None, "ur"),
    ("nemo", "samples/EB0_anger_1.wav", "anger", "EB0", "female", "1", "pl"),
    ("nemo", "WR0_surprised_64.wav", "surprise", "WR0", "male", "64", "pl"),
]


@pytest.mark.parametrize(("corpus", "name", "emotion", "speaker", "gender", "sentence", "language"), CASES)
def test_names_of_the_corpora(
    corpus: str, name: str, emotion: str, speaker: str, gender: str | None, sentence: str | None, language: str
) -> None:
    path = Path("/anywhere/below") / name
    expected = Utterance(path, emotion, speaker, gender, sentence, language)
    assert CORPORA[corpus].read(path) == expected
    assert emotion in EMOTIONS


@pytest.mark.parametrize(("corpus", "name"), [case[:2] for case in CASES])
def test_no_other_reader_claims_the_name(corpus: str, name: str) -> None:
    path = Path("/anywhere/below") / name
    for other in CORPORA.values():
        if other.name != corpus:
            assert (other.sure or other.read)(path) is None, other.name


@pytest.mark.parametrize(
    ("corpus", "name"),
    [
        ("emodb", "07a01Fa.wav"),  # no such speaker
        ("emodb", "03a01Xa.wav"),  # no such emotion
        ("emovo", "rab-f4-b1.wav"),
        ("casia", "liuchanhg/bored/201.wav"),
        ("casia", "liuchanhg/angry/a201.wav"),
        ("enterface", "subject 1/bored/sentence 1/x.wav"),
        ("ravdess", "03-01-09-01-02-01-12.wav"),
        ("ravdess", "03-01-05-01-02-01-25.wav"),
        ("savee", "XX/a01.wav"),
        ("tess", "OAF_back_excited.wav"),
        ("cremad", "1092_DFA_ANG_XX.wav"),
        ("urdu", "SM1_F19_X019.wav"),
        ("nemo", "EB0_disgust_1.wav"),
    ],
)
def test_names_that_only_look_alike_are_not_claimed(corpus: str, name: str) -> None:
    assert CORPORA[corpus].read(Path("/anywhere") / name) is None


def test_ravdess_song_and_silent_video_are_set_aside() -> None:
    song = CORPORA["ravdess"].read(Path("03-02-05-01-02-01-12.wav"))
    silent = CORPORA["ravdess"].read(Path("02-01-05-01-02-01-12.wav"))
    assert isinstance(song, Aside)
    assert song.reason == "song"
    assert isinstance(silent, Aside)
    assert silent.reason == "no_sound"


def test_cremad_has_43_women_among_91_actors() -> None:
    names = [Path(f"{1000 + actor}_DFA_ANG_XX.wav") for actor in range(1, 92)]
    genders = [reading.gender for name in names if isinstance(reading := CORPORA["cremad"].read(name), Utterance)]
    assert (len(genders), genders.count("female")) == (91, 43)


def iemocap(root: Path) -> Path:
    """A made-up session with the corpus' folders."""
    annotations = root / "Session2/dialog/EmoEvaluation"
    annotations.mkdir(parents=True)
    (annotations / "Ses02M_script01_1b.txt").write_text(
        "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n"
        "[6.2901 - 8.2357]\tSes02M_script01_1b_F000\tang\t[2.5000, 2.5000, 2.5000]\n"
        "C-E1:\tAnger;\t()\n\n"
        "[10.01 - 11.3925]\tSes02M_script01_1b_M003\texc\t[4.0, 4.0, 4.0]\n"
        "[12.01 - 13.3925]\tSes02M_script01_1b_M004\txxx\t[4.0, 4.0, 4.0]\n"
    )
    return root / "Session2/sentences/wav/Ses02M_script01_1b"


@pytest.mark.parametrize("start", ["", "Session2", "Session2/sentences/wav"])
def test_iemocap_takes_its_labels_from_the_annotations(tmp_path: Path, start: str) -> None:
    wav = iemocap(tmp_path)
    read = CORPORA["iemocap"].reader(tmp_path / start)
    angry = wav / "Ses02M_script01_1b_F000.wav"
    assert read(angry) == Utterance(angry, "anger", "Ses02F", "female", "ses02m_script01_1b", "en")
    excited = read(wav / "Ses02M_script01_1b_M003.wav")
    assert isinstance(excited, Utterance)
    assert (excited.emotion, excited.speaker, excited.gender) == ("excitement", "Ses02M", "male")
    for unsettled in ("M004", "M099"):  # the raters disagreed; not annotated
        reading = read(wav / f"Ses02M_script01_1b_{unsettled}.wav")
        assert isinstance(reading, Utterance)
        assert reading.emotion is None


def test_iemocap_finds_annotations_that_were_moved(tmp_path: Path) -> None:
    iemocap(tmp_path / "labels")
    read = CORPORA["iemocap"].reader(tmp_path)
    reading = read(tmp_path / "flat" / "ses02m_script01_1b_f000.FLAC")
    assert isinstance(reading, Utterance)
    assert reading.emotion == "anger"


def test_iemocap_dialogues_are_set_aside_and_odd_codes_refused(tmp_path: Path) -> None:
    wav = iemocap(tmp_path)
    read = CORPORA["iemocap"].reader(tmp_path)
    assert isinstance(read(tmp_path / "Session2/dialog/wav/Ses02M_script01_1b.wav"), Aside)
    annotation = tmp_path / "Session2/dialog/EmoEvaluation/Ses02F_impro01.txt"
    annotation.write_text("[1.0 - 2.0]\tSes02F_impro01_F000\tzzz\t[1, 1, 1]\n")
    with pytest.raises(ManifestError, match="unknown code 'zzz'"):
        read(wav.parent / "Ses02F_impro01" / "Ses02F_impro01_F000.wav")


@pytest.mark.parametrize(
    ("folder", "corpus"),
    [
        ("EmoDB", "emodb"),
        ("emo-db", "emodb"),
        ("EMODB_v1.2", "emodb"),
        ("EMOVO", "emovo"),
        ("CASIA database", "casia"),
        ("eNTERFACE05", "enterface"),
        ("enterface database", "enterface"),
        ("IEMOCAP_full_release", "iemocap"),
        ("RAVDESS_speech", "ravdess"),
        ("Audio_Speech_Actors_01-24", "ravdess"),
        ("SAVEE", "savee"),
        ("TESS Toronto emotional speech set data", "tess"),
        ("CREMA-D", "cremad"),
        ("AudioWAV", "cremad"),
        ("URDU-Dataset-master", "urdu"),
        ("nEMO", "nemo"),
    ],
)
def test_folder_names_resolve_to_one_corpus(folder: str, corpus: str) -> None:
    assert [known.name for known in CORPORA.values() if known.is_named_by(folder)] == [corpus]


@pytest.mark.parametrize("folder", ["recordings", "calls_2024", "wav", "cinemodels", "hardness", "demo"])
def test_other_folder_names_mean_no_corpus(folder: str) -> None:
    assert not any(known.is_named_by(folder) for known in CORPORA.values())
