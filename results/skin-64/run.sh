#!/usr/bin/env bash
# Makes every number of results/skin-64; how to call it: results/runs.sh.
# DATA holds skin/isic2017, skin/ph2 (images/, masks/).
TASK=skin
source "$(dirname "$0")/../runs.sh"

prepare() {
    semgan data prepare folder --images "$DATA/skin/isic2017/images" --labels "$DATA/skin/isic2017/masks" \
        --classes "$DATA/skin/isic2017/classes.json" --recipe skin-64 -o "$1"
}

score_all() { # 100 steps at most: with 200, lungs-64 got worse everywhere, and these sets are larger
    score "$1" --steps 0,25,50,100 --images "$DATA/skin/isic2017/images" --labels "$DATA/skin/isic2017/masks" \
        --only splits/skin.json:test --test-set isic2017
    score "$1" --steps 0,25,50,100 --images "$DATA/skin/ph2/images" --labels "$DATA/skin/ph2/masks" --test-set ph2
}

[ $# -gt 0 ] || set -- 40 200
run_all "$@"
