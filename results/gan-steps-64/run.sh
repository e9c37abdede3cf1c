#!/usr/bin/env bash
# How fast the joint GAN learns by its batch, rate and average: short trainings of stage 1 on the lungs, 9 labels, one thread each.
#   DATA=... results/gan-steps-64/run.sh            all; or some: run.sh batch8-ramp-rate4 batch32
# encoder8, encoder16: stage 2 in batches of 8 and of 16 on the generator of 6,400 images; 9-semgan: the whole model on that of 12,000,
# and its scores.
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
    [batch8-ramp-rate4]="gan.batch=8 gan.learning_rate=0.004 gan.ema_half_life_images=2000 gan.images=12000"
    [batch8-ramp-rate8]="gan.batch=8 gan.learning_rate=0.008 gan.ema_half_life_images=2000 gan.images=1600"
)
RATE4="gan.batch=8 gan.learning_rate=0.004 gan.ema_half_life_images=2000 run.preview_every_images=1600"
train() { # FOLDER STAGE SETTING...
    local folder=$1 stage=$2 options=()
    shift 2
    for setting in "$@"; do options+=(--set "$setting"); done
    semgan train "$WORK/data" -o "$WORK/$folder" --recipe lungs-64 --method semgan --labels 9 --stage "$stage" "${options[@]}"
}

[ $# -gt 0 ] || set -- "${!SETTINGS[@]}" encoder8 encoder16 9-semgan
for name in "$@"; do
    case $name in
    encoder8 | encoder16)
        # shellcheck disable=SC2086
        train "$name" all $RATE4 gan.images=6400 encoder.images=6400 "encoder.batch=${name#encoder}" inversion.steps=0
        stage=encoder ;;
    9-semgan)
        # shellcheck disable=SC2086
        train "$name" all $RATE4 gan.images=12000 encoder.images=12000
        for set in kermany hannover; do
            only=()
            [ "$set" = hannover ] || only=(--only splits/lungs.json:test)
            python results/score_model.py "$WORK/$name" --images "$DATA/lungs/$set/images" --labels "$DATA/lungs/$set/masks" \
                "${only[@]}" --test-set "$set" --task lungs --out results/gan-steps-64/9-semgan --steps 0,25
        done
        cp "$WORK/$name"/{config.yaml,environment.json,log.txt,metrics.jsonl} results/gan-steps-64/9-semgan/
        continue ;;
    *)
        # shellcheck disable=SC2086
        train "$name" gan ${SETTINGS[$name]} run.preview_every_images=1600
        stage=gan ;;
    esac
    grep "\"stage\": \"$stage\"" "$WORK/$name/metrics.jsonl" > "results/gan-steps-64/$name.metrics.jsonl"
done
