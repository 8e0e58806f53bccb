"""The attack lab's results, as rows that a model card can hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fedser.attacks.findings import Finding
from fedser.attacks.report import SETTINGS, TITLES, cells
from fedser.errors import UsageError

_HINT = "Name the results.json that fedser attack wrote, or its folder."
_LARGEST = 16_000_000  # bytes


def rows(results: Path) -> list[dict[str, Any]]:
    """What a card tells of a run: each control, each figure that a bar judges, and its undefended twin.

    Args:
        results: ``results.json`` of a run, or its folder.

    Returns:
        For each figure ``attack`` (a title), ``setting``, ``where``, ``measure``, ``value``, ``interval``, ``chance``,
        ``limit`` and ``kept``, all text as in the tables; and ``command``, ``git`` and ``created`` of the run.

    Raises:
        UsageError: no results of the attack lab, or damaged ones.
    """
    path = results / "results.json" if results.is_dir() else results
    try:
        if path.stat().st_size > _LARGEST:
            raise ValueError("too large")
        read = json.loads(path.read_text(encoding="utf-8"))
        if read["kind"] != "attack" or read["schema"] != 1:
            raise ValueError("of another kind")
        findings = [_finding(row) for row in read["findings"]]
        run = {key: str(read[key] or "") for key in ("command", "git", "created")}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise UsageError(f"{path} holds no results of the attack lab: {reason}.", _HINT) from None
    judged = {(one.attack, _place(one)) for one in findings if one.role != "figure"}
    kept = [one for one in findings if (one.attack, _place(one)) in judged]
    return [_row(one) | run for one in kept]


def _finding(row: dict[str, Any]) -> Finding:
    if row["attack"] not in TITLES or row["setting"] not in SETTINGS:
        raise ValueError("an attack or setting that is not known")
    return Finding(**{name: value for name, value in row.items() if name != "kept"})


def _place(finding: Finding) -> str:
    """Where the attacker looked, without the code by which a site refused."""
    return finding.where.partition("; refused")[0]


def _row(finding: Finding) -> dict[str, str]:
    setting, where, measure, value, spread, chance, count, limit, kept = cells(finding.row())
    return {
        "attack": TITLES[finding.attack],
        "setting": setting,
        "where": where,
        "measure": measure,
        "value": value,
        "interval": spread,
        "chance": chance,
        "of": count,
        "limit": limit,
        "kept": kept,
    }
