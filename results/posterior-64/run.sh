#!/usr/bin/env bash
# Makes every number of results/posterior-64: is the posterior's mean mask better calibrated than the optimised one (also
# than a tempered one), at which temperature, and do chains converge there, on models of real images.
#
#   results/posterior-64/run.sh lungs 9        after the cell lungs/9/METHOD of results/benchmark-64, whose model is used
#
# RUNS: folder of the benchmark's runs and data; METHOD: which of its methods (semgan; semgan-long: 48,000 images); WORK:
# where the copied model goes. SAMPLER: hmc, or laplace. CASES: validation images on which the temperature (one number) is
# chosen; the answers are compared on the next 40. calibrate takes 2 to 10 minutes of one core a case with hmc, half a
# minute with laplace.
[ $# -eq 2 ] || { echo "usage: $0 TASK LABELS" >&2; exit 2; }
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
TASK=$1
LABELS=$2
RUNS=${RUNS:-runs/benchmark-64}
WORK=${WORK:-runs/posterior-64}
OUT=${OUT:-results/posterior-64}
CASES=${CASES:-24}
METHOD=${METHOD:-semgan}
SAMPLER=${SAMPLER:-hmc}
name=$TASK-$LABELS-$METHOD-$SAMPLER
model=$WORK/$name

[ -d "$model" ] || {
    mkdir -p "$WORK"
    cp -r "$RUNS/$TASK-$LABELS-$METHOD-seed0/model" "$model.partial"
    mv "$model.partial" "$model"
}
if [ ! -f "$OUT/$name.json" ]; then
    semgan calibrate -m "$model" "$RUNS/data/$TASK" --cases "$CASES" --method "$SAMPLER" --json > "$WORK/$name.json"
    mv "$WORK/$name.json" "$OUT/$name.json"
fi
[ -f "$OUT/$name-answers.csv" ] || python results/posterior-64/compare.py "$model" "$RUNS/data/$TASK" --skip "$CASES" \
    --method "$SAMPLER" -o "$OUT/$name-answers.csv"
[ "$SAMPLER" != laplace ] || exit 0 # no chains to look at
temperature=$(python -c 'import json, sys; print(json.load(open(sys.argv[1]))["temperature"])' "$OUT/$name.json")

mkdir -p "$WORK/$name-images"
python - "$RUNS/data/$TASK" "$WORK/$name-images" <<'END'
import sys
from pathlib import Path
from semgan.data.folder import Dataset
for case in Dataset.open(Path(sys.argv[1])).validation()[:2]:
    for image in case.image if isinstance(case.image, tuple) else (case.image,):
        link = Path(sys.argv[2]) / Path(image).name
        if not link.is_symlink():
            link.symlink_to(Path(image).resolve())
END
for times in 1 3; do
    python benchmarks/posterior.py -m "$model" -i "$WORK/$name-images" --images 2 --temperature "$temperature" \
        --times "$times" --name "$name at T $temperature and $times budgets" -o "$OUT/mixing.csv"
done
