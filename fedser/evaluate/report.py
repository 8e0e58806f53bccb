"""Reports: one HTML file a run, that opens offline and asks nobody for anything.

``write_report`` reads what a run left in its folder (``results.json``, or ``results.csv`` of a benchmark) and
writes ``report.html`` beside it, with the figures once more as ``figures/*.svg``, and the card of an adapted model.
Whatever sections the results have are rendered. All text is escaped: the name of a corpus or a folder cannot become
markup, and a content security policy in the file forbids scripts and network access.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from fedser import __version__
from fedser.errors import UsageError
from fedser.evaluate import card, view_adapt, view_bench, view_simulation
from fedser.evaluate.pages import Drawing, Page
from fedser.files import write_text

VIEWS: Mapping[str, Callable[[Mapping[str, Any]], Page]] = {
    "simulation": view_simulation.view,
    "adapt": view_adapt.view,
    "withdrawal": view_adapt.departed,
}
CARD = "model_card.md"
_LARGEST = 64_000_000  # bytes; a results file is text of a few kilobytes
_HINT = "Name the --out folder of fedser simulate, adapt, bench or demo."


def write_report(run_dir: Path) -> Path:
    """Write ``report.html`` and ``figures/*.svg`` into a run's folder; the same results give the same bytes.

    An adapted model gets its ``model_card.md`` too.

    Args:
        run_dir: the ``--out`` folder of a run.

    Returns:
        The report's path.

    Raises:
        UsageError: the folder is no run's, or its results are damaged.
        OutputError: the folder cannot be written.
    """
    page = _page(run_dir)
    path = run_dir / "report.html"
    drawings = {
        block.name: str(block.svg)
        for section in page.sections
        for block in section.blocks
        if isinstance(block, Drawing)
    }
    for name, svg in {**drawings, **page.files}.items():
        write_text(run_dir / "figures" / f"{name}.svg", svg)
    write_text(path, render(page))
    results = _json(run_dir / "results.json") if (run_dir / "results.json").is_file() else {}
    if results.get("kind") == "adapt":
        told = view_adapt.cautions(results, results.get("metrics") or {})
        write_text(run_dir / CARD, card.text(results, told))
    return path


def attach(run_dir: Path, attacks: Sequence[Mapping[str, str]]) -> None:
    """Put the attack lab's rows among the results of an adapted model, for its report and its card.

    Raises:
        UsageError: the folder holds no adapted model.
        OutputError: the results cannot be written.
    """
    path = run_dir / "results.json"
    results = _json(path) if path.is_file() else {}
    if results.get("kind") != "adapt":
        raise UsageError(f"{run_dir} holds no adapted model.", "Attacks go into the report of an adapted model.")
    found = {**results, "attacks": [dict(row) for row in attacks]}
    write_text(path, json.dumps(found, indent=1, ensure_ascii=False), mode=0o600)


def render(page: Page) -> str:
    """A page as HTML; every text in it is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("fedser.evaluate", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    footer = page.footer or f"Made by fedser {__version__}. This file loads nothing from anywhere."
    return environment.get_template("report.html").render(page=page, footer=footer)


def _page(run_dir: Path) -> Page:
    """Read a run's results and arrange them."""
    path = run_dir / "results.json"
    if not path.is_file():
        table, manifest = run_dir / "results.csv", run_dir / "manifest.json"
        if table.is_file() and manifest.is_file():
            return _bench(table, manifest)
        there = "holds no results" if run_dir.is_dir() else "does not exist"
        raise UsageError(f"{run_dir} {there}.", _HINT)
    results = _json(path)
    view = VIEWS.get(str(results.get("kind")))
    if view is None:
        raise UsageError(f"{path} is of a kind that this version does not know: {results.get('kind')!r:.40}.", _HINT)
    try:
        return view(results)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise _damaged(path, error) from None


def _bench(table: Path, manifest: Path) -> Page:
    try:
        with table.open(newline="", encoding="utf-8") as lines:
            rows = [row for row in csv.DictReader(lines) if None not in row and None not in row.values()]
        if not rows:
            raise UsageError(f"{table} has no finished cell yet.", "Let fedser bench finish first.")
        return view_bench.view(_json(manifest), rows)
    except (OSError, csv.Error, KeyError, ValueError) as error:
        raise _damaged(table, error) from None


def _json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _LARGEST:
            raise ValueError("too large")
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(path, error) from None
    if not isinstance(values, dict):
        raise _damaged(path, ValueError("no JSON object"))
    return values


def _damaged(path: Path, error: Exception) -> UsageError:
    reason = " ".join(str(error).split())[:120] or type(error).__name__
    return UsageError(f"{path} is damaged: {reason}.", "Run the command that made it once more.")
