"""The figures of a model, and the page that shows them."""
