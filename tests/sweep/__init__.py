"""The sweep (tier 0): one deterministic stream, cancelled at every boundary."""
