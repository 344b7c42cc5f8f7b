#!/bin/sh
# A real Slurm of a few nodes on this machine's loopback, as root, without systemd, munge, cgroups or database.
#
#   cluster.sh install             install Debian's packages
#   cluster.sh start DIR [NODES]   configuration, state and logs in DIR; prints nothing, returns once all nodes are idle
#   cluster.sh fail DIR NODE       kill the node's daemon and what runs on it, as a power cut does
#   cluster.sh recover DIR NODE    start the node's daemon again
#   cluster.sh stop DIR            cancel everything and end the daemons
#
# Every node has 4 cores and 2 accelerators (which are /dev/null). Partition `main` is preempted by requeue from
# partition `urgent`, after SLURM_GRACE (15) seconds and the signal the job asked for. There are 2 licences `seat`. An
# array has at most SLURM_ARRAY (1000) tasks.
# Clients need SLURM_CONF=DIR/slurm.conf. SLURM_PORT (default 17817) is the first of NODES + 2 ports.
set -eu

install_packages() {
    command -v slurmctld >/dev/null && command -v slurmd >/dev/null && exit 0
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends slurm-wlm slurm-client
}

write_configuration() {
    cat > "$SLURM_CONF" <<EOF
ClusterName=local
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort=$port
SlurmUser=root
AuthType=auth/none
CredType=cred/none
# Credentials that expire at once: the default holds every requeued job back for two minutes.
AuthInfo=cred_expire=5
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool/%n
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.%n.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd.%n.log
ProctrackType=proctrack/linuxproc
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
# The nodes share one machine: let each claim what is written here, whatever it finds.
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_min_interval=100000,sched_interval=1,bf_interval=1
SlurmctldParameters=preempt_send_user_signal
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=5
MaxArraySize=${SLURM_ARRAY:-1000}
Licenses=seat:2
GresTypes=gpu
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE PriorityTier=1 GraceTime=${SLURM_GRACE:-15}
PartitionName=urgent Nodes=ALL MaxTime=INFINITE PriorityTier=10 PreemptMode=OFF
EOF
    for number in 0 1; do
        [ -e "$dir/gpu$number" ] || mknod "$dir/gpu$number" c 1 3
    done
    echo "NodeName=n[1-$nodes] Name=gpu File=$dir/gpu[0-1]" > "$dir/gres.conf"
    for node in $(seq "$nodes"); do
        echo "NodeName=n$node NodeHostname=$(hostname) NodeAddr=127.0.0.1 Port=$((port + 1 + node)) CPUs=4 RealMemory=4000 Gres=gpu:2"
    done >> "$SLURM_CONF"
}

start() {
    mkdir -p "$dir/state" "$dir/spool"
    write_configuration
    # The daemons leave for the background, but would keep a caller's pipe open.
    slurmctld >"$dir/start.log" 2>&1 </dev/null
    for node in $(seq "$nodes"); do
        slurmd -N "n$node" >>"$dir/start.log" 2>&1 </dev/null
    done
    for _ in $(seq 150); do
        idle=$(timeout 2 sinfo -h -N -p main -t idle -o %N 2>/dev/null | wc -l)
        [ "$idle" = "$nodes" ] && exit 0
        sleep 0.1
    done
    echo "Slurm did not come up; see $dir" >&2
    exit 1
}

fail() {
    kill -9 "$(cat "$dir/slurmd.$1.pid")" || true
    # What ran on the node bears its name, and is a child of a slurmstepd.
    for environment in /proc/[0-9]*/environ; do
        tr '\0' '\n' <"$environment" 2>/dev/null | grep -qx "SLURMD_NODENAME=$1" || continue
        tr '\0' '\n' <"$environment" 2>/dev/null | grep -qx "SLURM_CONF=$SLURM_CONF" || continue
        pid=${environment#/proc/}
        pid=${pid%/environ}
        parent=$(sed 's/.*) . //; s/ .*//' "/proc/$pid/stat" 2>/dev/null || echo 0)
        [ "$(cat "/proc/$parent/comm" 2>/dev/null)" = slurmstepd ] && kill -9 "$parent" 2>/dev/null
        kill -9 "$pid" 2>/dev/null || true
    done
    scontrol update NodeName="$1" State=DOWN Reason="failed by hand"
}

recover() {
    rm -f "$dir/slurmd.$1.pid"
    slurmd -N "$1" >>"$dir/start.log" 2>&1 </dev/null
    scontrol update NodeName="$1" State=RESUME 2>/dev/null || true
}

alive() {
    # A daemon whose parent does not reap it stays a zombie: that is ended enough.
    state=$(sed 's/.*) //; s/ .*//' "/proc/$1/stat" 2>/dev/null || echo gone)
    [ "$state" != gone ] && [ "$state" != Z ]
}

stop() {
    timeout 5 scancel --me 2>/dev/null || true
    for _ in $(seq 100); do
        [ -z "$(timeout 2 squeue -h --me 2>/dev/null)" ] && break
        sleep 0.1
    done
    for file in "$dir"/*.pid; do
        [ -e "$file" ] || continue
        pid=$(cat "$file")
        kill "$pid" 2>/dev/null || true
        for _ in $(seq 50); do
            alive "$pid" || break
            sleep 0.1
        done
        if alive "$pid"; then kill -9 "$pid"; fi
        rm -f "$file"
    done
}

case "${1:-}" in
    install) install_packages ;;
    start | stop)
        dir=$2 nodes=${3:-4} port=${SLURM_PORT:-17817}
        export SLURM_CONF="$dir/slurm.conf"
        "$1" ;;
    fail | recover)
        dir=$2
        export SLURM_CONF="$dir/slurm.conf"
        "$1" "$3" ;;
    *) sed -n '2,14s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
