#!/usr/bin/env bash
# Makes every number of results/active-64: simulated active learning on the lungs, 9 -> 18 -> 36 labels, five ways to choose
# them, three seeds: 33 trainings of a U-Net (8,000 images each), about an hour on two CPU cores. Interrupted, the same
# command goes on.
#
#   DATA=... results/active-64/run.sh                                 DATA as for results/lungs-64/run.sh
#   SEEDS="3 4" BY="diversity random" DATA=... results/active-64/run.sh    only adds to what is there
#   IMAGES=24000 OUT=... WORK=... DATA=... results/active-64/run.sh        other settings or sizes: other folders
TASK=lungs
OUT=${OUT:-results/active-64}
WORK=${WORK:-runs/active-64}
SEEDS=${SEEDS:-0 1 2}
source "$(dirname "$0")/../runs.sh"

prepare() {
    semgan data prepare folder --images "$DATA/lungs/kermany/images" --labels "$DATA/lungs/kermany/masks" \
        --classes "$DATA/lungs/kermany/classes.json" --recipe lungs-64 -o "$1"
    # The published lists without those of images that have no masks: nobody could uncover them here.
    python -c 'import json, sys; lists = json.load(open("splits/lungs.json")); lists.pop("unlabelled_extra");
json.dump(lists, open(sys.argv[1], "w"))' "$WORK/lists.json"
    semgan data split "$1" --from "$WORK/lists.json"
}

mkdir -p "$WORK"
exec 9>"$WORK/.prepare.lock"
flock 9
[ -f "$WORK/.prepared" ] || { prepare "$WORK/data" && touch "$WORK/.prepared"; }
flock -u 9

# shellcheck disable=SC2086
python results/active-64/simulate.py "$WORK/data" --task lungs --work "$WORK" --out "$OUT" \
    --recipe "$RECIPE" --method "${METHOD:-unet-strong}" --sizes ${SIZES:-9 18 36} --seeds $SEEDS \
    --by ${BY:-combined entropy distance diversity random} \
    --set "baseline.images=${IMAGES:-8000}" --set run.preview_every_images=1600 \
    --test-set kermany "$DATA/lungs/kermany/images" "$DATA/lungs/kermany/masks" splits/lungs.json:test \
    --test-set hannover "$DATA/lungs/hannover/images" "$DATA/lungs/hannover/masks"
