"""The theory of learning without negative pairs, as code."""
