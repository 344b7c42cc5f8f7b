"""The transparency ledger: one card a sweep or run, of what its records can prove, as JSON and Markdown."""

from analysis.ledger.make import run_card, sweep_card

__all__ = ["run_card", "sweep_card"]
