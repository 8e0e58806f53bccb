"""The references stay with the provider: neither the federation nor a node's process can reach them."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from fedser.adapt import METHODS
from fedser.adapt import make as make_method
from fedser.errors import UsageError
from fedser.transfer import REFERENCES

ROOT = Path(__file__).parents[2]
WALLED = ("fedser.federation", "fedser.adapt", "fedser.bundle", "fedser.privacy", "fedser_server", "fedser_client")


def modules() -> dict[str, Path]:
    found = {}
    for top in (ROOT / "fedser", ROOT / "server" / "fedser_server", ROOT / "client" / "fedser_client"):
        for path in top.rglob("*.py"):
            parts = path.relative_to(top.parent).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(name: str, path: Path, source: str | None = None) -> set[str]:
    """All names that a module imports, inside functions too; parents of a name are imported with it."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found: set[str] = set()
    for node in ast.walk(ast.parse(source or path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
            origin = ".".join(part for part in (above, node.module) if part)
            found |= {origin} | {f"{origin}.{alias.name}" for alias in node.names}
    return {".".join(name.split(".")[:length]) for name in found for length in range(1, name.count(".") + 2)}


def within(name: str, packages: tuple[str, ...]) -> bool:
    return name.startswith(tuple(f"{package}." for package in packages)) or name in packages


def test_nothing_that_a_node_can_reach_imports_them() -> None:
    known = modules()
    todo = [name for name in known if within(name, WALLED)]
    assert len(todo) > 60
    reached: set[str] = set()
    while todo:
        name = todo.pop()
        if name not in reached:
            reached.add(name)
            todo += [other for other in imported(name, known[name]) if other in known]
    assert sorted(name for name in reached if within(name, ("fedser.transfer",))) == []
    assert "fedser.evaluate.view_left" in reached  # what nodes share with evaluation is looked through as well


def test_such_an_import_would_be_noticed() -> None:
    path = ROOT / "fedser" / "federation" / "new.py"
    for source in (
        "from fedser.transfer import transfer",
        "def f():\n    from .. import transfer",
        "import fedser.transfer.dann",
    ):
        assert "fedser.transfer" in imported("fedser.federation.new", path, source)


@pytest.mark.parametrize("node", ["fedser_server", "fedser_client"])
def test_a_nodes_process_with_all_its_modules_loads_none_of_them(node: str) -> None:
    code = (
        "import importlib, pkgutil, sys\n"
        f"import {node}\n"
        f"for module in pkgutil.walk_packages({node}.__path__, '{node}.'):\n"
        "    if not module.name.endswith('__main__'):\n"
        "        importlib.import_module(module.name)\n"
        "print(sorted(name for name in sys.modules if name.startswith('fedser.transfer')), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[] True"


@pytest.mark.parametrize("name", REFERENCES)
def test_no_order_can_name_one(name: str) -> None:
    assert name not in METHODS
    with pytest.raises(UsageError, match=f"no method '{name}'"):
        make_method(name)
