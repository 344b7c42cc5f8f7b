#!/bin/sh
# A real Slurm of a few nodes on this machine's loopback, as root, without systemd, munge, cgroups or database.
#
#   cluster.sh install             install Debian's packages (with SLURM_ACCOUNTING=1 those of accounting too)
#   cluster.sh start DIR [NODES]   configuration, state and logs in DIR; prints nothing, returns once all nodes are idle
#   cluster.sh fail DIR NODE       kill the node's daemon and what runs on it, as a power cut does
#   cluster.sh recover DIR NODE    start the node's daemon again
#   cluster.sh stop DIR            cancel everything and end the daemons
#
# Every node has 4 cores and 2 accelerators (which are /dev/null). Partition `main` is preempted by requeue from
# partition `urgent`, after SLURM_GRACE (15) seconds and the signal the job asked for. There are 2 licences `seat`. An
# array has at most SLURM_ARRAY (1000) tasks.
# With SLURM_MEMORY=1 at its start the kernel kills what takes more memory than its job asked for (cgroups v1). KillWait is
# SLURM_KILL_WAIT (5) seconds.
# With SLURM_ACCOUNTING=1 at its start there is accounting (sacct), through a slurmdbd and a MariaDB of its own.
# Clients need SLURM_CONF=DIR/slurm.conf. SLURM_PORT (default 17817) is the first of NODES + 2 ports; accounting takes 2 more.
set -eu

install_packages() {
    packages="" accounting=""
    { command -v slurmctld && command -v slurmd; } >/dev/null || packages="slurm-wlm slurm-client"
    [ -z "${SLURM_ACCOUNTING:-}" ] || { command -v slurmdbd && command -v mariadbd; } >/dev/null ||
        accounting="slurmdbd mariadb-server"
    [ -n "$packages$accounting" ] || exit 0
    apt-get update -qq
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages $accounting
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
SelectTypeParameters=CR_CPU${SLURM_MEMORY:+_Memory}
# The nodes share one machine: let each claim what is written here, whatever it finds.
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_min_interval=100000,sched_interval=1,bf_interval=1
SlurmctldParameters=preempt_send_user_signal
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=${SLURM_KILL_WAIT:-5}
MaxArraySize=${SLURM_ARRAY:-1000}
Licenses=seat:2
GresTypes=gpu
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE PriorityTier=1 GraceTime=${SLURM_GRACE:-15}
PartitionName=urgent Nodes=ALL MaxTime=INFINITE PriorityTier=10 PreemptMode=OFF
EOF
    if [ -n "${SLURM_MEMORY:-}" ]; then
        echo "TaskPlugin=task/cgroup" >> "$SLURM_CONF"
        printf '%s\n' CgroupPlugin=cgroup/v1 CgroupMountpoint=/sys/fs/cgroup ConstrainRAMSpace=yes > "$dir/cgroup.conf"
    fi
    for number in 0 1; do
        [ -e "$dir/gpu$number" ] || mknod "$dir/gpu$number" c 1 3
    done
    echo "NodeName=n[1-$nodes] Name=gpu File=$dir/gpu[0-1]" > "$dir/gres.conf"
    for node in $(seq "$nodes"); do
        echo "NodeName=n$node NodeHostname=$(hostname) NodeAddr=127.0.0.1 Port=$((port + 1 + node)) CPUs=4 RealMemory=4000 Gres=gpu:2"
    done >> "$SLURM_CONF"
}

until_true() {
    for _ in $(seq 300); do
        "$@" >/dev/null 2>&1 && return 0
        sleep 0.1
    done
    echo "never came true: $*; see $dir" >&2
    exit 1
}

# A database daemon and Slurm's in front of it; the cluster is entered there by the controller itself.
start_accounting() {
    data=$((port + nodes + 3))
    mysql="mariadb --no-defaults --socket=$dir/mysql.sock"
    mariadb-install-db --no-defaults --user=root --datadir="$dir/mysql" --skip-test-db \
        --auth-root-authentication-method=socket >"$dir/start.log" 2>&1
    setsid mariadbd --no-defaults --user=root --datadir="$dir/mysql" --socket="$dir/mysql.sock" \
        --bind-address=127.0.0.1 --port="$data" --pid-file="$dir/mysql.pid" --innodb-buffer-pool-size=64M \
        --innodb-lock-wait-timeout=900 --innodb-flush-log-at-trx-commit=0 >>"$dir/start.log" 2>&1 </dev/null &
    until_true $mysql -e "select 1"
    $mysql -e "create user slurm@'127.0.0.1' identified by 'slurm'; create user slurm@localhost identified by 'slurm';
        grant all on slurm_acct_db.* to slurm@'127.0.0.1'; grant all on slurm_acct_db.* to slurm@localhost"
    cat > "$dir/slurmdbd.conf" <<EOF
AuthType=auth/none
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort=$((data - 1))
SlurmUser=root
PidFile=$dir/slurmdbd.pid
LogFile=$dir/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort=$data
StorageUser=slurm
StoragePass=slurm
EOF
    chmod 600 "$dir/slurmdbd.conf"
    cat >> "$SLURM_CONF" <<EOF
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=localhost
AccountingStoragePort=$((data - 1))
EOF
    slurmdbd >>"$dir/start.log" 2>&1 </dev/null
    until_true sacctmgr --noheader list cluster
    sacctmgr --immediate --quiet add cluster local >>"$dir/start.log" 2>&1 || true
}

start() {
    mkdir -p "$dir/state" "$dir/spool"
    write_configuration
    [ -z "${SLURM_ACCOUNTING:-}" ] || start_accounting
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
    *) sed -n '2,16s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
