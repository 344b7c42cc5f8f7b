"""Darwin Level L5, cognitive completion: what a document leaves implicit made explicit, and checked where it can be."""
