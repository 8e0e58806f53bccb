"""The registry of methods: explicit, so that a name from a file or the wire can only choose among these."""

from __future__ import annotations

from collections.abc import Mapping

from fedser.adapt.aad import Aad
from fedser.adapt.bn import Bn
from fedser.adapt.dine import Dine
from fedser.adapt.ecan import Ecan
from fedser.adapt.fedser import Fedser
from fedser.adapt.gsfda import Gsfda
from fedser.adapt.logreg import Logreg
from fedser.adapt.logreg_self import LogregSelf
from fedser.adapt.method import Method
from fedser.adapt.nrc import Nrc
from fedser.adapt.shot import Shot
from fedser.adapt.source import Source
from fedser.adapt.tent import Tent
from fedser.config import validate
from fedser.errors import UsageError, did_you_mean

METHODS: dict[str, type[Method]] = {
    "source": Source,
    "bn": Bn,
    "tent": Tent,
    "shot": Shot,
    "gsfda": Gsfda,
    "nrc": Nrc,
    "aad": Aad,
    "dine": Dine,
    "logreg": Logreg,
    "logreg_self": LogregSelf,
    "ecan": Ecan,
    "fedser": Fedser,
}


def make(name: str, options: Mapping[str, object] | None = None) -> Method:
    """Build a method by name, with options that its settings know.

    Raises:
        UsageError: there is no method of this name.
        ConfigError: an option is unknown to the method or out of range.
    """
    if name not in METHODS:
        meant = did_you_mean(name.lower().replace("-", "_"), METHODS)
        raise UsageError(f"There is no method '{name}'.{meant}", f"Choose one of {', '.join(METHODS)}.")
    kind = METHODS[name]
    return kind(validate(kind.settings_type, dict(options or {}), f"the options of the method {name}"))
