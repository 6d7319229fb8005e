#!/bin/bash
# Two nodes with eight GPUs each under Slurm, from the repository's folder:
#
#     sbatch training/configs/slurm_two_nodes.sh hub_configs/transformer-base/recipe.yaml --output_dir /shared/runs/base
#
# All words go to the trainer. Both nodes must see the code, the data, output_dir and .venv under the same paths. Slurm
# asks the run to stop five minutes before its time is over; it saves, and the same sbatch line goes on from there.
#SBATCH --job-name=fun-transformer
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@300
#SBATCH --requeue
#SBATCH --output=%x-%j.log
set -euo pipefail

if [ -f .venv/bin/activate ]; then
    source .venv/bin/activate
fi
read -r first_node < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
port=$((20000 + SLURM_JOB_ID % 20000)) # jobs that share a node need ports of their own

# SLURM_NODEID is known on each node only, so it is read there.
srun --kill-on-bad-exit=1 bash -c '
    exec accelerate launch --config_file training/configs/two_nodes.yaml \
        --num_machines "$SLURM_NNODES" --num_processes "$((SLURM_NNODES * 8))" --machine_rank "$SLURM_NODEID" \
        --main_process_ip "$0" --main_process_port "$1" -m training.train "${@:2}"
' "$first_node" "$port" "$@" --resume auto
