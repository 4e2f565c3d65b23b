"""What a sweep came to."""


class Report:
    """What a sweep came to."""
