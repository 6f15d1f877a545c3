#!/bin/sh
# Makes the machine's disk: a small Debian with its own kernel, systemd and control groups v2.
#
# build.sh ARCHIVE SUITE ARCHITECTURE RECIPE OUT
#
# ARCHIVE is a package archive (the caller takes the one that this computer uses), RECIPE the
# folder of this script. OUT receives `disk.raw` (ext4, sparse), `kernel` and `initrd`.
set -eu
archive=$1 suite=$2 architecture=$3 recipe=$4 out=$5

packages=systemd,systemd-sysv,udev,dbus,kmod,procps,passwd,mount,util-linux,iproute2,nftables
packages=$packages,ca-certificates,linux-image-cloud-$architecture
size=8G

tree=$out/tree
mkdir -p "$tree"

step() { echo "== $*"; }

step "packages of $suite"
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
set --
if [ -f "$keyring" ]; then set -- "--keyring=$keyring"; fi
debootstrap --variant=minbase --arch="$architecture" --include="$packages" "$@" \
    "$suite" "$tree" "$archive"

step "settings"
echo machine > "$tree/etc/hostname"
printf '127.0.0.1 localhost\n127.0.1.1 machine\n' > "$tree/etc/hosts"
# debootstrap copies this computer's resolvers; the machine reaches none.
: > "$tree/etc/resolv.conf"
# An id is made at the first start, as on every installed system.
: > "$tree/etc/machine-id"
rm -f "$tree/var/lib/dbus/machine-id"
rm -f "$tree/etc/apt/sources.list"
echo '/dev/vda / ext4 defaults 0 1' > "$tree/etc/fstab"
install -D -m 0644 "$recipe/uplink.network" "$tree/etc/systemd/network/50-uplink.network"
install -D -m 0644 "$recipe/journald.conf" "$tree/etc/systemd/journald.conf.d/machine.conf"
install -D -m 0644 "$recipe/machine-agent.service" \
    "$tree/etc/systemd/system/machine-agent.service"
install -D -m 0755 "$recipe/machine-agent" "$tree/usr/local/sbin/machine-agent"
chroot "$tree" systemctl enable systemd-networkd.service machine-agent.service
# Nobody logs in, nothing is upgraded: what is left out makes the emulated machine start sooner.
chroot "$tree" systemctl mask getty@tty1.service serial-getty@ttyS0.service \
    serial-getty@ttyAMA0.service apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer \
    e2scrub_all.timer e2scrub_reap.service
# So does an initrd of these drivers only.
sed -i 's/^MODULES=.*/MODULES=list/' "$tree/etc/initramfs-tools/initramfs.conf"
printf 'virtio_pci\nvirtio_blk\next4\n' >> "$tree/etc/initramfs-tools/modules"
chroot "$tree" update-initramfs -u -k all
chroot "$tree" apt-get clean
rm -rf "$tree"/var/lib/apt/lists/* "$tree"/usr/share/doc "$tree"/usr/share/man \
    "$tree"/usr/share/locale

step "disk"
cp -L "$tree"/vmlinuz "$out/kernel"
cp -L "$tree"/initrd.img "$out/initrd"
chmod 0644 "$out/kernel" "$out/initrd"
rm -f "$out/disk.raw"
mke2fs -q -t ext4 -L root -d "$tree" "$out/disk.raw" "$size"
rm -rf "$tree"
step "done"
