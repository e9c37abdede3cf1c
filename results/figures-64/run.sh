#!/usr/bin/env bash
# Makes every figure of the paper's supplement from a model of real images, and keeps the numbers behind them:
# explain (Figures 1, 4, 5, 6) on validation images and images of another source, interpolate (7 to 10) in Z and W+, a
# label factory's quality, one report. Figure 2: results/ablation-64.
#
#   MODEL=runs/ablation-64/skin-40 DATA=... results/figures-64/run.sh skin 40
#
# MODEL: a trained run of ours; DATA: folder of the data sets; DATASETS: folder of the prepared datasets (skin/ in it); WORK:
# where figures go. Those that show images of the data stay there; here go tables, and what the generator drew itself.
[ $# -eq 2 ] || { echo "usage: MODEL=... DATA=... $0 TASK LABELS" >&2; exit 2; }
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
TASK=$1 LABELS=$2
: "${MODEL:?a trained run}" "${DATA:?the folder of the data sets}"
DATASETS=${DATASETS:-runs/ablation-64/data}
WORK=${WORK:-runs/figures-64}/$TASK-$LABELS
OUT=results/figures-64/$TASK-$LABELS
STEPS=0,25,50,100,200,400
case $TASK in
    lungs) OTHER=hannover METRIC=dice LABELLED=yes ;;
    skin) OTHER=ph2 METRIC=jaccard LABELLED=yes ;;
    faces) OTHER=fasseg METRIC=miou LABELLED=no ;; # its masks have other classes
    *) echo "$TASK: there are lungs, skin and faces" >&2; exit 2 ;;
esac

# Links to the first 16 validation images and their masks, and to the first 8 images of the other source.
mkdir -p "$OUT" "$WORK"/{own,own-masks,other}
python - "$DATASETS/$TASK" "$DATA/$TASK/$OTHER/images" "$WORK" <<'END'
import sys
from pathlib import Path
from semgan.data.folder import Dataset
dataset, other, work = map(Path, sys.argv[1:])
def link(place, target):
    if not place.is_symlink():
        place.symlink_to(Path(target).resolve())
for case in Dataset.open(dataset).validation()[:16]:
    image = case.image[0] if isinstance(case.image, tuple) else case.image
    link(work / "own" / f"{case.stem}{Path(image).suffix}", image)
    link(work / "own-masks" / f"{case.stem}{Path(case.label).suffix}", case.label)
for path in sorted(other.iterdir())[:8]:
    link(work / "other" / path.name, path)
END

truth=()
[ "$LABELLED" = no ] || truth=(--labels "$DATA/$TASK/$OTHER/masks")
semgan explain -m "$MODEL" -i "$WORK/own" --labels "$WORK/own-masks" -o "$WORK/explain-own" --steps "$STEPS" --batch 16 --format png,pdf,webp
semgan explain -m "$MODEL" -i "$WORK/other" "${truth[@]}" -o "$WORK/explain-other" --steps "$STEPS" --format png,pdf,gif
cp "$WORK/explain-own/scores.json" "$OUT/explain-own-scores.json"
[ "$LABELLED" = no ] || cp "$WORK/explain-other/scores.json" "$OUT/explain-other-scores.json"

images() { find "$WORK/$1" -type l | sort | head -3; } # three of them, their paths without blanks
semgan interpolate -m "$MODEL" -o "$WORK/walk-z" --seeds 1,2,3,4
semgan interpolate -m "$MODEL" -o "$WORK/walk-w" --space w+ --seeds 1,2,3,4
semgan interpolate -m "$MODEL" -o "$WORK/walk-own" --space w+ --steps 50 -i $(images own)
semgan interpolate -m "$MODEL" -o "$WORK/walk-other" --space w+ --steps 50 -i $(images other)
for walk in walk-z walk-w walk-own walk-other; do cp "$WORK/$walk/smoothness.json" "$OUT/$walk.json"; done
cp "$WORK/walk-z/strips.png" "$OUT/walk-z.png" # random codes alone: no image of the data

semgan synth -m "$MODEL" -n 1000 -o "$WORK/synthetic" --format nnunet --restyle 1
semgan data check "$WORK/synthetic"
cp "$WORK/synthetic/summary.json" "$OUT/synth.json"

semgan segment -m "$MODEL" -i "$WORK/own" -o "$WORK/masks-own"
semgan evaluate "$WORK/masks-own" "$WORK/own-masks" --metric "$METRIC"
runs=("$WORK/masks-own")
[ ! -f "$MODEL/metrics.jsonl" ] || runs=("$MODEL" "${runs[@]}")
semgan report "${runs[@]}" -o "$WORK/report" --images "$WORK/own"
