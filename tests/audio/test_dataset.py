from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from fedser.audio import io
from fedser.audio.dataset import SpeechData, join, load
from fedser.audio.features import FeatureSettings, extract, shape
from fedser.audio.utterance import Utterance
from fedser.errors import NoAudioError, UsageError

SETTINGS = FeatureSettings()
EMOTIONS = ("anger", "sadness", "neutral")


def _tone(path: Path, hertz: float, seconds: float = 0.6) -> None:
    time = np.arange(int(16_000 * seconds)) / 16_000
    wave = sum(np.sin(2 * np.pi * hertz * k * time) / k for k in range(1, 6))
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.1 * wave, 16_000, subtype="PCM_16")


@pytest.fixture
def folder(tmp_path):
    """Six recordings by two speakers in a manifest, in no order of length, the last one silent."""
    rows = ["path,speaker,emotion"]
    for number in range(6):
        _tone(tmp_path / "calls" / f"{number}.wav", 100 + 30 * number, 0.5 + 0.1 * ((number * 4) % 6))
        rows.append(f"{number}.wav,s{number % 2},{EMOTIONS[number % 3]}")
    soundfile.write(tmp_path / "calls" / "silent.wav", np.zeros(16_000), 16_000, subtype="PCM_16")
    rows.append("silent.wav,s1,")
    (tmp_path / "calls" / "manifest.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "calls"


def test_rows_stand_in_the_order_of_the_utterances(folder, tmp_path):
    data = load(folder, SETTINGS, cache=tmp_path / "cache")
    assert data.name == "calls"
    assert [u.path.name for u in data.utterances] == [f"{n}.wav" for n in range(6)]
    assert data.speakers == ("s0", "s1") * 3
    assert data.emotions == EMOTIONS * 2
    for row, utterance in zip(data.raw, data.utterances, strict=True):
        alone = extract([io.read(utterance.path)], SETTINGS)[0]
        torch.testing.assert_close(row, alone, rtol=1e-4, atol=1e-4)
    assert [finding.utterance.path.name for finding in data.inspection.quarantined] == ["silent.wav"]


def test_second_load_extracts_nothing(folder, tmp_path):
    first = load(folder, SETTINGS, cache=tmp_path / "cache")
    second = load(folder, SETTINGS, cache=tmp_path / "cache")
    assert (first.extracted, second.extracted) == (6, 0)
    assert torch.equal(first.raw, second.raw)


def test_only_what_changed_is_extracted_again(folder, tmp_path):
    load(folder, SETTINGS, cache=tmp_path / "cache")
    _tone(folder / "2.wav", 333)
    assert load(folder, SETTINGS, cache=tmp_path / "cache").extracted == 1
    damaged = sorted((tmp_path / "cache").rglob("*.npy"))[0]
    damaged.write_bytes(damaged.read_bytes()[:-8])
    assert load(folder, SETTINGS, cache=tmp_path / "cache").extracted <= 1
    assert load(folder, SETTINGS, cache=tmp_path / "cache").extracted == 0


def test_other_settings_meet_other_entries(folder, tmp_path):
    load(folder, FeatureSettings(kind="logmel", seconds=0.5), cache=tmp_path / "cache")
    longer = load(folder, FeatureSettings(kind="logmel", seconds=0.6), cache=tmp_path / "cache")
    assert longer.extracted == 6
    assert longer.raw.shape == (6, *shape(FeatureSettings(kind="logmel", seconds=0.6)))


def test_a_cache_that_cannot_be_written_does_not_stop_the_run(folder, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    data = load(folder, SETTINGS, cache=tmp_path / "file")
    assert data.extracted == len(data) == 6
    assert capsys.readouterr().err.count("not kept") == 1


def test_nothing_usable_is_an_error(tmp_path):
    soundfile.write(tmp_path / "silent.wav", np.zeros(16_000), 16_000)
    with pytest.raises(NoAudioError, match="set aside as silent"):
        load(tmp_path, SETTINGS)
    (tmp_path / "empty.wav").touch()
    with pytest.raises(NoAudioError, match="1 empty, 1 silent"):
        load(tmp_path, SETTINGS)


def _data(name: str, emotions: list[str | None], settings: FeatureSettings = SETTINGS) -> SpeechData:
    utterances = tuple(Utterance(Path(f"{i}.wav"), e, f"s{i}" if i else None) for i, e in enumerate(emotions))
    return SpeechData(name, utterances, torch.arange(len(emotions) * 2.0).view(-1, 2), settings, reader="manifest")


def test_labels_are_class_numbers_and_minus_one_outside():
    data = _data("a", ["anger", None, "neutral", "disgust"])
    labels = data.labels(["neutral", "anger"])
    assert labels.dtype == torch.int64
    assert labels.tolist() == [1, -1, 0, -1]


@pytest.mark.parametrize("index", [[2, 0], torch.tensor([2, 0])])
def test_subset_takes_rows_in_the_given_order(index):
    part = _data("a", ["anger", None, "neutral"]).subset(index)
    assert part.emotions == ("neutral", "anger")
    assert part.raw.tolist() == [[4.0, 5.0], [0.0, 1.0]]


def test_subset_takes_masks_and_may_be_empty():
    data = _data("a", ["anger", None, "neutral"])
    assert data.subset(torch.tensor([False, True, True])).emotions == (None, "neutral")
    assert len(data.subset([])) == 0
    assert data.subset([]).raw.shape == (0, 2)


def test_join_keeps_equal_speaker_ids_apart():
    both = join([_data("a", ["anger", "fear"]), _data("b", ["fear", "anger"])])
    assert both.speakers == (None, "a/s1", None, "b/s1")
    assert both.name == "a+b"
    assert both.raw.shape == (4, 2)


def test_join_refuses_different_features_and_nothing():
    with pytest.raises(UsageError, match="different settings"):
        join([_data("a", ["anger"]), _data("b", ["anger"], FeatureSettings(kind="logmel"))])
    with pytest.raises(UsageError, match="nothing to join"):
        join([])


@pytest.mark.corpora
def test_a_real_corpus_loads_whole(corpora, tmp_path):
    data = load(corpora / "urdu", SETTINGS, need_labels=True)
    assert len(data) + len(data.inspection.quarantined) == 400
    assert set(data.emotions) == {"anger", "happiness", "neutral", "sadness"}
    assert bool(torch.isfinite(data.raw).all())
