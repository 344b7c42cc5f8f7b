"""A sweep's report: its files, its page, and the index over all sweeps."""

from analysis.findings import Findings, study, verdict_text
from analysis.report.files import save_timeline, write
from analysis.report.page import page

__all__ = ["Findings", "page", "save_timeline", "study", "verdict_text", "write"]
