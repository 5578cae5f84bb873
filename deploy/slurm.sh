#!/usr/bin/env bash
# Workers of a stack as a Slurm array, a job for each node: see docs/WORKERS.md.
#
#   OPS_OUTPUTS=$HOME/outputs.json sbatch deploy/slurm.sh
#
# Each job ends when there was no task for ten minutes. To end them earlier, so that they
# hand their tasks back: scancel --batch --signal=TERM JOB
#SBATCH --job-name=vm-dataset-worker
#SBATCH --array=1-8
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=16G
#SBATCH --time=08:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --output=vm-dataset-worker-%A_%a.log
set -euo pipefail

: "${OPS_OUTPUTS:?names the file with what 'pulumi stack output --json' has printed}"
# Each job has a folder of its own: jobs of an array that start at once would make the same environments.
if [ -z "${OPS_LOCAL_DIR:-}" ]; then
	OPS_LOCAL_DIR=$(mktemp -d -t vm-dataset-XXXXXXXX)
	trap 'rm -rf "$OPS_LOCAL_DIR"' EXIT
fi
export OPS_LOCAL_DIR

ops --outputs "$OPS_OUTPUTS" worker --workers "${SLURM_CPUS_PER_TASK:-1}" --idle 10m &
worker=$!
signalled=
trap 'signalled=yes; kill -TERM "$worker"' TERM INT
# A signal ends wait, but not the worker, which hands its tasks back first.
while :; do
	status=0
	wait "$worker" || status=$?
	if [ -z "$signalled" ]; then break; fi
	signalled=
done
exit "$status"
