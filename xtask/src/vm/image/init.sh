#!/usr/bin/busybox sh
# The first process: mounts what a system mounts, runs /command on the second serial line, tells its status on the
# third, and ends the machine. The first is the kernel's console.
export PATH=/usr/sbin:/usr/bin:/usr/lib/busybox HOME=/tmp
busybox mount -t devtmpfs devtmpfs /dev
printf 'up\n' >/dev/ttyS2
busybox mount -t proc proc /proc
busybox --install -s /usr/lib/busybox
mount -t sysfs sysfs /sys
mkdir -p /dev/pts /dev/shm /var/tmp
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tracefs tracefs /sys/kernel/tracing
mount -t bpf bpf /sys/fs/bpf
ln -s /proc/self/fd /dev/fd
ln -s /run /var/run
mkdir -p /run/lock
hostname vm
ip link set lo up
cd /tmp

stty -F /dev/ttyS1 115200 raw -echo
if grep -q ' vm.shell' /proc/cmdline; then
    stty -F /dev/ttyS1 sane
    setsid -c /command <>/dev/ttyS1 >&0 2>&1
else
    /command </dev/null >/dev/ttyS1 2>&1
fi
status=$?

# What the command left in /run/report, each line of a file behind the file's name.
for file in /run/report/*; do
    [ -f "$file" ] && sed "s/^/${file##*/}\t/" "$file" >/dev/ttyS2
done
printf 'status\t%s\n' "$status" >/dev/ttyS2
sync
reboot -f
