"""The axes of a method, one file each: target, predictor, gradient, pairing, distance."""
