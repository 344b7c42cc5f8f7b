#!/bin/sh
# A real Slurm of a few nodes on this machine's loopback, as root, without systemd, munge, cgroups or database.
#
#   cluster.sh install            install Debian's packages
#   cluster.sh start DIR [NODES]  configuration, state and logs in DIR; prints nothing, returns once all nodes are idle
#   cluster.sh stop DIR           cancel everything and end the daemons
#
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
KillWait=2
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE
EOF
    for node in $(seq "$nodes"); do
        echo "NodeName=n$node NodeHostname=$(hostname) NodeAddr=127.0.0.1 Port=$((port + 1 + node)) CPUs=2 RealMemory=4000"
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
        idle=$(timeout 2 sinfo -h -N -t idle -o %N 2>/dev/null | wc -l)
        [ "$idle" = "$nodes" ] && exit 0
        sleep 0.1
    done
    echo "Slurm did not come up; see $dir" >&2
    exit 1
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
        dir=$2 nodes=${3:-2} port=${SLURM_PORT:-17817}
        export SLURM_CONF="$dir/slurm.conf"
        "$1" ;;
    *) sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
