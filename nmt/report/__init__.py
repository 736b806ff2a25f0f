"""What a test set leaves for its reader: heat maps of attention and one self-contained page."""

from nmt.report.browser import Browser, ReportSentence
from nmt.report.heatmap import draw, figure
from nmt.report.page import Report, SplitReport, write_page

__all__ = ["Browser", "Report", "ReportSentence", "SplitReport", "draw", "figure", "write_page"]
