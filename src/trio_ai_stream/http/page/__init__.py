"""The web page at `/`: its files, its headers, and what it needs to know."""
