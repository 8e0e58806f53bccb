"""The benchmark: every method × pair × normalisation × protocol × target set × seed, one row of a table a cell.

A job trains one source model (source corpora, classes, features, normalisation, seed) and runs every method on
every target that shares those classes. Finished cells are not computed again: an interrupted run goes on when
it is started once more with the same folder. Jobs run in processes of one thread each.
"""

from fedser.evaluate.bench.run import run
from fedser.evaluate.bench.settings import BenchSettings, check

__all__ = ["BenchSettings", "check", "run"]
