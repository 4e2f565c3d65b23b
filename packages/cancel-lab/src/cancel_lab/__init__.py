"""The cancellation instrument: measures what a cancel does, in any chat server."""
