#!/usr/bin/env bash
# How fast the joint GAN learns by its batch, rate and average: short trainings of stage 1 on the lungs, 9 labels, one thread each.
#   DATA=... results/gan-steps-64/run.sh            all; or some: run.sh batch8-ramp-rate4 batch32
# DATA as for results/lungs-64/run.sh. The average's ramp is a constant (EMA_RAMP, stages/stage1_gan.py): batch4, batch8 and batch32
# of this folder were made when it was 0.5 (commit de43e59c805d), the others at 0.1 (2be85e42aa9d).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
: "${DATA:?set DATA to the folder of the data sets}"
WORK=${WORK:-runs/gan-steps-64}
export OMP_NUM_THREADS=1

[ -d "$WORK/data" ] || {
    semgan data prepare folder --images "$DATA/lungs/kermany/images" --labels "$DATA/lungs/kermany/masks" \
        --unlabelled "$DATA/lungs/kermany_unlabelled/images" --classes "$DATA/lungs/kermany/classes.json" \
        --recipe lungs-64 -o "$WORK/data"
    semgan data split "$WORK/data" --from splits/lungs.json
}

declare -A SETTINGS=(
    [batch32]="gan.batch=32 gan.learning_rate=0.002 gan.ema_half_life_images=5000 gan.images=16000"
    [batch8]="gan.batch=8 gan.learning_rate=0.002 gan.ema_half_life_images=5000 gan.images=4800"
    [batch4]="gan.batch=4 gan.learning_rate=0.002 gan.ema_half_life_images=5000 gan.images=3200"
    [batch8-ramp]="gan.batch=8 gan.learning_rate=0.002 gan.ema_half_life_images=2000 gan.images=3200"
    [batch8-ramp-rate4]="gan.batch=8 gan.learning_rate=0.004 gan.ema_half_life_images=2000 gan.images=16000"
    [batch8-ramp-rate8]="gan.batch=8 gan.learning_rate=0.008 gan.ema_half_life_images=2000 gan.images=1600"
)
[ $# -gt 0 ] || set -- "${!SETTINGS[@]}"
for name in "$@"; do
    options=()
    for setting in ${SETTINGS[$name]} run.preview_every_images=1600; do options+=(--set "$setting"); done
    semgan train "$WORK/data" -o "$WORK/$name" --recipe lungs-64 --labels 9 --stage gan "${options[@]}"
    grep '"stage": "gan"' "$WORK/$name/metrics.jsonl" > "results/gan-steps-64/$name.metrics.jsonl"
done
