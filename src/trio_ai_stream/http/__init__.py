"""Quart: routes, the connection class, and how streams and errors look to clients."""
