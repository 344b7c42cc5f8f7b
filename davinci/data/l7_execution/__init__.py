"""Darwin Level L7, the paper's frontier: items validated by running them, as an example."""
