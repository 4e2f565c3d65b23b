"""Cancellation in a server of the Model Context Protocol, measured from outside."""
