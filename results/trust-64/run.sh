#!/usr/bin/env bash
# Makes every number of results/trust-64: do signals tell failures, in and out of domain, and which answer an image should get.
#
#   DATA=... results/trust-64/run.sh lungs 9         one task (lungs, skin, faces) and label count
#
# Ours against a U-Net with strong augmentation of the same labels: its softmax entropy, MEMBERS networks of other training
# seeds as an ensemble, and PASSES passes of one trained with dropout. Runs of results/TASK-64 under WORK are taken up as
# they are; the others are trained, on IMAGES images. Interrupted, the same command goes on. LIMIT: scores below are
# failures. MODEL: a run of ours to use instead of training one, as runs/benchmark-64/lungs-9-semgan-long-seed0.
# POSTERIOR=no: without the posterior's mean, the third answer to choose from. RIVALS=no: the choice of the answer alone,
# without U-Nets.
[ $# -eq 2 ] || { echo "usage: DATA=... $0 TASK LABELS" >&2; exit 2; }
TASK=$1
LABELS=$2
OUT=${OUT:-results/trust-64}
MEMBERS=${MEMBERS:-5}
PASSES=${PASSES:-20}
IMAGES=${IMAGES:-24000}
POSTERIOR=${POSTERIOR:-yes}
RIVALS=${RIVALS:-yes}
RIVAL=unet-strong
source "$(dirname "$0")/../runs.sh"

case $TASK in
    lungs) METRIC=dice LIMIT=${LIMIT:-0.85} OWN=kermany OTHER=hannover ;;
    skin) METRIC=jaccard LIMIT=${LIMIT:-0.6} OWN=isic2017 OTHER=ph2 ;;
    faces) METRIC=miou LIMIT=${LIMIT:-0.5} OWN=celebamask OTHER=fasseg ;;
    *) echo "$TASK: there are lungs, skin and faces" >&2; exit 2 ;;
esac

prepare() {
    local more=()
    [ "$TASK" != lungs ] || more=(--unlabelled "$DATA/lungs/kermany_unlabelled/images")
    truth "$OWN"
    semgan data prepare folder --images "$DATA/$TASK/$OWN/images" --labels "$DATA/$TASK/$OWN/masks" "${more[@]}" \
        "${TRUTH[@]}" --recipe "$RECIPE" -o "$1"
}

# TRUTH: options that say which classes the true masks of a set have. Of faces, 19 classes of CelebAMask become 8; on FASSEG
# the 8 predicted become its 6, and the mean is over four of them.
truth() { # SET
    local part
    if [ "$TASK" = faces ]; then
        for part in classes from_19 fasseg_classes to_fasseg; do
            python -c 'import json, sys; print(json.dumps(json.load(open("splits/faces.json"))[sys.argv[1]]))' "$part" > "$WORK/$part.json"
        done
    fi
    case $1 in
        celebamask) TRUTH=(--classes "$WORK/classes.json" --mapping "$WORK/from_19.json") ;;
        fasseg) TRUTH=(--classes "$WORK/fasseg_classes.json" --map-predictions "$WORK/to_fasseg.json"
            --mean-over hair --mean-over eyes --mean-over nose --mean-over mouth) ;;
        *) TRUTH=(--classes "$DATA/$TASK/$OWN/classes.json") ;;
    esac
}

# A run of one method; all see the same labelled list, and only the training's seed differs.
trained() { # NAME METHOD SEED [options of train]
    local name=$1 method=$2 seed=$3
    shift 3
    semgan train "$WORK/data" -o "$WORK/$name" --recipe "$RECIPE" --labels "$LABELS" --method "$method" --split-seed 0 \
        --seed "$seed" "$@"
    keep_logs "$WORK/$name" "$TASK-$name"
}

# The test images of a set as a folder of links: of our own hospital those of the list, of another all.
linked() { # SET
    [ ! -d "$WORK/images/$1" ] || return 0
    mkdir -p "$WORK/images/$1.partial"
    python - "splits/$TASK.json" "$DATA/$TASK/$1/images" "$WORK/images/$1.partial" "$([ "$1" = "$OWN" ] && echo test)" <<'END'
import json, sys
from pathlib import Path
splits, images, out, key = sys.argv[1:]
wanted = set(json.loads(Path(splits).read_text())[key]) if key else None
for path in sorted(Path(images).iterdir()):
    link = Path(out, path.name)
    if (wanted is None or path.stem in wanted) and not link.is_symlink():
        link.symlink_to(path.resolve())
END
    mv "$WORK/images/$1.partial" "$WORK/images/$1"
}

