"""Flower's protocol, and the only place that imports flwr: everything in here leans on one minor release.

``environment`` must be prepared before anything else is imported: Flower reads its switches at import.

- ``letter``: the project's messages inside Flower's, one way to write them.
- ``credentials``: who calls; each signed header once.
- ``binding``: what one site may do on the provider's routes, and nothing more.
- ``mailroom`` and ``routes``: a provider's side of the rounds.
- ``site``: the line, a site's side.
"""
