from typing import Any

from fedser.evaluate.simulation_text import meanings


def told(**joining: Any) -> dict[str, str]:
    results = {"settings": {"alone": {}, "federated": {}, "personal": {}}, "config": {"federation": joining}}
    return dict(line.split(": ", 1) for line in meanings(results))


def test_a_federation_with_last_steps_and_without_a_student() -> None:
    said = told(personal=0.3, student={"steps": 0})
    assert list(said) == ["alone", "federated", "personal"]
    assert "share one model" in said["federated"]
    assert "once more" in said["personal"]


def test_a_student_and_no_last_steps_are_told_as_they_are() -> None:
    said = told(personal=0.0, student={"steps": 300})
    assert "teach one joint model" in said["federated"]
    assert "once more" not in said["personal"]
    assert "same as federated" in said["personal"]


def test_a_file_without_a_configuration_is_read() -> None:
    assert [line.split(":")[0] for line in meanings({"settings": {"source": {}, "unheard of": {}}})] == ["source"]
