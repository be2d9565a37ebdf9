"""A page about a test: report.html."""
