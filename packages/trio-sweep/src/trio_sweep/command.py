"""The command `trio-sweep`."""


def main() -> int:
    """Run the command."""
    raise NotImplementedError
