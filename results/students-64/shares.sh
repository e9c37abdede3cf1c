#!/usr/bin/env bash
# How much a poor generator's pairs cost:   TEACHER=RUN DATASET=FOLDER results/students-64/shares.sh
# TEACHER: the run of the cell lungs-9-semgan-student-seed0 of results/benchmark-64 (its generator saw 2,880 images); DATASET: the
# dataset folder that the benchmark prepared (runs/benchmark-64/data/lungs). Validation alone; no test image is opened.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
: "${TEACHER:?set TEACHER to a run}" "${DATASET:?set DATASET to its dataset}"
OUT=results/students-64/shares WORK=${WORK:-runs/students-64-shares}
export OMP_NUM_THREADS=1

student() { # NAME FIRST_SHARE [LAST_SHARE]
    semgan train "$DATASET" -o "$WORK/$1" --recipe lungs-64 --labels 9 --method student --init-from "$TEACHER" \
        --set student.unlabelled=true --set baseline.ema_decay=0.996 --set baseline.images=12000 \
        --set student.pool_images=5376 --set "student.real_share=$2" ${3:+--set "student.last_real_share=$3"}
    mkdir -p "$OUT"
    cp "$WORK/$1/metrics.jsonl" "$OUT/$1.jsonl"
}

student 0.25-to-1 0.25 1.0
student 0.5 0.5
student 0.5-to-1 0.5 1.0
student 0.8 0.8
