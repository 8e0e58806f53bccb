"""A site's state on disk: one owner-only safetensors file that is replaced in one step.

Tensors: ``own/NAME``, ``before/NAME``, ``personal/NAME`` and ``teacher/NAME`` (see
:class:`~fedser.federation.stages.SiteState`), and ``reply``, the last answer's bytes as uint8. The one metadata entry
``fedser`` is canonical JSON: the schema version, the figures of the state, and a SHA-256 over them and every tensor, so
that a damaged file is noticed, not used.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field, ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fedser.config import Settings
from fedser.errors import StateError
from fedser.federation.stages import SiteState
from fedser.files import write_tensors

SCHEMA: Literal[1] = 1
_ENTRY = "fedser"
_GROUPS = ("own", "before", "personal", "teacher")
_Count = Annotated[int, Field(ge=0, le=2**53)]


class _Figures(Settings):
    """The metadata entry."""

    schema_version: Literal[1]
    study: str
    round: _Count
    attempt: _Count
    rounds: _Count
    order_digest: str
    sha256: str = ""


def save(path: Path, state: SiteState) -> None:
    """Write a state, owner-only; a crash leaves the old file or the new one.

    Raises:
        OutputError: the place cannot be written.
    """
    tensors = _tensors(state)
    figures = _Figures(
        schema_version=SCHEMA,
        study=state.study,
        round=state.round,
        attempt=state.attempt,
        rounds=state.rounds,
        order_digest=state.order_digest,
    )
    figures = figures.model_copy(update={"sha256": _digest(figures, tensors)})
    write_tensors(path, tensors, {_ENTRY: json.dumps(figures.model_dump(), sort_keys=True)}, 0o600)


def load(path: Path, study: str | None = None) -> SiteState | None:
    """Read a state; None where there is no file.

    Args:
        path: of the file.
        study: the one it must belong to; any when None.

    Raises:
        StateError: it cannot be read, is damaged, of another schema, or another study's.
    """
    if not path.exists():
        return None
    figures, tensors = _read(path)
    if figures.sha256 != _digest(figures, tensors):
        raise _damaged(path, "its checksum does not fit")
    if study is not None and figures.study != study:
        raise StateError(
            f"{path} belongs to the study '{figures.study}', not to '{study}'.", "Choose another state folder."
        )
    parts = {group: _group(tensors, group) for group in _GROUPS}
    return SiteState(
        study=figures.study,
        round=figures.round,
        attempt=figures.attempt,
        rounds=figures.rounds,
        order_digest=figures.order_digest,
        reply=tensors["reply"].numpy().tobytes(),
        **parts,
    )


def _tensors(state: SiteState) -> dict[str, Tensor]:
    tensors = {"reply": torch.from_numpy(np.frombuffer(state.reply, dtype=np.uint8).copy())}
    for group in _GROUPS:
        for name, tensor in getattr(state, group).items():
            tensors[f"{group}/{name}"] = tensor.detach().cpu().contiguous().clone()
    return tensors


def _group(tensors: Mapping[str, Tensor], group: str) -> dict[str, Tensor]:
    return {name.removeprefix(f"{group}/"): t for name, t in tensors.items() if name.startswith(f"{group}/")}


def _read(path: Path) -> tuple[_Figures, dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            entry = json.loads((file.metadata() or {}).get(_ENTRY, ""))
            if isinstance(entry, dict) and entry.get("schema_version") != SCHEMA:
                raise StateError(
                    f"{path} is of another schema than this version of fedser's.",
                    "Use the version that wrote it, or a new state folder.",
                )
            figures = _Figures.model_validate(entry, strict=True)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except OSError as error:
        raise StateError(f"{path} cannot be read: {error}.", "Check its permissions.") from None
    except (SafetensorError, ValidationError, ValueError, RecursionError) as error:
        raise _damaged(path, type(error).__name__) from None
    if "reply" not in tensors or tensors["reply"].dtype != torch.uint8:
        raise _damaged(path, "it holds no reply")
    return figures, tensors


def _digest(figures: _Figures, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over the figures (without the sum itself) and every tensor with its name, type and shape."""
    plain: dict[str, Any] = figures.model_dump(exclude={"sha256"})
    hashed = hashlib.sha256(json.dumps(plain, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        hashed.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        hashed.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)
    return hashed.hexdigest()


def _damaged(path: Path, reason: str) -> StateError:
    return StateError(
        f"The site's state {path} is damaged: {reason}.",
        "Restore it from a backup, or move the state folder away and join anew.",
    )
