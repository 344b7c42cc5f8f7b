"""Trains one stage node: a pure function of (parent state, node), resumable at every step."""
