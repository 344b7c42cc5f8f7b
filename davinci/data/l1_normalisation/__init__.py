"""Darwin Level L1, normalisation: markup, encodings and Unicode to plain text; nothing readable is dropped."""
