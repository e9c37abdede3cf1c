#!/usr/bin/env bash
# Is a network that also learns from generated pairs a better companion of a UniMatch than another UniMatch? Both make
# other mistakes, perhaps. Validation images (as they are and under mixed shifts), every mix of the two kinds.
#
#   GUIDE=RUN WORK=runs/members-64 results/members-64/mixed.sh TASK LABELS IMAGES
#
# after committee.sh with the same words, whose members it takes (seeds 0, 1, 2; seed 0 of the labelled list). GUIDE: a
# run of method semgan of that list, whose generator draws the pairs; the student is that of method semgan-student. RAW,
# the folder of the data sets: the student's scores on the test sets, too.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
: "${DATA:?a folder of prepared datasets}" "${GUIDE:?a run of method semgan}"
TASK=${1:?lungs, skin or faces} LABELS=${2:?how many labelled images} IMAGES=${3:?images that each sees}
SPLIT_SEED=0
OUT=results/members-64/$TASK-$LABELS-mixed
source results/members-64/trained.sh

METHOD=student
STUDENT=(--init-from "$GUIDE" --set student.unlabelled=true --set student.real_share=0.5 --set student.last_real_share=1
    --set baseline.ema_decay=0.996 --set baseline.confidence_threshold=0.95)
trained student-0 "$IMAGES" 0 "${STUDENT[@]}"
uni=("$WORK/$TASK-$LABELS-member-0" "$WORK/$TASK-$LABELS-member-1" "$WORK/$TASK-$LABELS-member-2")
members means "${uni[@]}" --others "$WORK/$TASK-$LABELS-student-0"
[ -z "${RAW:-}" ] || scored "$WORK/$TASK-$LABELS-student-0"
