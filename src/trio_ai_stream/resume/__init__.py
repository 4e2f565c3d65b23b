"""Streams that outlive their connection, for as long as their client asked."""
