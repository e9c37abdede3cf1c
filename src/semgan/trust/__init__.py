"""Knowing when not to trust an answer, and which of several answers to give.

signals: numbers of an answer that need no label; severities: validation images made strange, so that failures occur;
ridge: a score predicted from signals; fit: what is learned on validation and kept in trust.json of the model folder;
choice: step 0, optimised or posterior mean, per image; judge: do signals tell good answers from bad ones.
"""
