"""A built wheel contains the three packages and nothing else; no audio, no keys."""

from __future__ import annotations

import sys
import zipfile
from pathlib import PurePosixPath

PACKAGES = {"fedser", "fedser_server", "fedser_client"}
REFUSED = {".wav", ".flac", ".mp3", ".ogg", ".aiff", ".pem", ".key", ".pt", ".pth", ".pkl"}


def main(wheel: str) -> None:
    """Exit with a message when the wheel holds anything that it should not."""
    names = [PurePosixPath(name) for name in zipfile.ZipFile(wheel).namelist()]
    tops = {name.parts[0] for name in names}
    strangers = {top for top in tops - PACKAGES if not top.endswith(".dist-info")}
    bad = [str(name) for name in names if name.suffix in REFUSED]
    if strangers or bad or not tops >= PACKAGES:
        sys.exit(f"wheel: missing {sorted(PACKAGES - tops)}, strangers {sorted(strangers)}, refused {bad}")
    print(f"wheel: {len(names)} files in {sorted(tops & PACKAGES)}")


if __name__ == "__main__":
    main(sys.argv[1])
