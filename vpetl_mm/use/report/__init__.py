"""Reports on tests: report.html, and comparisons of runs."""
