"""Reports about a test set: heat maps of attention and one self-contained page."""

from nmt.evaluation.report.heatmap import plot_heatmap, save_heatmap
from nmt.evaluation.report.page import ReportData, SplitStats, write_page
from nmt.evaluation.report.sentence_browser import ReportSentence, SentenceBrowser

__all__ = [
    "ReportData",
    "ReportSentence",
    "SentenceBrowser",
    "SplitStats",
    "plot_heatmap",
    "save_heatmap",
    "write_page",
]
