"""Options that the provider's commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedser import console

DEFAULT_STATE = Path("fedser-provider")

StateFolder = Annotated[Path, typer.Option("--state", help="The provider's state folder; for its owner only.")]
Form = Annotated[console.Format, typer.Option("--format", help="How to print the result.")]
SiteName = Annotated[str, typer.Argument(metavar="NAME", help="The site's name.")]
