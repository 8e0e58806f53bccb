"""The documentation's commands are run as they are written, and the reference is compared with the program."""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import click
import pytest
import typer

ROOT = Path(__file__).parents[1]
Run = Callable[..., CompletedProcess[str]]


def blocks(page: Path) -> list[str]:
    """The lines of all fenced `sh` blocks."""
    return [
        line for block in re.findall(r"```sh\n(.*?)```", page.read_text(), flags=re.S) for line in block.splitlines()
    ]


def test_the_tutorial_from_top_to_bottom(fedser: Run, speech: Path, tmp_path: Path) -> None:
    shutil.copytree(speech, tmp_path / "my_recordings")
    shutil.copytree(speech, tmp_path / "labelled")
    shutil.copy(next(speech.rglob("*.wav")), tmp_path / "new_call.wav")
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    lines = blocks(ROOT / "docs" / "tutorial.md")
    assert len(lines) >= 10
    for line in lines:
        program, *arguments = shlex.split(line)
        assert program == "fedser"
        done = fedser(*arguments, cwd=tmp_path, HOME=str(tmp_path / "home"))
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    assert (tmp_path / "adapted" / "report.html").stat().st_size > 1000
    assert (tmp_path / "runs" / "rehearsal" / "report.html").stat().st_size > 1000


@pytest.mark.parametrize("name", ["commands", "configuration"])
def test_the_reference_is_that_of_the_program(name: str) -> None:
    place = ROOT / "docs" / "reference.py"
    spec = importlib.util.spec_from_file_location("reference", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    written = (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
    assert written == getattr(module, name)(), "run: python docs/reference.py"


def test_links_between_pages_lead_somewhere() -> None:
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_command_of_the_pages_exists(fedser: Run) -> None:
    listed = fedser("--help").stdout
    for page in (ROOT / "README.md", ROOT / "docs" / "howto.md"):
        fenced = "".join(re.findall(r"```\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.S))
        names = re.findall(r"^(?:.*&& )?fedser (\w+)", fenced, flags=re.M)
        assert len(names) > 3
        for name in names:
            assert f" {name} " in listed


def test_the_reference_describes_every_argument_option_and_setting() -> None:
    for name in ("commands", "configuration"):
        for line in (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8").splitlines():
            if line.startswith("| `"):
                cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
                assert cells[1 if name == "commands" else -1], f"{name}.md: {line}"


def commands(page: Path) -> list[list[str]]:
    """The `fedser` commands of a page's fenced blocks, as argument lists; lines that go on are joined."""
    fenced = "".join(re.findall(r"```(?:sh)?\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.S))
    lines = fenced.replace("\\\n", " ").splitlines()
    found = [shlex.split(line.split("&& ")[-1], comments=True) for line in lines if re.match(r"(.*&& )?fedser ", line)]
    return [words[1:] for words in found]


@pytest.mark.parametrize("page", ["README.md", "docs/howto.md", "docs/tutorial.md"])
def test_options_and_overrides_that_the_pages_name_are_the_programs(page: str) -> None:
    from fedser.cli import app
    from fedser.config import load
    from fedser.evaluate.bench import BenchSettings
    from fedser.evaluate.simulation_settings import SimulationSettings

    found = commands(ROOT / page)
    assert len(found) >= 4
    for words in found:
        parsed = parse(typer.main.get_command(app), words)
        if words[0] in ("simulate", "bench"):
            kind = SimulationSettings if words[0] == "simulate" else BenchSettings
            load(kind, ROOT / parsed["config"], parsed["overrides"])


def test_an_unknown_option_on_a_page_would_be_noticed() -> None:
    from fedser.cli import app

    with pytest.raises(click.UsageError, match="--colour"):
        parse(typer.main.get_command(app), ["adapt", "--data", "x", "--out", "y", "--colour", "blue"])


def parse(command: click.Command, words: list[str]) -> dict[str, Any]:
    """Read the words as the program does, and do nothing."""
    if isinstance(command, click.Group):
        return parse(command.commands[words[0]], words[1:])
    return command.make_context(command.name, list(words)).params
