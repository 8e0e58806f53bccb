from __future__ import annotations

import json

import pytest

from fedser import console, errors
from fedser.errors import FedserError


def leaves(kind: type[FedserError]) -> list[type[FedserError]]:
    below = kind.__subclasses__()
    return [leaf for child in below for leaf in leaves(child)] if below else [kind]


def test_every_leaf_has_an_exit_code_of_its_own_and_stands_in_the_tree() -> None:
    own = [leaf for leaf in leaves(FedserError) if leaf.__module__ == "fedser.errors"]
    codes = [leaf.exit_code for leaf in own]
    assert len(set(codes)) == len(codes)
    assert all(1 < code < 126 for code in codes)
    for leaf in own:
        assert f"{leaf.__name__} " in (errors.__doc__ or "")
        assert str(leaf.exit_code) in (errors.__doc__ or "")


def test_an_error_is_two_sentences_and_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    code = console.fail(errors.NoAudioError("Nothing here.", "Put something here."), as_json=True)
    shown = capsys.readouterr()
    assert code == 10
    assert "error: Nothing here." in shown.err
    assert "what to do: Put something here." in shown.err
    body = json.loads(shown.out)["error"]
    assert body == {"name": "NoAudioError", "code": 10, "message": "Nothing here.", "hint": "Put something here."}


def test_progress_in_a_pipe_is_plain_lines_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    with console.progress("features", 2) as step:
        step()
        step()
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines() == ["features: 2", "features: done"]
