"""Two hosts, one Valkey and faults at random; afterwards everything must add up."""
