"""After the fact: what is wrong with vectors in a file, a run's folder, or somebody else's checkpoint.

`stopgrad.postmortem.diagnose` is the verb; the other modules read what it judges.
"""
