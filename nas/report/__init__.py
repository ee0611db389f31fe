"""The report of a run: one HTML file that needs nothing else.

A run's folder is read into plain values (`reading`; `searches`, `trimmings`, `trainings`, `compressions` for each kind of
run), figures are described in Vega-Lite (`figures`), and `page` makes one file of them.
"""
