"""``semgan synth``: labelled synthetic data from a trained generator, filtered, balanced and restyled.

    plan.py       what was asked for, checked
    factory.py    pairs drawn from the model, with what is measured of each
    rules.py      which pairs are kept: limits fitted once to a fixed sample, then a function of each pair alone
    layouts.py    the folder as images and masks, as a dataset folder (nnU-Net's layout), as COCO
    run.py        the story: draw, judge, write, go on after a stop, extend
"""
