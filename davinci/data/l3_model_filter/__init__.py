"""Darwin Level L3, filtering by a trained model."""
