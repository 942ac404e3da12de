"""From parameters to a result file: typed run configurations, papermill runs, what a run records."""
