"""Tier 1: every cause in every phase over every transport, on this server itself."""
