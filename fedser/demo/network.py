"""The demonstration over a network: a provider and three sites as processes of their own, with TLS, on loopback.

``OUT/`` afterwards::

    speech/, source.safetensors, key     as the demonstration without a network makes them
    provider/                            the provider's state; server.log beside it
    clinic/, phone/, office/             the sites' states: model, predictions, report, audit log, policy
    network.json                         what this run found
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fedser import console, files
from fedser.demo.corpus import SITES, SOURCE, CorpusPlan
from fedser.demo.demo import JOINING, NOTE, SCHEDULE, claim, synthesise, train
from fedser.errors import FederationError

_PATIENCE = 600.0  # seconds for the whole study
_STATE = "provider"


def run(
    out: Path, seed: int = 0, *, rounds: int = 5, source: CorpusPlan = SOURCE, sites: Sequence[CorpusPlan] = SITES
) -> dict[str, Any]:
    """Synthesise, train, sign; then start a provider and its sites, and wait until the study is done.

    Args:
        out: a new or empty folder, or one that an earlier demo made.
        seed: of the voices, the training and the study.
        rounds: exchanges.
        source: the provider's corpus.
        sites: the sites' corpora.

    Returns:
        ``sites`` (UAR before and after, bytes that left, report), ``seconds``, ``provider``, ``note``.

    Raises:
        FederationError: a process ended with an error; its last lines are the message.
        FedserError: see the steps.
    """
    begin = time.perf_counter()
    claim(out, seed)
    speech = synthesise(out / "speech", (source, *sites), seed)
    bundle, _ = train(out, speech[source.name], source.name, seed)
    for name in (_STATE, *(plan.name for plan in sites)):  # an earlier demonstration's study is over
        shutil.rmtree(out / name, ignore_errors=True)
        (out / f"{name}.invite").unlink(missing_ok=True)
    work = _Processes(out)
    with work.ended():
        _study(work, bundle, {plan.name: speech[plan.name] for plan in sites}, rounds, seed)
    results = {
        "sites": {plan.name: _site(out / plan.name) for plan in sites},
        "provider": str(out / _STATE),
        "rounds": rounds,
        "seconds": round(time.perf_counter() - begin, 1),
        "note": NOTE,
    }
    files.write_text(out / "network.json", json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    return results


def _study(work: _Processes, bundle: Path, speech: dict[str, Path], rounds: int, seed: int) -> None:
    """What the README's commands do, typed by a program."""
    state = work.out / _STATE
    key = str(bundle.with_name("key.pub"))
    options = [
        *("method.name=fedser", f"schedule.steps={SCHEDULE.steps}", f"schedule.learning_rate={SCHEDULE.learning_rate}"),
        *(f"student.steps={JOINING.student.steps}", f"personal={JOINING.personal:g}", f"seed={seed}"),
    ]
    counts = ["--sites", str(len(speech)), "--rounds", str(rounds), "--port", "0", "--signer", key]
    work.start("server", "fedser_server", "start", *options, "--bundle", bundle, *counts, "--state", state)
    port = work.wait_for_port(state / "status.json")
    for name, folder in speech.items():
        invitation = work.out / f"{name}.invite"
        where = ("--state", state, "--address", f"localhost:{port}", "--signer", key)
        work.call("fedser_server", "invite", name, "--out", invitation, *where)
        work.start(name, "fedser_client", "join", invitation, "--data", folder, "--state", work.out / name)
    work.wait()


class _Processes:
    """The nodes of one demonstration: each with a log of its own, none of them left behind."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, module: str, *arguments: str | Path) -> None:
        """Start a node; what it says goes to ``NAME.log``."""
        console.say(f"starting {name}")
        with (self.out / f"{name}.log").open("wb") as log:
            self._running[name] = subprocess.Popen(
                [sys.executable, "-m", module, *map(str, arguments)], stdout=log, stderr=log, env=_environment()
            )

    def call(self, module: str, *arguments: str | Path) -> None:
        """Run a command to its end."""
        command = [sys.executable, "-m", module, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, env=_environment(), check=False)
        if done.returncode:
            raise FederationError(f"{module} ended with {done.returncode}: {done.stderr[-500:]}", "See its message.")

    def wait_for_port(self, status: Path) -> int:
        """The port that the provider listens on."""
        for _ in self._watch():
            try:
                port = json.loads(status.read_text(encoding="utf-8")).get("port")
            except (OSError, ValueError):
                port = None
            if isinstance(port, int):
                return port
        raise FederationError("The provider ended before it listened.", f"See {self.out / 'server.log'}.")

    def wait(self) -> None:
        """Wait for all nodes to end by themselves."""
        for _ in self._watch():
            if all(process.poll() == 0 for process in self._running.values()):
                return

    def _watch(self) -> Iterator[None]:
        end = time.monotonic() + _PATIENCE
        while time.monotonic() < end:
            for name, process in self._running.items():
                if process.poll():
                    log = (self.out / f"{name}.log").read_text(encoding="utf-8", errors="replace")
                    raise FederationError(f"{name} ended with {process.returncode}: {log[-500:]}", "See its message.")
            yield
            time.sleep(0.1)
        raise FederationError(f"The study was not done within {_PATIENCE:g} seconds.", f"See the logs in {self.out}.")

    @contextmanager
    def ended(self) -> Iterator[None]:
        """End what still runs, whatever happens."""
        try:
            yield
        finally:
            for process in self._running.values():
                if process.poll() is None:
                    process.terminate()
            for process in self._running.values():
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def _site(folder: Path) -> dict[str, Any]:
    """What one site came to: percent UAR before and after, and what left."""
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    scores = results["metrics"] or {}
    return {
        "source": round(100 * scores["source_uar"], 2),
        "personal": round(100 * scores["uar"], 2),
        "bytes_left": results["left"]["bytes"],
        "orders": results["left"]["orders"],
        "report": str(folder / "report.html"),
    }
