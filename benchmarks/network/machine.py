"""What the network benchmarks share: processes that end with the script, their memory, tables, resumable results."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any

from fedser import files

REPOSITORY = Path(__file__).resolve().parents[2]
THREADS = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1")


def arguments(text: str | None, *extra: tuple[str, dict[str, Any]]) -> argparse.Namespace:
    """The command line: ``--out``, ``--quick``, ``--fresh``, and what a script adds."""
    parser = argparse.ArgumentParser(description=(text or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for results.json, logs and states")
    parser.add_argument("--quick", action="store_true", help="a small try of everything")
    parser.add_argument("--fresh", action="store_true", help="drop what an earlier run left in --out")
    for name, options in extra:
        parser.add_argument(name, **options)
    parsed = parser.parse_args()
    if parsed.fresh:
        shutil.rmtree(parsed.out, ignore_errors=True)
    parsed.out = files.output_folder(parsed.out).resolve()
    return parsed


def environment() -> dict[str, Any]:
    """Where and with what the figures were made."""
    names = ("fedser", "torch", "flwr", "uvicorn", "httpx")
    load = os.getloadavg()
    return {
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "versions": {name: version(name) for name in names},
        "load_before": [round(value, 2) for value in load],
        "date": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
    }


def say(line: str = "") -> None:
    """Tell a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table; numbers to the right."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(len(name), *(len(row[i]) for row in cells), 0) for i, name in enumerate(columns)]
    say("  ".join(name.rjust(width) for name, width in zip(columns, widths, strict=True)))
    say("  ".join("-" * width for width in widths))
    for row in cells:
        say("  ".join(value.rjust(width) for value, width in zip(row, widths, strict=True)))


def _cell(value: object) -> str:
    return (
        f"{value:.3g}"
        if isinstance(value, float) and abs(value) < 100
        else f"{value:,.0f}"
        if isinstance(value, float)
        else str(value)
    )


class Results:
    """``results.json`` of a script, written after each part, so that a stopped script goes on where it was.

    Args:
        folder: of the script.
        about: what the parts depend on; another one begins anew.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any]) -> None:
        self._path = folder / "results.json"
        self.parts: dict[str, Any] = {}
        self._about = json.loads(json.dumps(about))
        with contextlib.suppress(OSError, ValueError):
            known = json.loads(self._path.read_text())
            if known.get("about") == self._about:
                self.parts = known["parts"]

    def part(self, name: str, make: Callable[[], Any]) -> Any:  # noqa: ANN401 - JSON
        """A part's result: from an earlier run, else made now."""
        if name not in self.parts:
            self.parts[name] = json.loads(json.dumps(make()))
            self.write()
        return self.parts[name]

    def write(self, **more: object) -> None:
        """Write all that is known."""
        told = {"about": self._about, "environment": environment(), "parts": self.parts, **more}
        files.write_text(self._path, json.dumps(told, indent=1) + "\n")


class Processes:
    """Processes in sessions of their own, which all end with this context; Ctrl-C and SIGTERM end it too.

    Args:
        logs: folder for their output.
    """

    def __init__(self, logs: Path) -> None:
        self._logs = files.output_folder(logs)
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self._started: list[subprocess.Popen[bytes]] = []
        self.peaks: dict[str, int] = {}  # kB, by name and command
        self._end = threading.Event()

    def __enter__(self) -> Processes:
        """Begin to watch the memory."""
        signal.signal(signal.SIGTERM, _interrupt)
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """End every process group that was started here."""
        self._end.set()
        for process in self._started:
            _signal_group(process, signal.SIGTERM)
        end = time.monotonic() + 5
        for process in self._started:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, end - time.monotonic()))
            _signal_group(process, signal.SIGKILL)
            process.wait()

    def start(self, name: str, command: Sequence[str | Path], **extra: str) -> subprocess.Popen[bytes]:
        """Start a process of one thread; its output goes to ``NAME.log``, after that of earlier ones of the name."""
        paths = [str(REPOSITORY), str(REPOSITORY / "server"), str(REPOSITORY / "client"), os.environ.get("PYTHONPATH")]
        surroundings = os.environ | THREADS | {"PYTHONPATH": os.pathsep.join(filter(None, paths))} | extra
        with (self._logs / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=surroundings,
                start_new_session=True,
            )
        self.running[name] = process
        self._started.append(process)
        return process

    def log(self, name: str) -> str:
        """What a process said."""
        return (self._logs / f"{name}.log").read_text(errors="replace")

    def kill(self, name: str) -> bool:
        """SIGKILL a process' group; False when it had ended already."""
        process = self.running[name]
        if process.poll() is not None:
            return False
        _signal_group(process, signal.SIGKILL)
        process.wait()
        return True

    def wait(self, names: Iterable[str], seconds: float) -> None:
        """Wait until processes ended well; SystemExit otherwise, with the end of their output."""
        end = time.monotonic() + seconds
        for name in names:
            try:
                code = self.running[name].wait(max(0.1, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                raise SystemExit(f"{name} did not end within {seconds:g} s:\n{self.log(name)[-2000:]}") from None
            if code:
                raise SystemExit(f"{name} ended with code {code}:\n{self.log(name)[-2000:]}")

    def _watch(self) -> None:
        """Note the largest resident memory of each process of the sessions started here, as the kernel counts it."""
        while not self._end.wait(0.3):
            sessions = {process.pid: name for name, process in self.running.items()}
            for pid in _pids():
                stat = _stat(pid)
                if stat and int(stat[3]) in sessions:
                    name = f"{sessions[int(stat[3])]}: {_what(pid)}"
                    self.peaks[name] = max(self.peaks.get(name, 0), memory(pid, "VmHWM"))


def memory(pid: int, field: str = "VmRSS") -> int:
    """Resident memory of a process now (``VmRSS``) or at most (``VmHWM``), in kB; 0 when it is gone."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1])
    return 0


def processor_seconds(pid: int) -> float:
    """Processor time that a process has used."""
    stat = _stat(pid)
    return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK") if stat else 0.0


def free_port() -> int:
    """A TCP port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def json_lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a file of JSON objects; a line that is being written is left out."""
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
    except OSError:
        return []
    return [json.loads(line) for line in lines]


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def _stat(pid: int) -> list[str]:
    """The fields of ``/proc/PID/stat`` after the name: state, parent, group, session, …"""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return []


def _what(pid: int) -> str:
    """The program of a process: of a Python one, the script or module."""
    with contextlib.suppress(OSError):
        words = [word for word in Path(f"/proc/{pid}/cmdline").read_text().split("\0") if word]
        named = [Path(word).name for word in words if not word.startswith("-")]
        return next((name for name in named if not name.startswith("python")), named[0] if named else "?")
    return "?"
