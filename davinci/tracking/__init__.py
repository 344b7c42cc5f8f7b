"""Append-only records, the truth about training; and their W&B mirror."""
