#!/usr/bin/env bash
# Makes every number of results/ablation-64: the inversion of a model of real images under other weights, learning rates,
# noise, spaces and scalings, one changed at a time, on validation images (the paper's Figure 2). Stopped, it goes on.
#
#   DATA=... results/ablation-64/run.sh lungs 9
#
# DATA holds lungs/, skin/ and faces/ prepared as datasets (the folder data/ of the runs of results/benchmark-64); WORK:
# where the run goes; MODEL: a trained run to take instead of training one as the recipe says; CASES: how many validation
# images. STEPS: where scores are taken. Steps are no choice here but the axis, so training chooses none.
[ $# -eq 2 ] || { echo "usage: DATA=... $0 TASK LABELS" >&2; exit 2; }
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
task=$1
labels=$2
data=${DATA:?the folder of the prepared datasets}/$task
work=${WORK:-runs/ablation-64}
run=${MODEL:-$work/$task-$labels}
out=results/ablation-64

[ -n "${MODEL:-}" ] || semgan train "$data" -o "$run" --recipe "$task-64" --method semgan \
    --labels "$labels" --set inversion.steps=50 --set inversion.choose=false
mkdir -p "$out/$task-$labels"
for file in config.yaml environment.json log.txt metrics.jsonl; do # without the machine's paths
    sed "s#$PWD/##g; s#$data#DATA/$task#g; s#$run#runs/ablation-64/$task-$labels#g" "$run/$file" > "$out/$task-$labels/$file"
done
semgan ablate -m "$run" "$data" -o "$work/$task-$labels-figure" --one-by-one --cases "${CASES:-50}" --batch 50 \
    --steps "${STEPS:-0,10,25,50,100}" \
    --vary inversion.lambda_pixel=0,0.01,0.1,1 \
    --vary inversion.lambda_encoder=0,0.01,0.1,1 \
    --vary inversion.lambda_prior=0,0.001,0.01 \
    --vary inversion.learning_rate=0.02,0.05,0.1 \
    --vary inversion.space=w_plus,whitened \
    --vary inversion.reduction=sum,mean \
    --vary inversion.optimise_noise=true
for name in ablation.csv ablation.png suggestion.json; do # scores and curves alone: cases.csv and images stay where they are
    cp "$work/$task-$labels-figure/$name" "$out/$task-$labels-$name"
done
