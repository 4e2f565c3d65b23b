"""Raw clients that misbehave on purpose and note the instant at which they did."""
