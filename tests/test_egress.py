"""Nothing leaves the machine: no local command opens a connection or looks up a name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

WATCHED = """
import os, sys

def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        sys.stderr.write(f"EGRESS {event} {arguments!r}\\n")
        sys.stderr.flush()
        os._exit(97)

sys.addaudithook(watch)
"""


def run(code: str, *arguments: object, cache: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"FEDSER_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p)
    command = [sys.executable, "-c", WATCHED + code, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("method", ["ecan", "logreg_self"])
def test_adapting_and_predicting_open_no_connection(method: str, tmp_path: Path, speech: Path, signed: Any) -> None:
    code = "from fedser.cli import main; main()"
    bundle = ("--bundle", signed.path, "--signer", signed.signer)
    adapted = run(
        *(code, "adapt", *bundle, "--data", speech, "--method", method, "--out", tmp_path / "out"), cache=tmp_path
    )
    assert adapted.returncode == 0, adapted.stderr
    predicted = run(code, "predict", "--model", tmp_path / "out", next(speech.rglob("*.wav")), cache=tmp_path)
    assert predicted.returncode == 0, predicted.stderr


@pytest.mark.parametrize("leak", ["socket.create_connection(('127.0.0.1', 9))", "socket.getaddrinfo('localhost', 80)"])
def test_a_connection_is_noticed(leak: str, tmp_path: Path) -> None:
    leaked = run(f"import socket; {leak}", cache=tmp_path)
    assert leaked.returncode == 97
    assert "EGRESS" in leaked.stderr
