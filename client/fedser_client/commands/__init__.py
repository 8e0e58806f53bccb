"""The subcommands of ``fedser-client``: each reads its options and calls what does the work."""
