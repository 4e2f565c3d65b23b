"""Limits and streams shared by workers and hosts, in Valkey or Redis."""
