"""Recordings to features: reading, corpora, manifests, quality, segmentation, features, normalisation, cache."""
