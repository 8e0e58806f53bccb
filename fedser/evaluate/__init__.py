"""Metrics, protocols, simulation, benchmark and reports."""
