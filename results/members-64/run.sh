#!/usr/bin/env bash
# At one cost: two networks of half the images each, averaged, or one network of them all? UniMatch, in and out of
# domain, on validation images (as they are and under mixed shifts).
#
#   WORK=runs/members-64 results/members-64/run.sh TASK LABELS IMAGES     TASK: lungs, skin or faces; DATA/TASK a
#                                                  dataset as results/benchmark-64/grid.yaml prepares it
# The seed of the labelled list is 1; networks have the seeds 1 (long), 1 and 2 (short). What is trained is kept.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
: "${DATA:?a folder of prepared datasets}"
TASK=${1:?lungs, skin or faces} LABELS=${2:?how many labelled images} IMAGES=${3:?images that the long training sees}
SPLIT_SEED=1
OUT=results/members-64/$TASK-$LABELS
source results/members-64/trained.sh

trained short-1 $((IMAGES / 2)) 1
trained short-2 $((IMAGES / 2)) 2
trained long "$IMAGES" 1
members short "$WORK/$TASK-$LABELS-short-1" "$WORK/$TASK-$LABELS-short-2"
members long "$WORK/$TASK-$LABELS-long"
