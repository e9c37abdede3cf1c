# What the programs of this folder share; sourced by them, with DATA, TASK, LABELS, SPLIT_SEED and OUT set.
WORK=${WORK:-runs/members-64}

METHOD=unimatch

trained() { # NAME IMAGES SEED OPTIONS: a network by METHOD, trained where it is not there yet, and its logs
    local run=$WORK/$TASK-$LABELS-$1
    if [ ! -e "$run/model" ]; then
        semgan train "$DATA/$TASK" -o "$run" --recipe "$TASK-64" --labels "$LABELS" --method "$METHOD" --seed "$3" \
            --split-seed "$SPLIT_SEED" --set baseline.images="$2" --set baseline.schedule_images="$2" \
            --set baseline.precision=float32 --set baseline.colour_changes=false "${@:4}"
    fi
    mkdir -p "$OUT/$1"
    for file in config.yaml environment.json log.txt metrics.jsonl; do
        sed "${GUIDE:+s#$(realpath "${GUIDE:-.}")#runs/$(basename "${GUIDE:-.}")#g;} s#$(realpath "$WORK")#runs#g; s#$(realpath "$DATA")/##g; s#$PWD/##g" "$run/$file" > "$OUT/$1/$file"
    done
}

members() { # NAME RUNS...: the scores of their means
    python results/trust-64/members.py "$DATA/$TASK" "${@:2}" -o "$OUT/$1.csv"
}

scored() { # RUN: its scores on the test sets, from RAW
    local sets=() set only
    case $TASK in lungs) sets=(kermany hannover) ;; skin) sets=(isic2017 ph2) ;; esac
    for set in "${sets[@]}"; do
        only=()
        [ "$set" != "${sets[0]}" ] || only=(--only "splits/$TASK.json:test")
        python results/score_model.py "$1" --task "$TASK" --steps 0 --out "$OUT/$(basename "$1")" \
            --images "$RAW/$TASK/$set/images" --labels "$RAW/$TASK/$set/masks" --test-set "$set" "${only[@]}"
    done
}
