#!/usr/bin/env bash
# Makes every number of results/faces-64; how to call it: results/runs.sh.
# DATA holds faces/celebamask, faces/fasseg (images/, masks/). 19 classes of CelebAMask become the paper's 8 (from_19);
# on FASSEG the 8 predicted become its 6 (to_fasseg), and the mean is over hair, eyes, nose and mouth.
TASK=faces
source "$(dirname "$0")/../runs.sh"

prepare() {
    python -c "import json; split = json.load(open('splits/faces.json'))
json.dump(split['classes'], open('$WORK/classes.json', 'w'))
json.dump(dict(enumerate(split['from_19'])), open('$WORK/mapping.json', 'w'))"
    semgan data prepare folder --images "$DATA/faces/celebamask/images" --labels "$DATA/faces/celebamask/masks" \
        --classes "$WORK/classes.json" --mapping "$WORK/mapping.json" --recipe faces-64 -o "$1"
}

score_all() { # 100 steps at most: with 200, lungs-64 got worse everywhere, and these sets are larger
    score "$1" --steps 0,25,50,100 --images "$DATA/faces/celebamask/images" --labels "$DATA/faces/celebamask/masks" \
        --mapping splits/faces.json:from_19 --only splits/faces.json:test --test-set celebamask
    score "$1" --steps 0,25,50,100 --images "$DATA/faces/fasseg/images" --labels "$DATA/faces/fasseg/masks" \
        --classes splits/faces.json:fasseg_classes --map-predictions splits/faces.json:to_fasseg \
        --mean-over splits/faces.json:fasseg_mean_over --test-set fasseg
}

[ $# -gt 0 ] || set -- 30 150
run_all "$@"
