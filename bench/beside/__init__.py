"""Resuming beside npm's resumable-stream."""
