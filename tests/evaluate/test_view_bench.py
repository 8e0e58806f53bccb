from __future__ import annotations

from fedser.evaluate import view_bench


def row(**more: str) -> dict[str, str]:
    fixed = {"source": "a", "target": "b", "features": "functionals", "normalisation": "auto", "seed": "0"}
    scores = {"uar": "0.5", "war": "0.5", "macro_f1": "0.5"}
    where = {"method": "ecan", "setting": "central", "protocol": "transductive", "target_set": "all", "partition": ""}
    return fixed | scores | where | more


def test_rows_without_speech_are_not_scored() -> None:
    page = view_bench.view({}, [row(), row(target_set="nonspeech", uar="", war="", macro_f1="")])
    assert next(section.title for section in page.sections) == "functionals, all, transductive"
    assert not any("nonspeech" in section.title for section in page.sections)


def test_a_federated_benchmark_has_a_section_for_each_partition_and_its_settings_as_columns() -> None:
    rows = [row(partition=p, setting=s) for p in ("speaker1", "speaker2") for s in ("alone", "personal")]
    page = view_bench.view({}, rows)
    assert [section.title for section in page.sections][:2] == [
        "functionals, all, transductive, speaker1",
        "functionals, all, transductive, speaker2",
    ]
    assert page.sections[0].blocks[0].columns == ("pair", "alone (ecan), auto", "personal (ecan), auto")  # type: ignore[union-attr]
