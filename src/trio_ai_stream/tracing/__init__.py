"""What Trio does while the server runs, as a trace of its tasks."""
