"""``semgan segment`` on archives: millions of images, in units that any number of processes share through a folder.

inputs    what is to be segmented: folders, manifests, tar shards, by path or address, as streams
plan      the list of inputs, frozen and cut into units
unit      one unit: claimed, its results gathered in a tar and two tables, put in place whole
pipeline  decoding, network and writing at the same time, a few batches waiting between them
tables    the tables of all units as one
run       the verb

    OUT/archive.json            what was asked: model, inputs, options, number of units
    OUT/inputs.jsonl, units.csv the inputs, frozen: [name, address] per line; unit, offset in bytes, lines
    OUT/units/UNIT/             results of one unit: masks.tar (NAME.png), rows.csv, problems.csv, unit.json
    OUT/open/UNIT/              who works on it, and what is not complete; gone at the end
    OUT/segmentation.csv        the rows of all units: stem, unit, steps, confidence, losses, signals and trust, seconds
    OUT/problems.csv            stem, unit, source, problem: what could not be segmented, where there is any
    OUT/summary.json            counts; flagged: images to look at, where the model's trust was fitted

A unit is done when its folder has its final name. Renaming a folder onto one that is there fails, so that of two that
finish the same unit one is kept: exactly one result, whatever the claims do.
"""
