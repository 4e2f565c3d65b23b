"""What Trio does while it runs: its scheduler's insides, and traces of tasks."""
