"""What a run leaves for its reader: heat maps of attention and one self-contained page."""

from nmt.report.heatmap import draw, figure
from nmt.report.page import Report, ReportSentence, SplitReport, write_page

__all__ = ["Report", "ReportSentence", "SplitReport", "draw", "figure", "write_page"]
