#!/bin/sh
# What an operator does with the package on a fresh Debian, step by step, and what must come of it.
cd /trial || exit
status=1
trap 'printf "status\t%s\n" "$status" >/dev/ttyS2; systemctl reboot --force --force' EXIT

step() { echo "trial: $*"; }

fail() {
    echo "trial: FAILED: $*"
    systemctl status --no-pager --full dataplane
    journalctl --no-pager --unit dataplane --lines 50
    exit 1
}

# The command, again and again until it succeeds.
eventually() {
    tries=0
    until "$@"; do
        tries=$((tries + 1))
        [ $tries -lt 300 ] || fail "waited in vain for: $*"
        sleep 0.2
    done
}

# Packets that the kernel has forwarded.
by_kernel() { awk '/^Ip: [0-9]/ { print $7 }' /proc/net/snmp; }

ping='ip netns exec c1 ping -n -q -i 0.05 -W 2'
outside=198.51.100.1

forwards() {
    before=$(by_kernel)
    $ping -c 5 $outside >/trial/pings || fail "$1: $(cat /trial/pings)"
    [ "$(by_kernel)" = "$before" ] || fail "$1: the kernel forwarded packets"
}

# The command, while packets are on the way: none is lost.
without_loss() {
    # Itself, and not a shell that runs it: what it has counted it tells when it is interrupted.
    $ping $outside >/trial/steady &
    "$@" || fail "$*"
    forwards "after $*"
    kill -INT $!
    wait $!
    grep -q ' 0% packet loss' /trial/steady || fail "$*: $(cat /trial/steady)"
    step "$*: $(grep loss /trial/steady)"
}

restarts() { systemctl show --property NRestarts --value dataplane; }

comes_back_after() {
    count=$(restarts)
    systemctl kill --signal="$1" dataplane
    eventually has_restarted "$count"
}

has_restarted() { [ "$(restarts)" -gt "$1" ] && systemctl --quiet is-active dataplane; }

. /etc/os-release
step "$PRETTY_NAME, Linux $(uname -r), $(systemctl --version | head -n 1)"

ip netns add c1
ip link add cali1 type veth peer name eth0 netns c1
ip -n c1 address add 172.19.35.2/32 dev eth0
ip -n c1 link set eth0 up
ip -n c1 route add 169.254.1.1 dev eth0 scope link
ip -n c1 route add default via 169.254.1.1
ip link set cali1 up
ip route add 172.19.35.2 dev cali1 scope link
ip netns add outside
ip link add uplink0 type veth peer name eth0 netns outside
ip -n outside address add 198.51.100.1/24 dev eth0
ip -n outside link set eth0 up
ip address add 198.51.100.10/24 dev uplink0
ip link set uplink0 up
eventually ping -n -q -c 1 -W 1 $outside >/dev/null

find / -xdev -not -path '/proc/*' -not -path '/sys/*' -not -path '/run/*' | sort >/trial/before
apt-get install --yes --quiet --no-install-recommends ./dataplane.deb >/trial/apt 2>&1 || fail "$(cat /trial/apt)"
systemctl --quiet is-enabled dataplane || fail "the unit is not enabled"
! systemctl --quiet is-active dataplane || fail "it runs without a file"
step "installed $(dpkg-query --show dataplane)"

sed -e 's/^#uplinks = .*/uplinks = ["uplink0"]/' -e 's/^#\(\[\[masquerade\]\]\)/\1/' -e 's/^#\(source = \)/\1/' \
    /etc/dataplane/node.toml.example >/etc/dataplane/node.toml
dataplane check || fail "the example is not valid"
systemctl start dataplane || fail "it does not start"
dataplane status || fail "it does not answer"
forwards "after the start"
[ "$(dataplane nat list --json | grep -c '"protocol": "icmp"')" -gt 0 ] || fail "nothing is translated"
step "started: it forwards, and translates"

without_loss systemctl restart dataplane
without_loss systemctl reload dataplane
without_loss comes_back_after KILL

# A daemon that stands still: the watchdog ends it.
mkdir -p /run/systemd/system/dataplane.service.d
printf '[Service]\nWatchdogSec=5\n' >/run/systemd/system/dataplane.service.d/trial.conf
systemctl daemon-reload
systemctl restart dataplane || fail "it does not start with another watchdog"
without_loss comes_back_after STOP

step "systemd-analyze security: $(systemd-analyze security --no-pager dataplane | tail -n 1)"

without_loss systemctl stop dataplane
apt-get install --yes --quiet --reinstall ./dataplane.deb >/trial/apt 2>&1 || fail "$(cat /trial/apt)"
forwards "after an upgrade"
step "upgraded: it forwards"

rm -r /run/systemd/system/dataplane.service.d
apt-get purge --yes --quiet dataplane >/trial/apt 2>&1 || fail "$(cat /trial/apt)"
[ -z "$(ip route show table all proto 171)" ] || fail "routes are left"
[ -z "$(tc qdisc show | grep clsact)" ] || fail "qdiscs are left"
[ ! -e /sys/fs/bpf/dataplane ] || fail "pins are left"
[ ! -e /run/dataplane ] || fail "/run/dataplane is left: $(ls /run/dataplane)"
! $ping -c 1 $outside >/dev/null || fail "something still forwards"
find / -xdev -not -path '/proc/*' -not -path '/sys/*' -not -path '/run/*' | sort >/trial/after
left=$(comm -13 /trial/before /trial/after | grep dataplane | grep -v '^/etc/dataplane\(/node.toml\)\?$')
[ -z "$left" ] || fail "after the purge there are still $left"
step "purged: nothing is left but /etc/dataplane/node.toml"
status=0
