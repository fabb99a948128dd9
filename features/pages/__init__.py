"""One look for all HTML pages: `page`, and the templates.

A page holds its style, plots and pictures itself, and opens without a network.
"""
