"""The units and container files name commands and options that exist, and keep what they promise."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import fedser_client.cli
import fedser_server.cli
import pytest
import typer

ROOT = Path(__file__).parents[2]
UNITS = [ROOT / "server" / "fedser-server.service", ROOT / "client" / "fedser-client.service"]
CONTAINERS = [ROOT / "server" / "Containerfile", ROOT / "client" / "Containerfile"]
APPS = {"fedser-server": fedser_server.cli.app, "fedser-client": fedser_client.cli.app}


def settings(unit: Path) -> dict[str, str]:
    lines = (line.partition("=") for line in unit.read_text().splitlines() if "=" in line and line[0] not in "#;")
    return {name: value for name, _, value in lines}


def joined(text: str) -> str:
    """Comments and continued lines as running text."""
    plain = re.sub(r"(?m)^#\s?", "", text)
    return re.sub(r"\\\n\s*", " ", plain)


def commands(text: str) -> list[list[str]]:
    """Every call of a node's command in a file: its program and its words."""
    found = [shlex.split(match) for match in re.findall(r"fedser-(?:server|client) (?:[a-z]+ )[^\n]*", joined(text))]
    found = [words for words in found if words[1] in {"invite", "start", "join", "run"}]
    entry = re.search(r'ENTRYPOINT \["([a-z-]+)"\]\nCMD \[(.*)\]', text)
    if entry:
        found.append([entry[1], *re.findall(r'"([^"]*)"', entry[2])])
    return found


@pytest.mark.parametrize("path", [*UNITS, *CONTAINERS], ids=lambda path: path.name + " of " + path.parent.name)
def test_every_command_and_option_exists(path: Path) -> None:
    calls = commands(path.read_text())
    assert calls
    for program, name, *words in calls:
        group = typer.main.get_command(APPS[program])
        assert isinstance(group, click.Group)
        known = {option for parameter in group.commands[name].params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known, (program, name)


def test_a_made_up_option_is_noticed() -> None:
    assert commands("ExecStart=/opt/fedser/bin/fedser-client run --state x --nonsense\n") == [
        ["fedser-client", "run", "--state", "x", "--nonsense"]
    ]


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_the_units_lock_the_node_in(unit: Path) -> None:
    found = settings(unit)
    expected = {
        "ProtectSystem": "strict",
        "ProtectHome": "yes",
        "PrivateTmp": "yes",
        "NoNewPrivileges": "yes",
        "CapabilityBoundingSet": "",
        "StateDirectoryMode": "0700",
        "UMask": "0077",
        "SuccessExitStatus": "143",
    }
    assert {name: found.get(name) for name in expected} == expected
    assert found["User"] == unit.stem


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_systemd_accepts_the_units(unit: Path, tmp_path: Path) -> None:
    copy = tmp_path / unit.name
    copy.write_text(re.sub(r"(?m)^ExecStart=\S+", f"ExecStart={sys.executable}", unit.read_text()))
    done = subprocess.run(["systemd-analyze", "verify", str(copy)], capture_output=True, text=True, check=False)
    if "Failed to" in done.stderr and "initialize" in done.stderr:
        pytest.skip(f"systemd-analyze does not run here: {done.stderr.strip()[:200]}")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("path", CONTAINERS, ids=lambda path: path.parent.name)
def test_the_images_hold_no_secret_and_no_root(path: Path) -> None:
    text = path.read_text()
    final = text.rsplit("\nFROM ", 1)[1]
    assert re.search(r"^USER fedser$", final, re.MULTILINE)
    assert re.search(r"^VOLUME /state$", final, re.MULTILINE)
    copied = [words for line in re.findall(r"^COPY (.*)$", text, re.MULTILINE) for words in line.split()[:-1]]
    sources = {"pyproject.toml", "README.md", "LICENSE", "fedser", "server/fedser_server", "client/fedser_client"}
    assert set(copied) <= sources | {"--from=build", "/opt/fedser"}
    assert all((ROOT / source).exists() for source in sources)
