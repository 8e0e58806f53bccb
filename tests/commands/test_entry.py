"""How a command line ends: codes, one JSON object, signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PROGRAM = """
import os, sys, time
from pathlib import Path
import typer
from fedser import console, files
from fedser.commands import entry
from fedser.errors import StateError

app = typer.Typer()

@app.command()
def work(out: Path, form: console.Format = typer.Option(console.Format.text, "--format")) -> None:
    with files.replacing(out) as scratch:
        scratch.write_text("half")
        if os.environ.get("FORK") and os.fork() == 0:
            time.sleep(60)
        print("working", file=sys.stderr, flush=True)
        time.sleep(60)

@app.command()
def fail(form: console.Format = typer.Option(console.Format.text, "--format")) -> None:
    raise StateError("The folder is damaged.", "Restore it.")

entry.run(app)
"""


def start(*words: object, **extra: str) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)} | extra
    command = [sys.executable, "-c", PROGRAM, *map(str, words)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interruption_leaves_nothing_half_written(tmp_path: Path, sent: int, code: int, form: str) -> None:
    with start("work", tmp_path / "out", "--format", form) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "working\n"
        process.send_signal(sent)
        told = process.stderr.read()
        assert process.wait(timeout=30) == code
    assert told == "interrupted: nothing was left half-written\n"
    assert list(tmp_path.iterdir()) == []


def test_a_terminated_child_does_not_unwind_its_parents_work(tmp_path: Path) -> None:
    with start("work", tmp_path / "out", FORK="1") as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "working\n"
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        if not children.exists():
            pytest.skip("the kernel does not list a process' children")
        child = int(children.read_text().split()[0])
        while "Z" not in Path(f"/proc/{child}/stat").read_text():
            os.kill(child, signal.SIGTERM)  # again: Python forgets a signal that came in the middle of its fork
            time.sleep(0.05)
        assert len(list(tmp_path.iterdir())) == 1  # the parent still works on its file
        process.terminate()
        assert process.wait(timeout=30) == 143


def test_an_error_is_its_code_and_one_object() -> None:
    with start("fail", "--format", "json") as process:
        out, err = process.communicate(timeout=30)
    assert process.returncode == json.loads(out)["error"]["code"] == 35
    assert "Traceback" not in err
