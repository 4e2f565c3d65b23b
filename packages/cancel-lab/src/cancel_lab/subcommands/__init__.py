"""One module per command of the instrument: its arguments, and what it runs."""
