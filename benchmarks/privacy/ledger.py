"""The ledger's crash series: never below the truth, never silently reset.

python benchmarks/privacy/ledger.py [--kills 200] [--seed 0]

1. Processes that charge without end are ended by SIGKILL, all on one ledger: half of them at a seeded moment, half of
   them before or after a seeded system call of the ledger's. Truth is what they announced, each charge after it
   returned. The ledger must open each time and hold all that was announced, and at most one more a kill.
2. Ledger and head are cut at every byte offset, record boundaries among them: each copy must be refused.
3. Every byte is changed, one at a time: each copy must be refused.

One JSON object on stdout; exit code 1 where anything is below the truth or taken for good.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from fedser.errors import LedgerError
from fedser.privacy.accountant import Accountant, Charge
from fedser.privacy.ledger import Ledger

NOISE, DELTA, BUDGET = 200.0, 1e-5, 1e6

CHILD = """
import os, signal, sys
from pathlib import Path
from fedser.privacy.ledger import Ledger

at, after = int(sys.argv[2]), sys.argv[3] == "after"
calls = 0

def counted(usual):
    def call(*given, **named):
        global calls
        calls += 1
        last = calls == at
        if last and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            return usual(*given, **named)
        finally:
            if last:
                os.kill(os.getpid(), signal.SIGKILL)
    return call

if at:
    for name in ("open", "write", "fsync", "replace", "close"):
        if name != "write":
            setattr(os, name, counted(getattr(os, name)))
    plain = os.write
    counting = counted(os.write)
    os.write = lambda descriptor, data: plain(descriptor, data) if descriptor == 1 else counting(descriptor, data)
book = Ledger(Path(sys.argv[1]), "clinic", "site", 1e6, 1e-5)
for number in range(100_000):
    book.charge(200.0, 1.0, 1, study="study", round=number, attempt=0)
    os.write(1, b"x")
"""


def killed(path: Path, draw: random.Random, number: int) -> int:
    """Charge until killed; how many charges were announced."""
    call = draw.randint(1, 120) if number % 2 else 0
    command = [sys.executable, "-c", CHILD, str(path), str(call), draw.choice(("before", "after"))]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        out = child.stdout
        if out is None:
            raise RuntimeError("the process has no output")
        told = b""
        if not call:
            told = out.read(1)
            time.sleep(draw.uniform(0, 0.05))
            child.send_signal(signal.SIGKILL)
        told += out.read()
    return len(told)


def refused(path: Path) -> bool:
    """Whether a ledger does not open."""
    try:
        Ledger(path, "clinic", "site", BUDGET, DELTA)
    except LedgerError:
        return True
    return False


def cuts(data: bytes) -> Iterator[bytes]:
    """Every shorter beginning."""
    return (data[:length] for length in range(len(data)))


def flips(data: bytes) -> Iterator[bytes]:
    """One bit of every byte turned."""
    return (data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :] for place in range(len(data)))


def accepted(folder: Path, whole: dict[str, bytes]) -> dict[str, int]:
    """How many damaged copies were tried, and how many of them opened."""
    told = {}
    for name, data in whole.items():
        for kind, copies in (("cut", cuts(data)), ("changed", flips(data))):
            tried = opened = 0
            for copy in copies:
                for other, content in whole.items():
                    (folder / other).write_bytes(copy if other == name else content)
                tried, opened = tried + 1, opened + (not refused(folder / "ledger.jsonl"))
            told |= {f"{name}_{kind}": tried, f"{name}_{kind}_accepted": opened}
    return told


def main() -> int:
    """Kill, cut, change, and tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    draw = random.Random(arguments.seed)  # noqa: S311 - the moments of the kills
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "ledger.jsonl"
        truth = below = reset = held = 0
        for number in range(arguments.kills):
            before = held
            truth += (announced := killed(path, draw, number))
            held = len(Ledger(path, "clinic", "site", BUDGET, DELTA))
            below += held < before + announced
            reset += held > before + announced + 1 or held < before
        spent = Ledger(path, "clinic", "site", BUDGET, DELTA).spent()
        true = Accountant(discrete=True, charges=[Charge(NOISE, 1.0, truth)]).epsilon(DELTA)
        told: dict[str, object] = {
            "kills": arguments.kills,
            "announced_charges": truth,
            "charges_held": held,
            "times_below_the_truth": below,
            "times_reset_or_made_up": reset,
            "epsilon_of_what_was_announced": true,
            "epsilon_told": spent,
        }
        folder = Path(scratch) / "copies"
        small = folder / "ledger.jsonl"
        for number in range(5):
            Ledger(small, "clinic", "site", BUDGET, DELTA).charge(NOISE, 1.0, 1, study="study", round=number, attempt=0)
        whole = {name: (folder / name).read_bytes() for name in ("ledger.jsonl", "ledger.jsonl.head")}
        damaged = accepted(folder, whole)
    sys.stdout.write(json.dumps({**told, **damaged}, indent=2) + "\n")
    wrong = below or reset or spent < true or any(damaged[key] for key in damaged if key.endswith("accepted"))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
