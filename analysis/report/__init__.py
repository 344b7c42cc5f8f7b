"""A sweep's report: its files, its page, and the index over all sweeps."""

from analysis.report.files import write
from analysis.report.page import page

__all__ = ["page", "write"]
