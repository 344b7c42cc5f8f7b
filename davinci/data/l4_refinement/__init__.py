"""Darwin Level L4, generative refinement: the same content, written better, document by document."""
