"""Manifests: what is read, what is refused and where."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedser.audio import manifest
from fedser.audio.utterance import Utterance
from fedser.errors import ManifestError, OutputError, UnknownLabelError

FULL = {
    "path": "calls/a b.wav",
    "speaker": "anna",
    "gender": "F",
    "emotion": "Happy",
    "start": "1.5",
    "end": "4",
    "channel": "1",
    "site": "north",
    "sentence": "s1",
    "language": "de",
}


def expected(root: Path) -> Utterance:
    return Utterance(
        root / "calls/a b.wav", "happiness", "anna", "female", "s1", "de", start=1.5, end=4.0, channel=1, site="north"
    )


def test_csv_and_json_lines_say_the_same(tmp_path: Path) -> None:
    rows = ",".join(FULL) + "\n" + ",".join(FULL.values()) + "\n\n" + "b.wav" + "," * 9 + "\n"
    (tmp_path / "m.csv").write_text("\ufeff" + rows, encoding="utf-8")
    values = FULL | {"start": 1.5, "end": 4, "channel": 1}
    (tmp_path / "m.jsonl").write_text(json.dumps(values) + "\n\n" + '{"path": "b.wav", "speaker": null}\n')
    both = (expected(tmp_path), Utterance(tmp_path / "b.wav"))
    assert manifest.read(tmp_path / "m.csv") == both
    assert manifest.read(tmp_path / "m.jsonl") == both


def test_columns_in_any_order_and_case(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text('Emotion, PATH\nsad,"x, y.wav"\n')
    assert manifest.read(tmp_path / "m.csv") == (Utterance(tmp_path / "x, y.wav", "sadness"),)


def test_absolute_paths_stay(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("path\n/data/a.wav\n")
    assert manifest.read(tmp_path / "m.csv")[0].path == Path("/data/a.wav")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no column 'path'"),
        ("path\n", "has no rows"),
        ("speaker\nanna\n", "line 1: there is no column 'path'"),
        ("path,speeker\na.wav,anna\n", r"line 1: unknown column 'speeker' \(did you mean 'speaker'\?\)"),
        ("path,path\na.wav,b.wav\n", "stands there twice"),
        ("path,speaker\na.wav,anna\nb.wav\n", "line 3: 1 cells under 2 columns"),
        ("path,speaker\n,anna\n", "line 2: the path is empty"),
        ("path,start,end\na.wav,2,1\n", "line 2: end 1 does not lie after start 2"),
        ("path,start,end\na.wav,2,2\n", "does not lie after"),
        ("path,end\na.wav,0\n", "does not lie after"),
        ("path,start\na.wav,-1\n", "'start' is no number of seconds: '-1'"),
        ("path,start\na.wav,nan\n", "'start' is no number"),
        ("path,end\na.wav,inf\n", "'end' is no number"),
        ("path,end\na.wav,soon\n", "'end' is no number"),
        ("path,channel\na.wav,-1\n", "'channel' is no channel number"),
        ("path,channel\na.wav,left\n", "'channel' is no channel number"),
        ("path,channel\na.wav,0.5\n", "'channel' is no channel number"),
        ("path,gender\na.wav,x\n", "unknown gender 'x'"),
        ('path\n"a.wav\n', "not CSV"),
        ("path\na\x00.wav\n", "NUL"),
        ("path,speaker\na.wav,\x07\n", "control characters"),
    ],
)
def test_refused_csv(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(ManifestError, match=message) as caught:
        manifest.read(tmp_path / "m.csv")
    assert "m.csv" in str(caught.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[1]", "line 2: not a JSON object"),
        ("{", "line 2: not a JSON object"),
        ('{"speaker": "anna"}', "line 2: the path is empty"),
        ('{"path": "a.wav", "begin": 1}', "unknown column 'begin'"),
        ('{"path": ["a.wav"]}', "neither text nor number"),
        ('{"path": "a.wav", "channel": true}', "neither text nor number"),
        ('{"path": "a.wav", "start": NaN}', "'start' is no number"),
        ("[" * 100_000, "not a JSON object"),
    ],
)
def test_refused_json_lines(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "m.jsonl").write_text('{"path": "ok.wav"}\n' + line + "\n")
    with pytest.raises(ManifestError, match=message):
        manifest.read(tmp_path / "m.jsonl")


def test_an_unknown_label_names_manifest_line_and_recording(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("path,emotion\na.wav,sad\nb.wav,sadd\n")
    with pytest.raises(UnknownLabelError, match=r"m\.csv, line 3: b\.wav: 'sadd'"):
        manifest.read(tmp_path / "m.csv")
    mapped = manifest.read(tmp_path / "m.csv", {"sadd": "sadness"})
    assert [utterance.emotion for utterance in mapped] == ["sadness", "sadness"]


def test_a_spreadsheet_channel_is_forgiven(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("path,channel\na.wav,1.0\n")
    assert manifest.read(tmp_path / "m.csv")[0].channel == 1


def test_missing_manifest_folder_and_other_encodings(tmp_path: Path) -> None:
    (tmp_path / "latin.csv").write_bytes("path\nä.wav\n".encode("latin-1"))
    (tmp_path / "folder.csv").mkdir()
    for name, message in (("no.csv", "cannot be read"), ("folder.csv", "cannot be read"), ("latin.csv", "UTF-8")):
        with pytest.raises(ManifestError, match=message):
            manifest.read(tmp_path / name)


@pytest.mark.parametrize("name", ["out.csv", "out.jsonl"])
def test_what_is_written_reads_back(tmp_path: Path, name: str) -> None:
    rows = (expected(tmp_path), Utterance(Path('/elsewhere/ü,"b".wav'), start=0.25))
    manifest.write(tmp_path / name, rows)
    assert manifest.read(tmp_path / name) == rows
    assert "calls/a b.wav" in (tmp_path / name).read_text()
    assert str(tmp_path) not in (tmp_path / name).read_text()


def test_columns_that_nothing_fills_are_left_out(tmp_path: Path) -> None:
    manifest.write(tmp_path / "m.csv", [Utterance(tmp_path / "a.wav", start=0.1 + 0.2, end=1.0)])
    assert (tmp_path / "m.csv").read_text() == "path,start,end\na.wav,0.3,1.0\n"


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        manifest.write(tmp_path / "file" / "m.csv", [Utterance(tmp_path / "a.wav")])


CELLS = st.one_of(st.text(max_size=20), st.sampled_from(["a.wav", "1", "-1", "nan", "0x1", "sad", "1e400", '"', ","]))
HEADERS = st.lists(st.one_of(st.sampled_from(manifest.COLUMNS), st.text(max_size=8)), max_size=5)


@settings(max_examples=300, deadline=None)
@given(header=HEADERS, rows=st.lists(st.lists(CELLS, max_size=5), max_size=5), junk=st.binary(max_size=40))
def test_whatever_the_file_holds_only_data_errors_come_out(
    tmp_path_factory: pytest.TempPathFactory, header: list[str], rows: list[list[str]], junk: bytes
) -> None:
    lines = [",".join(header), *(",".join(row) for row in rows)]
    folder = tmp_path_factory.getbasetemp()
    records = [json.dumps(dict(zip(header, row, strict=False))) for row in rows]
    for name, text in (("fuzz.csv", lines), ("fuzz.jsonl", records)):
        (folder / name).write_bytes("\n".join(text).encode("utf-8", "surrogatepass") + junk)
        try:
            found = manifest.read(folder / name)
        except (ManifestError, UnknownLabelError):
            continue
        assert all(utterance.end is None or utterance.end > (utterance.start or 0) for utterance in found)
