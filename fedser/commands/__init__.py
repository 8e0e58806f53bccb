"""The commands of ``fedser``, one file a group. Heavy imports stand inside the functions: ``--help`` is quick."""
