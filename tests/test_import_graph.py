"""Imports run downward only, and no module opens a way around."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Lower numbers are deeper. A module may import its own layer or a deeper one.
LAYERS = {
    "fedser.errors": 0,
    "fedser.config": 0,
    "fedser.files": 0,
    "fedser.lockfile": 0,
    "fedser.console": 0,
    "fedser.compute": 0,
    "fedser.provenance": 0,
    "fedser.audio": 1,
    "fedser.losses": 1,
    "fedser.pretrained": 1,
    "fedser.models": 2,
    "fedser.bundle": 3,
    "fedser.adapt": 4,
    "fedser.train": 4,
    "fedser.privacy": 5,
    "fedser.federation": 6,
    "fedser.transfer": 7,  # above the federation, which may not know it
    "fedser.evaluate": 7,
    "fedser.attacks": 8,
    "fedser.demo": 8,
    "fedser.commands": 9,
    "fedser.cli": 10,
}

FORBIDDEN = {"socket", "ssl", "http", "urllib", "requests", "httpx", "aiohttp", "grpc", "pickle", "marshal", "shelve"}
# What only the nodes, and the adapter that speaks for them, may import.
NETWORK = {"socket", "ssl", "httpx"}
FLOWERS = {"flwr", "google", "fastapi"}


def unit(module: str) -> str | None:
    """The named part of the map that a module belongs to."""
    parts = module.split(".")
    for length in (2, 1):
        name = ".".join(parts[:length])
        if name in LAYERS:
            return name
    return None


def imports(source: str, package: str) -> set[str]:
    """All modules that a source text imports, at the top or inside functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.rsplit(".", node.level - 1)[0] if node.level > 1 else package
            origin = node.module or "" if node.level == 0 else f"{base}.{node.module or ''}".rstrip(".")
            found.add(origin)
            found.update(f"{origin}.{alias.name}" for alias in node.names)
    return found


def modules() -> list[tuple[str, Path]]:
    found = []
    for top in (ROOT / "fedser", ROOT / "server" / "fedser_server", ROOT / "client" / "fedser_client"):
        for path in sorted(top.rglob("*.py")):
            parts = path.relative_to(top.parent).with_suffix("").parts
            found.append((".".join(parts[:-1] if parts[-1] == "__init__" else parts), path))
    return found


def upward(module: str, source: str) -> list[str]:
    """Imports of ``source`` that leave the allowed direction."""
    package = module if module.count(".") == 0 else module.rsplit(".", 1)[0]
    wrong = []
    own = unit(module)
    for target in imports(source, package):
        below = unit(target)
        if own and below and LAYERS[below] > LAYERS[own]:
            wrong.append(f"{module} imports {target}")
        if module.startswith("fedser_server") and target.startswith("fedser_client"):
            wrong.append(f"{module} imports {target}")
        if module.startswith("fedser_client") and target.startswith("fedser_server"):
            wrong.append(f"{module} imports {target}")
        if target.split(".")[0] in FLOWERS and not module.startswith("fedser.federation.flower"):
            wrong.append(f"{module} imports {target}: it belongs into fedser.federation.flower")
        if own == "fedser.losses" and target.startswith("fedser") and below != "fedser.losses":
            wrong.append(f"{module} imports {target}: losses know only torch")
        allowed = (
            NETWORK if module.startswith(("fedser.federation.flower", "fedser_server", "fedser_client")) else set()
        )
        if target.split(".")[0] in FORBIDDEN - allowed:
            wrong.append(f"{module} imports {target}")
    return wrong


@pytest.mark.parametrize(("module", "path"), modules(), ids=[name for name, _ in modules()])
def test_imports_run_downward(module: str, path: Path) -> None:
    assert upward(module, path.read_text(encoding="utf-8")) == []


def test_every_library_module_has_a_place_on_the_map() -> None:
    homeless = [name for name, _ in modules() if name.startswith("fedser.") and unit(name) is None]
    assert homeless == []


def test_an_upward_import_is_noticed() -> None:
    assert upward("fedser.losses.new", "def f():\n    from fedser.adapt import loop\n")
    assert upward("fedser.audio.new", "from fedser.evaluate import report\n")
    assert upward("fedser.adapt.new", "import flwr.client\n")
    assert upward("fedser_server.new", "import fedser_client\n")


def test_help_needs_neither_torch_nor_flower() -> None:
    code = "import fedser.cli, sys; print([m for m in ('torch', 'flwr', 'sklearn', 'numpy') if m in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"