answered() { # SET NAME [options of segment, -m among them]
    local images=$WORK/images/$1 out=$WORK/trust/$LABELS/$1/$2
    shift 2
    semgan segment -i "$images" -o "$out" --signals --save-probabilities "$@"
}

judged() { # SET [--in-domain FOLDERS]
    local set=$1 folders=() name
    shift
    for name in ours entropy ensemble passes; do folders+=("$WORK/trust/$LABELS/$set/$name"); done
    truth "$set"
    semgan trust judge "${folders[@]}" --labels "$DATA/$TASK/$set/masks" "${TRUTH[@]}" \
        --metric "$METRIC" --limit "$LIMIT" -o "$OUT/$TASK-$LABELS/$set" "$@"
}

# Scores of every answer for all, and of the chosen ones, from cases.csv of each.
compared() { # SET
    local answer folder
    truth "$1"
    python - > "$WORK/stems-$1.json" "$WORK/images/$1" <<'END'
import json, sys
from pathlib import Path
print(json.dumps(sorted(path.stem for path in Path(sys.argv[1]).iterdir())))
END
    for answer in "${answers[@]}"; do
        folder=$OUT/$TASK-$LABELS/$1/answers/$answer
        mkdir -p "$folder"
        semgan evaluate "$WORK/trust/$LABELS/$1/$answer" "$DATA/$TASK/$1/masks" --metric "$METRIC" \
            "${TRUTH[@]}" --stems "$WORK/stems-$1.json" -o "$folder"
        sed -i "s#$PWD/##g; s#$DATA#DATA#g; s#$WORK#WORK#g" "$folder/scores.json"
    done
}

train_rivals() {
    local long=(--set "baseline.images=$IMAGES")
    trained "$LABELS-$RIVAL" "$RIVAL" 0 "${long[@]}"
    for seed in $(seq 1 $((MEMBERS - 1))); do trained "$LABELS-$RIVAL-member$seed" "$RIVAL" "$seed" "${long[@]}"; done
    trained "$LABELS-$RIVAL-dropout" "$RIVAL" 0 "${long[@]}" --set baseline.dropout=0.2
    [ -f "$WORK/$LABELS-$RIVAL/model/trust.json" ] ||
        semgan trust fit -m "$WORK/$LABELS-$RIVAL" "$WORK/data" --limit "$LIMIT"
    cp "$WORK/$LABELS-$RIVAL/model/trust.json" "$OUT/$TASK-$LABELS/trust-$RIVAL.json"
}

prepare_once
mkdir -p "$OUT/$TASK-$LABELS"
ours=$WORK/$LABELS-semgan
if [ -n "${MODEL:-}" ]; then
    [ -d "$ours" ] || { mkdir -p "$ours" && cp -r "$MODEL/model" "$ours/model.partial" && mv "$ours/model.partial" "$ours/model"; }
else
    trained "$LABELS-semgan" semgan 0
fi
[ "$RIVALS" = no ] || train_rivals
networks=("$WORK/$LABELS-$RIVAL")
for seed in $(seq 1 $((MEMBERS - 1))); do networks+=("$WORK/$LABELS-$RIVAL-member$seed"); done

answers=(zero ours chosen)
if [ "$POSTERIOR" != no ]; then
    answers+=(posterior)
    [ -f "$ours/model/posterior.json" ] || semgan calibrate -m "$ours" "$WORK/data" --method laplace
fi
[ -f "$ours/model/trust.json" ] || semgan trust fit -m "$ours" "$WORK/data" --limit "$LIMIT" --choose
cp "$ours/model/trust.json" "$OUT/$TASK-$LABELS/trust-semgan.json"

home=()
for set in "$OWN" "$OTHER"; do
    linked "$set"
    answered "$set" ours -m "$ours"
    answered "$set" chosen -m "$ours" --choose
    answered "$set" zero -m "$ours" --steps 0
    [ "$POSTERIOR" = no ] ||
        semgan posterior -m "$ours" -i "$WORK/images/$set" -o "$WORK/trust/$LABELS/$set/posterior" --method laplace -n 16 --chains 2
    compared "$set"
    [ "$RIVALS" != no ] || continue
    answered "$set" entropy -m "$WORK/$LABELS-$RIVAL"
    answered "$set" ensemble "${networks[@]/#/-m}"
    answered "$set" passes -m "$WORK/$LABELS-$RIVAL-dropout" --dropout-passes "$PASSES"
    judged "$set" "${home[@]}"
    for name in ours entropy ensemble passes; do home+=(--in-domain "$WORK/trust/$LABELS/$set/$name"); done
done
[ "$RIVALS" = no ] || python results/trust-64/members.py "$WORK/data" -o "$OUT/$TASK-$LABELS/members.csv" "${networks[@]}"
