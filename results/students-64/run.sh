#!/usr/bin/env bash
# Makes the students of results/students-64:   DATA=... TEACHER=RUN DATASET=FOLDER results/students-64/run.sh
# TEACHER: the run 9-semgan of results/gan-steps-64/run.sh; DATASET: the dataset folder that it made. The rivals are cells of
# results/benchmark-64; give their runs in RIVALS to have all of them under synthetic shifts as well.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
: "${DATA:?set DATA to the folder of the data sets}" "${TEACHER:?set TEACHER to a run}" "${DATASET:?set DATASET to its dataset}"
OUT=results/students-64 WORK=${WORK:-runs/students-64}
export OMP_NUM_THREADS=1

student() { # NAME OPTIONS...
    local name=$1
    shift
    semgan train "$DATASET" -o "$WORK/$name" --recipe lungs-64 --labels 9 --method student --init-from "$TEACHER" "$@"
    for set in kermany hannover; do
        only=()
        [ "$set" = hannover ] || only=(--only splits/lungs.json:test)
        python results/score_model.py "$WORK/$name" --images "$DATA/lungs/$set/images" --labels "$DATA/lungs/$set/masks" \
            "${only[@]}" --test-set "$set" --task lungs --out "$OUT/$name" --steps 0
    done
    cp "$WORK/$name"/{config.yaml,environment.json,log.txt,metrics.jsonl} "$OUT/$name/"
}

student 9-student
student 9-student-unlabelled --set student.unlabelled=true --set baseline.ema_decay=0.996
student 9-student-affine --set student.unlabelled=true --set baseline.ema_decay=0.996 --set student.strong_affine=true
semgan robustness -m "$WORK/9-student-unlabelled" -m "$WORK/9-student-affine" "$DATASET" -o "$WORK/robustness-affine" --overwrite
cp "$WORK/robustness-affine/robustness.csv" "$OUT/robustness-affine.csv"
models=()
for run in ${RIVALS:-} "$WORK/9-student" "$WORK/9-student-unlabelled"; do models+=(-m "$run"); done
semgan robustness "${models[@]}" "$DATASET" -o "$WORK/robustness" --overwrite
cp "$WORK/robustness"/robustness.{csv,png} "$OUT/"
