#!/usr/bin/busybox sh
# The first process: unpacks a fresh Debian into memory and hands over to its systemd, which runs /trial/run.
export PATH=/usr/bin:/usr/lib/busybox
busybox mount -t devtmpfs devtmpfs /dev
printf 'up\n' >/dev/ttyS2
busybox mount -t proc proc /proc
busybox --install -s /usr/lib/busybox
mkdir /debian
mount -t tmpfs -o size=75%,mode=755 tmpfs /debian
tar -xf /debian.tar -C /debian && rm /debian.tar
cp -a /usr/lib/modules /debian/usr/lib/
mkdir /debian/trial
cp /trial.sh /debian/trial/run
cp /dataplane.deb /debian/trial/
cp /trial.service /debian/etc/systemd/system/
mkdir -p /debian/etc/systemd/system/multi-user.target.wants
ln -s ../trial.service /debian/etc/systemd/system/multi-user.target.wants/trial.service
ln -sf /usr/lib/systemd/system/multi-user.target /debian/etc/systemd/system/default.target
echo debian >/debian/etc/hostname
stty -F /dev/ttyS1 115200 raw -echo
umount /proc
mount -o move /dev /debian/dev
exec switch_root /debian /sbin/init
