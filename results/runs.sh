# Sourced by results/*/run.sh: trains, scores and keeps the logs of every label count and method of one task.
#
# The caller sets TASK (lungs, skin, faces, liver) and defines two functions: `prepare DATASET_FOLDER`, and `score_all RUN`,
# which calls `score RUN ...` (volumes: `score_volumes RUN ...`) once per test set. Lists come from splits/TASK.json, where
# there is one. RECIPE: the recipe, or a YAML file over one for a trial.
#
#   DATA=... results/skin-64/run.sh              everything, one after the other
#   DATA=... results/skin-64/run.sh 40           one label count. Two of these side by side, each with OMP_NUM_THREADS=1,
#                                                keep two cores busier than one with two threads
#   METHODS=unet SEEDS="1 2" DATA=... results/skin-64/run.sh 40      some methods; other seeds (split and training)
#
# DATA: folder of the data sets; WORK: where runs go; OUT: where results go. Interrupted, the same command goes on where
# it stopped.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
: "${DATA:?set DATA to the folder of the data sets}"
OUT=${OUT:-results/$TASK-64}
WORK=${WORK:-runs/$TASK-64}
RECIPE=${RECIPE:-$TASK-64}
METHODS=${METHODS:-unet unet-strong semgan}
SEEDS=${SEEDS:-0}

# The first of several processes prepares the data, the others wait for it.
prepare_once() {
    mkdir -p "$WORK"
    exec 9>"$WORK/.prepare.lock"
    flock 9
    [ -f "$WORK/.prepared" ] || {
        prepare "$WORK/data"
        [ ! -f "splits/$TASK.json" ] || semgan data split "$WORK/data" --from "splits/$TASK.json"
        touch "$WORK/.prepared"
    }
    flock -u 9
}

score_volumes() { python results/score_volumes.py "$@" --task "$TASK" --out "$OUT"; }

score() { python results/score_model.py "$@" --task "$TASK" --out "$OUT"; }

# Settings, environment, log and metrics of a run, without the machine's paths.
keep_logs() { # RUN NAME
    mkdir -p "$OUT/$2"
    for file in config.yaml environment.json log.txt metrics.jsonl; do
        sed "s#$PWD/##g; s#$DATA#DATA#g" "$1/$file" > "$OUT/$2/$file"
    done
    cp "$1/curves.png" "$OUT/$2/"
    samples=$(find "$1/samples" -name "gan-*.png" 2>/dev/null | sort | tail -1) || true # drawn by the generator: no image of the data
    [ -z "$samples" ] || cp "$samples" "$OUT/$2/samples.png"
}

run_all() { # LABELS...
    prepare_once
    for seed in $SEEDS; do
        for labels in "$@"; do
            for method in $METHODS; do
                name=$labels-$method
                [ "$seed" = 0 ] || name=$name-seed$seed
                semgan train "$WORK/data" -o "$WORK/$name" --recipe "$RECIPE" --labels "$labels" --method "$method" \
                    --split-seed "$seed" --seed "$seed"
                score_all "$WORK/$name"
                keep_logs "$WORK/$name" "$name"
            done
        done
    done
    python results/make_table.py "$OUT"
}
