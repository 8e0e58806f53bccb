"""Rounds between one provider and many sites: messages, the site's gate, stages, aggregation.

Simulation and network run the code in here; only the transport, one method, differs.
"""
