"""``python -m fedser_server``."""

from .cli import main

main()
