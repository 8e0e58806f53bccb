"""Keys and authority are renewed while a study waits: neither a running site nor an open invitation is lost."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


class Place:
    """A folder with a provider and its sites, all run by their real commands."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = os.environ | {"OMP_NUM_THREADS": "1", "XDG_CONFIG_HOME": str(folder / "config")}
        self.environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]

    def call(self, node: str, *words: object) -> dict[str, Any]:
        command = [sys.executable, "-m", node, *map(str, words), "--format", "json"]
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    @contextmanager
    def running(self, log: str, node: str, *words: object) -> Iterator[subprocess.Popen[bytes]]:
        with (self.folder / log).open("wb") as out:
            command = [sys.executable, "-m", node, *map(str, words)]
            process = subprocess.Popen(command, cwd=self.folder, env=self.environment, stdout=out, stderr=out)
            try:
                yield process
            finally:
                process.kill()
                process.wait()

    def wait_for(self, site: str, status: str) -> None:
        end = time.monotonic() + 120
        while time.monotonic() < end:
            sites = json.loads((self.folder / "provider" / "sites.json").read_text())["sites"]
            if any((entry["name"], entry["status"]) == (site, status) for entry in sites):
                return
            time.sleep(0.2)
        pytest.fail("\n".join(path.read_text() for path in self.folder.glob("*.log")))


def test_renewals_lose_neither_a_running_site_nor_an_open_invitation(tmp_path: Path, speech: Path, signed: Any) -> None:
    place = Place(tmp_path)
    state = ("--state", "provider")
    study = ("start", "--bundle", signed.path, "--signer", signed.signer, "--sites", 2, "--rounds", 2, "utterances=4")
    start = ("fedser_server", *study, *state, "--port", place.port)
    for site in ("site-a", "site-b"):
        where = ("--address", f"localhost:{place.port}", "--signer", signed.signer)
        place.call("fedser_server", "invite", site, "--out", f"{site}.invite", *state, *where)

    def join(site: str) -> tuple[str, ...]:
        return ("fedser_client", "join", f"{site}.invite", "--data", str(speech), "--state", site, "--patience", "120")

    with place.running("first.log", *start) as first, place.running("a.log", *join("site-a")) as running_site:
        place.wait_for("site-a", "enrolled")
        place.call("fedser_server", "stop", *state)
        assert first.wait(timeout=60) == 143
        place.call("fedser_server", "renew", "order-key", *state)
        place.call("fedser_server", "renew", "ca", *state)
        with place.running("second.log", *start) as second, place.running("b.log", *join("site-b")) as late_site:
            codes = [process.wait(timeout=240) for process in (second, running_site, late_site)]
    logs = "\n".join(f"{path.name}:\n{path.read_text()}" for path in sorted(tmp_path.glob("*.log")))
    assert codes == [0, 0, 0], logs
    assert {entry["status"] for entry in place.call("fedser_server", "sites", *state)["sites"]} == {"enrolled"}
