#!/usr/bin/env bash
# Makes every number of results/lungs-64. Interrupted, the same command goes on where it stopped.
#
#   DATA=... results/lungs-64/run.sh          everything, one after the other
#   DATA=... results/lungs-64/run.sh 9        one label count. Two of these side by side, each with OMP_NUM_THREADS=1,
#   DATA=... results/lungs-64/run.sh 35       keep two cores busier than one with two threads (110 minutes in all).
#
# DATA: folder with lungs/kermany, lungs/kermany_unlabelled, lungs/hannover (images/, masks/); WORK: where runs go.
set -euo pipefail
cd "$(dirname "$0")/../.."
: "${DATA:?set DATA to the folder of the data sets}"
WORK=${WORK:-runs/lungs-64}
OUT=results/lungs-64

# The first of two processes prepares the data, the other one waits for it.
mkdir -p "$WORK"
exec 9>"$WORK/.prepare.lock"
flock 9
[ -d "$WORK/data/splits" ] || {
    semgan data prepare folder --images "$DATA/lungs/kermany/images" --labels "$DATA/lungs/kermany/masks" \
        --unlabelled "$DATA/lungs/kermany_unlabelled/images" --classes "$DATA/lungs/kermany/classes.json" \
        --recipe lungs-64 -o "$WORK/data"
    semgan data split "$WORK/data" --from splits/lungs.json
}
flock -u 9

score() { python results/score_model.py "$@" --task lungs --out "$OUT"; }

[ $# -gt 0 ] || set -- 9 35
for labels in "$@"; do
    for method in unet unet-strong semgan; do
        run="$WORK/$labels-$method"
        semgan train "$WORK/data" -o "$run" --recipe lungs-64 --split-seed 0 --labels "$labels" --method "$method"
        score "$run" --images "$DATA/lungs/kermany/images" --labels "$DATA/lungs/kermany/masks" \
            --only splits/lungs.json:test --test-set kermany
        score "$run" --images "$DATA/lungs/hannover/images" --labels "$DATA/lungs/hannover/masks" --test-set hannover
        mkdir -p "$OUT/$labels-$method"
        for file in config.yaml environment.json log.txt metrics.jsonl; do
            sed "s#$PWD/##g; s#$DATA#DATA#g" "$run/$file" > "$OUT/$labels-$method/$file" # no machine's paths
        done
        cp "$run"/curves.png "$OUT/$labels-$method/"
    done
done
python results/make_table.py "$OUT"
