"""``fedser-server``: one file a command or group of commands."""
