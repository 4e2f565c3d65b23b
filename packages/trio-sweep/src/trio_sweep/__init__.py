"""Cancel any Trio program at every point at which a cancel can land."""
