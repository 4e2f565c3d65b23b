"""Random hostile clients for both protocols; `python -m bench.fuzz` runs them."""
