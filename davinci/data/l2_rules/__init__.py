"""Darwin Level L2, rules: what is dropped for a stated reason that needs no model."""
