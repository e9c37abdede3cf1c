#!/usr/bin/env bash
# Where one UniMatch has come to its end: what are others of the same list worth beside it? Validation images (as they
# are and under mixed shifts), all means of one to MEMBERS networks of IMAGES images each.
#
#   WORK=runs/members-64 results/members-64/committee.sh TASK LABELS IMAGES MEMBERS
#
# The seed of the labelled list is 0; networks have the seeds 0, 1, ... What is trained is kept. GUIDE, a run of method
# semgan of that list: what its inversion, guided by the first network and by all of them, adds
# (results/guided-64/compare.py). RAW, the folder of the data sets: scores on the test sets, too.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
: "${DATA:?a folder of prepared datasets}"
TASK=${1:?lungs, skin or faces} LABELS=${2:?how many labelled images} IMAGES=${3:?images that each sees} MEMBERS=${4:?how many}
SPLIT_SEED=0
OUT=results/members-64/$TASK-$LABELS-committee
source results/members-64/trained.sh

runs=()
for seed in $(seq 0 $((MEMBERS - 1))); do
    trained "member-$seed" "$IMAGES" "$seed"
    runs+=("$WORK/$TASK-$LABELS-member-$seed")
done
members means "${runs[@]}"
python results/members-64/merged.py "${runs[@]}" -o "$WORK/$TASK-$LABELS-committee"
[ -z "${GUIDE:-}" ] || for student in "${runs[0]}" "$WORK/$TASK-$LABELS-committee"; do
    python results/guided-64/compare.py "$GUIDE" "$student" "$DATA/$TASK" -o "$OUT/guided-$(basename "$student").csv" \
        --weights 1 --cases 75 --shifts mixed
done
[ -z "${RAW:-}" ] || for run in "${runs[@]}" "$WORK/$TASK-$LABELS-committee"; do
    scored "$run"
done
