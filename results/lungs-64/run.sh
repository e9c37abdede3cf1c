#!/usr/bin/env bash
# Makes every number of results/lungs-64; how to call it: results/runs.sh. 105 minutes for `run.sh 9` and `run.sh 35` side by side.
# DATA holds lungs/kermany, lungs/kermany_unlabelled, lungs/hannover (images/, masks/).
TASK=lungs
source "$(dirname "$0")/../runs.sh"

prepare() {
    semgan data prepare folder --images "$DATA/lungs/kermany/images" --labels "$DATA/lungs/kermany/masks" \
        --unlabelled "$DATA/lungs/kermany_unlabelled/images" --classes "$DATA/lungs/kermany/classes.json" \
        --recipe lungs-64 -o "$1"
}

score_all() {
    score "$1" --images "$DATA/lungs/kermany/images" --labels "$DATA/lungs/kermany/masks" \
        --only splits/lungs.json:test --test-set kermany
    score "$1" --images "$DATA/lungs/hannover/images" --labels "$DATA/lungs/hannover/masks" --test-set hannover
}

[ $# -gt 0 ] || set -- 9 35
run_all "$@"
