"""Autoencoders that learn to reconstruct normal images; so far the network of the seed."""
