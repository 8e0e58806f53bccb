"""A stock Flower app: clients that echo."""
