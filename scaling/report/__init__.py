"""The last room on the line: fits and results become figures, tables, text and one self-contained page.

`figure` describes a picture without a backend; `plots_runs` and `plots_law` make the pictures, `tables` the tables and
`summary` the sentences; `page` writes the report, `text` what the terminal shows. matplotlib, plotly.js and jinja2 are
loaded when something is drawn, never on import.
"""
