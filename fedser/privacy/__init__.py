"""Differential privacy, the budget ledger and masked sums."""
