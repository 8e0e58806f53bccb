"""Typed settings: frozen pydantic models, YAML files, ``key=value`` overrides.

A configuration is validated once, where it enters the program, and passed on as an object. Unknown keys
are refused, with the nearest known key as a suggestion.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from fedser.errors import ConfigError


def listed(value: object) -> object:
    """Accept ``a,b,c`` from the command line beside a YAML list."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _seeds(value: object) -> object:
    """Accept a number of seeds (0 … n-1) beside a list of seeds."""
    return list(range(value)) if isinstance(value, int) and not isinstance(value, bool) else listed(value)


Names = Annotated[tuple[str, ...], BeforeValidator(listed), Field(min_length=1)]
Seeds = Annotated[tuple[int, ...], BeforeValidator(_seeds), Field(min_length=1)]


class Settings(BaseModel):
    """Base of every group of settings: immutable, and unknown keys are an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


S = TypeVar("S", bound=Settings)


def validate(kind: type[S], values: object, origin: str = "the configuration") -> S:
    """Build settings from plain values.

    Raises:
        ConfigError: naming each key that does not fit, and what would.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_sentence(kind, error, origin), "Correct these keys; see docs/configuration.md.") from None


def load(kind: type[S], path: Path | None, overrides: Sequence[str] = ()) -> S:
    """Read settings from a YAML file and apply dotted ``key=value`` overrides (values are YAML too).

    Args:
        kind: of the settings.
        path: the file; None where the overrides are all there is.
        overrides: applied in their order.

    Raises:
        ConfigError: the file cannot be read, is not a mapping, or a key does not fit.
    """
    values = {} if path is None else _mapping(path)
    for override in overrides:
        assign(values, override)
    return validate(kind, values, "the command line" if path is None else str(path))


def _mapping(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {_reason(error)}.", "Name an existing YAML file.") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}.", "Correct the file.") from None
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise ConfigError(f"{path} does not hold a mapping of keys to values.", "Write lines of the form 'key: value'.")
    return values


def assign(values: dict[str, Any], override: str) -> None:
    """Set one dotted key of nested mappings in place, as ``a.b=3`` says; the value is YAML.

    Raises:
        ConfigError: it is no ``key=value``, or a key above already holds a value.
    """
    key, separator, text = override.partition("=")
    if not separator or not key.strip():
        raise ConfigError(f"'{override}' is not an override.", "Write key=value, for instance rounds=5.")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"The value of '{override}' is not YAML.", "Quote it, or write a plain value.") from None
    *parents, leaf = key.strip().split(".")
    place = values
    for parent in parents:
        below = place.setdefault(parent, {})
        if not isinstance(below, dict):
            raise ConfigError(f"'{parent}' in '{override}' holds a value, not further keys.", "Correct the dotted key.")
        place = below
    place[leaf] = value


def _sentence(kind: type[BaseModel], error: ValidationError, origin: str) -> str:
    problems = []
    for item in error.errors():
        where = ".".join(str(part) for part in item["loc"]) or "the whole"
        if item["type"] == "extra_forbidden":
            near = difflib.get_close_matches(str(item["loc"][-1]), _keys(kind), n=1)
            problems.append(f"unknown key '{where}'" + (f" (did you mean '{near[0]}'?)" if near else ""))
        else:
            problems.append(f"'{where}': {item['msg'][0].lower()}{item['msg'][1:]}")
    return f"{origin} does not fit: " + "; ".join(problems) + "."


def _keys(kind: type[BaseModel]) -> list[str]:
    """All field names of a settings class and of the settings inside it."""
    names: list[str] = []
    for name, field in kind.model_fields.items():
        names.append(name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            names.extend(_keys(field.annotation))
    return names


def _reason(error: Exception) -> str:
    return error.strerror.lower() if isinstance(error, OSError) and error.strerror else str(error)
