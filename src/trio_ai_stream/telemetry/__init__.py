"""Telemetry: log records, metrics and traces."""
