"""The page that a browser sees over a model, a cache or both: `application.mount_pages`.

`static/` has it whole: one HTML document, its style and modules of plain JavaScript, that nothing
builds. It asks the server that it came from for everything, and nobody else for anything.
"""
