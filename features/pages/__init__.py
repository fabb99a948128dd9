"""One look for all HTML pages: `page.render` and `page.facts_table`, `plots`, and the templates.

A page holds its style, plots and pictures itself, and opens without a network.
"""
