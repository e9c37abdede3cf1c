#!/usr/bin/env bash
# Twenty steps of both stages of every 256 px recipe at the paper's widths, with method semgan-paper: only the batch (2) and
# the length differ. Shows that they run, what they cost in memory and time per image; says nothing about scores.
# About ten minutes a recipe on one core.
# Needs no data: pictures are drawn.   results/recipes-256/run.sh [RECIPE ...]
set -euo pipefail
cd "$(dirname "$0")/../.."
WORK=${WORK:-runs/recipes-256}
OUT=results/recipes-256
[ $# -gt 0 ] || set -- chest-xray skin liver-ct faces

for recipe in "$@"; do
    case $recipe in chest-xray | liver-ct) family=chests ;; *) family=faces ;; esac
    raw=$WORK/drawn/$family
    [ -d "$raw/dataset" ] || {
        python -c "from semgan.data.phantoms import write_phantom_dataset as write
write('$raw/plain', '$family', size_px=128, labelled=8, unlabelled=16, validation=2, test=0, seed=1)"
        semgan data prepare folder --images "$raw/plain/images" --labels "$raw/plain/labels" \
            --unlabelled "$raw/plain/unlabelled" --manifest "$raw/plain/manifest.csv" \
            --classes "$raw/plain/classes.json" -o "$raw/dataset"
    }
    semgan train "$raw/dataset" -o "$WORK/$recipe" --recipe "$recipe" --method semgan-paper \
        --set gan.batch=2 --set gan.images=40 --set encoder.batch=2 --set encoder.images=40 --set inversion.steps=2 \
        --set inversion.batch=2 --set perceptual.download=false \
        --set 'run={log_every_images: 2, preview_every_images: null, validation_cases: 2}'
    mkdir -p "$OUT/$recipe"
    for file in config.yaml environment.json log.txt metrics.jsonl; do
        sed "s#$PWD/##g; s#$HOME#~#g" "$WORK/$recipe/$file" > "$OUT/$recipe/$file"
    done
done
