"""The papers' exact claims as functions on the theory: one file a paper, one function a claim.

A function takes keyword literals and gives a `stopgrad.experiments.schema.Result`.
"""
