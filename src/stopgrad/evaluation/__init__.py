"""Evaluation: embedding images, measuring vectors, kNN and linear probes."""
