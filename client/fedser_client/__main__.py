"""``python -m fedser_client``."""

from __future__ import annotations

from fedser_client.cli import main

if __name__ == "__main__":
    main()
