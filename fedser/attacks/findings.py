"""What an attack found, and whether a bar is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

Role = Literal["control", "bar", "figure"]


@dataclass(frozen=True)
class Finding:
    """One figure.

    Attributes:
        attack: which attack.
        setting: none, default or private.
        where: what the attacker looked at: rounds and layers.
        measure: what the value is.
        value: as measured.
        low, high: 95 % interval by bootstrap over what was attacked; None where the value is a count.
        chance: what an attacker without anything reaches.
        n: sites, decisions or inputs that were attacked.
        role: a ``control`` must reach its limit, a ``bar`` may not exceed it, a ``figure`` has none.
        limit: see there.
        judge: whether a bar judges the ``value``, or the ``low`` end of its interval.
    """

    attack: str
    setting: str
    where: str
    measure: str
    value: float
    chance: float
    n: int
    low: float | None = None
    high: float | None = None
    role: Role = "figure"
    limit: float | None = None
    judge: Literal["value", "low"] = "value"

    @property
    def kept(self) -> bool | None:
        """Whether the limit is kept; None without one."""
        if self.limit is None or self.role == "figure":
            return None
        if self.role == "control":
            return self.value >= self.limit
        judged = self.low if self.judge == "low" and self.low is not None else self.value
        return judged <= self.limit

    def row(self) -> dict[str, Any]:
        """As plain values, with the verdict."""
        return asdict(self) | {"kept": self.kept}


def missed(findings: Sequence[Finding], role: Role) -> list[Finding]:
    """Those of a role that miss their limit."""
    return [finding for finding in findings if finding.role == role and finding.kept is False]


def sentence(finding: Finding) -> str:
    """One line about a missed limit."""
    limit = finding.limit if finding.limit is not None else float("nan")
    return (
        f"{finding.attack} ({finding.setting}, {finding.where}): {finding.measure} {finding.value:.3g}, "
        f"{'at least' if finding.role == 'control' else 'at most'} {limit:.3g} asked for"
    )
