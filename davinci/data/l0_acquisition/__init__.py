"""Darwin Level L0, acquisition: readers, one a kind of place documents come from; provenance stays with them."""
