"""The APIs that clients speak, each a module of data and small pure functions."""
