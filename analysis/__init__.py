"""Records -> one tidy frame -> tables, figures, statistics, report. Reads the store; imports no torch."""
