"""The starter set: training data, networks and training loops, from synthetic humans only."""
