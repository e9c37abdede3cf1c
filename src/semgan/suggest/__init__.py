"""What to label next: unlabelled images ranked by what a model would gain from their masks.

`candidates` says who may be chosen, `measures` what a model thinks of every image, `selection` picks (pure arithmetic),
`run` is the verb. No mask is opened anywhere: those of unlabelled images do not exist yet, and those of labelled
ones are not needed.
"""
