"""``python -m fedser_client``."""

from .cli import main

main()
