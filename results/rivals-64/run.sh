#!/usr/bin/env bash
# Four questions about rivals, answered on validation images: is the authors' weight better for mean-teacher, does
# float32 learn what bfloat16 did in results/benchmark-64, from the same images, and do a rate that falls and colours
# that change, as in UniMatch's own code, make it stronger?
#
#   WORK=runs results/rivals-64/run.sh        LUNGS, SKIN: datasets as results/lungs-64 and skin-64 prepare them
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
: "${LUNGS:?a prepared dataset}" "${SKIN:?a prepared dataset}"
WORK=${WORK:-runs/rivals-64}
OUT=results/rivals-64

trained() { # NAME DATASET [options of train]
    local name=$1 data=$2
    shift 2
    semgan train "$data" -o "$WORK/$name" "$@"
    mkdir -p "$OUT/$name"
    for file in config.yaml environment.json log.txt metrics.jsonl; do
        sed "s#$(realpath "$WORK")#runs#g; s#$PWD/##g" "$WORK/$name/$file" > "$OUT/$name/$file"
    done
}

trained mean-teacher-100 "$LUNGS" --recipe lungs-64 --labels 9 --method mean-teacher --set baseline.images=32128 \
    --set baseline.schedule_images=32780 --set baseline.consistency_weight=100 --set baseline.ramp_up_share=0.15
trained unimatch-float32 "$SKIN" --recipe skin-64 --labels 40 --method unimatch --set baseline.images=32800 \
    --set baseline.schedule_images=31736 --set baseline.precision=float32 --set baseline.colour_changes=false
trained unimatch-poly "$SKIN" --recipe skin-64 --labels 40 --method unimatch --set baseline.images=32800 \
    --set baseline.schedule_images=32800 --set baseline.precision=float32 --set baseline.schedule=poly \
    --set baseline.colour_changes=false
trained unimatch-colour "$SKIN" --recipe skin-64 --labels 40 --method unimatch --set baseline.images=32800 \
    --set baseline.schedule_images=31736 --set baseline.precision=float32

semgan robustness -m "$WORK/unimatch-float32" -m "$WORK/unimatch-poly" -m "$WORK/unimatch-colour" "$SKIN" \
    -o "$WORK/robustness" --overwrite
cp "$WORK/robustness/robustness.csv" "$OUT/"
