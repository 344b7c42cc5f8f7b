"""The decoder of the paper at any size, and greedy generation. Knows nothing of data or training."""
