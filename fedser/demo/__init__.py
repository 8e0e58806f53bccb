"""Synthetic emotional speech and the demonstration that needs no download."""
