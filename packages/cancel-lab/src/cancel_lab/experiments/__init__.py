"""The experiments, each from outside: they need an adapter and nothing else."""
