"""One stream's life: lifecycle, budgets, relay, registry, outcome."""
