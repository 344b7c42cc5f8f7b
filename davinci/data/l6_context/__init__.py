"""Darwin Level L6, the paper's frontier: context from linked documents, as an example."""
