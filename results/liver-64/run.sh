#!/usr/bin/env bash
# Makes every number of results/liver-64; how to call it: results/runs.sh. Needs no data: patients are drawn (WORK/raw).
# VOLUMES: CT volumes, of which a tenth is held out; PATIENTS: MRI patients, both phases of each. Both only for a trial.
TASK=liver
WORK=${WORK:-runs/liver-64}
DATA=$WORK/raw
RECIPE=${RECIPE:-liver-ct-64}
source "$(dirname "$0")/../runs.sh"

prepare() {
    semgan data phantoms -o "$DATA" --volumes "${VOLUMES:-80}" --mri "${PATIENTS:-10}"
    semgan data prepare liver "$DATA/LITS17" "$DATA/CHAOS_Train_Sets" --validation 0.1 --recipe "$RECIPE" -o "$1"
    # `segment` names a DICOM series by its folders below CHAOS' MR; true masks of these names, made of CHAOS' PNG.
    for phase in In Out; do
        mkdir -p "$WORK/labels/$phase"
        for mask in "$1/volumes/chaos-${phase,}/labels"/*; do
            patient=$(basename "${mask##*chaos-mr-}" "-${phase,}.nii.gz")
            ln -sf "$(realpath "$mask")" "$WORK/labels/$phase/${patient}_T1DUAL_DICOM_anon_${phase}Phase.nii.gz"
        done
    done
}

score_all() { # training saw CT only
    score_volumes "$1" --volumes "$WORK/data/volumes/lits/images" --labels "$WORK/data/volumes/lits/labels" \
        --modality ct --masks "$1/masks/ct" --test-set phantom-ct
    for phase in In Out; do
        score_volumes "$1" --volumes "$DATA/CHAOS_Train_Sets/Train_Sets/MR" --labels "$WORK/labels/$phase" \
            --modality mri --masks "$1/masks/mri" --test-set "phantom-mri-${phase,}"
    done
}

[ $# -gt 0 ] || set -- 8
run_all "$@"
