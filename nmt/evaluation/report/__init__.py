"""What a test set leaves for its reader: heat maps of attention and one self-contained page."""

from nmt.evaluation.report.heatmap import draw, figure
from nmt.evaluation.report.page import Report, SplitReport, write_page
from nmt.evaluation.report.sentence_browser import Browser, ReportSentence

__all__ = ["Browser", "Report", "ReportSentence", "SplitReport", "draw", "figure", "write_page"]
