"""Hypercorn: its launch, the guard around its connections, and the drain."""
