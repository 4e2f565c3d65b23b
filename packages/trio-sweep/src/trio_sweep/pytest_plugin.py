"""The pytest marker `cancel_everywhere`."""
