#!/usr/bin/env bash
# Makes every number of results/lungs-64: about 2.5 hours on 2 CPU cores. Interrupted, it goes on where it stopped.
# DATA: folder with lungs/kermany, lungs/kermany_unlabelled, lungs/hannover (images/, masks/); WORK: where runs go.
set -euo pipefail
cd "$(dirname "$0")/../.."
: "${DATA:?set DATA to the folder of the data sets}"
WORK=${WORK:-runs/lungs-64}
OUT=results/lungs-64

[ -d "$WORK/data" ] || {
    semgan data prepare folder --images "$DATA/lungs/kermany/images" --labels "$DATA/lungs/kermany/masks" \
        --unlabelled "$DATA/lungs/kermany_unlabelled/images" --classes "$DATA/lungs/kermany/classes.json" \
        --recipe lungs-64 -o "$WORK/data"
    semgan data split "$WORK/data" --from splits/lungs.json
}

train() { semgan train "$WORK/data" -o "$WORK/$1" --recipe lungs-64 --split-seed 0 "${@:2}"; }

train 9-semgan --labels 9 --method semgan
# Nested lists: the 35 labels hold the 9, so stage 1 goes on from the first run's networks with the new labels.
train 35-semgan --labels 35 --method semgan --init-from "$WORK/9-semgan" --set gan.images=12000
for labels in 9 35; do
    for method in unet unet-strong; do
        train "$labels-$method" --labels "$labels" --method "$method"
    done
done

for labels in 9 35; do
    for method in semgan unet unet-strong; do
        run="$WORK/$labels-$method"
        python results/score_model.py "$run" --images "$DATA/lungs/kermany/images" --labels "$DATA/lungs/kermany/masks" \
            --only splits/lungs.json:test --test-set kermany --task lungs --out "$OUT"
        python results/score_model.py "$run" --images "$DATA/lungs/hannover/images" --labels "$DATA/lungs/hannover/masks" \
            --test-set hannover --task lungs --out "$OUT"
        mkdir -p "$OUT/$labels-$method"
        cp "$run"/{config.yaml,environment.json,log.txt,metrics.jsonl} "$OUT/$labels-$method/"
        [ -f "$run/curves.png" ] && cp "$run/curves.png" "$OUT/$labels-$method/"
    done
done
python results/make_table.py "$OUT"
