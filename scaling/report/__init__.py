"""Reports: fits and results become figures, tables, text and one self-contained page.

`inputs` collects what a report shows, `sections` and `parts` make its figures and tables, `summary`
its sentences; `page` writes it, `terminal` prints. matplotlib and jinja2 are loaded when
something is drawn, never on import.
"""
