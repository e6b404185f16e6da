#!/usr/bin/env bash
# A guest with a Debian kernel in software emulation: what `system_tests::guest` calls, one verb at a time.
#
#   guest.sh kernel DIR                    DIR/vmlinuz and DIR/modules/NN-name.ko in the order of loading; kept when there
#   guest.sh image DIR IMAGE INIT FILE...  IMAGE: an initrd that runs the shell text INIT, with FILEs and their libraries in /bin
#   guest.sh run DIR IMAGE ANSWERS ARG...  boots it with more arguments for QEMU; the second serial line goes to ANSWERS
#
# Needs qemu-system-x86, qemu-block-extra (iscsi:), busybox-static, cpio, kmod. The kernel is that of the package linux-image-amd64,
# fetched with apt-get download and unpacked in DIR, never installed; or the file DISKWIRE_GUEST_KERNEL, a linux-image-*.deb.
set -euo pipefail

# nvme-core makes one node of both controllers unless it is told not to; here each is a path of its own.
readonly wanted="virtio_pci virtio_scsi sd_mod sg nvme crc32c_generic crct10dif_generic"
readonly options_of_nvme_core="multipath=N"

kernel() {
    local dir=$1 package version number=0 line module
    [ -e "$dir/complete" ] && return
    rm -rf "$dir" && mkdir -p "$dir/package" "$dir/modules" && cd "$dir"
    if [ -n "${DISKWIRE_GUEST_KERNEL:-}" ]; then
        cp "$DISKWIRE_GUEST_KERNEL" kernel.deb
    else
        package=$(apt-cache depends linux-image-amd64 | sed -n 's/^ *Depends: //p' | head -n 1)
        [ -n "$package" ] || { echo "no package linux-image-amd64 is known here: apt-get update, or set DISKWIRE_GUEST_KERNEL" >&2; exit 1; }
        apt-get -qq download "$package" && mv "$package"_*.deb kernel.deb
    fi
    dpkg -x kernel.deb package
    version=$(basename package/boot/vmlinuz-* | cut -d- -f2-)
    cp "package/boot/vmlinuz-$version" vmlinuz
    depmod --basedir package "$version"
    for module in $wanted; do
        modprobe --dirname package --set-version "$version" --show-depends "$module"
    done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' | while read -r line; do
        cp "$line" "modules/$(printf %02d $number)-$(basename "$line")"
        number=$((number + 1))
    done
    rm -rf package kernel.deb
    touch complete
}

image() {
    local dir=$1 image=$2 init=$3 root file library
    shift 3
    root=$(mktemp -d)
    # shellcheck disable=SC2064 # expanded now: at the end of the script the name is unknown.
    trap "rm -rf '$root'" EXIT
    chmod 755 "$root"
    mkdir -p "$root"/{bin,dev,etc,modules,proc,sys,tmp}
    cp "$(command -v busybox)" "$root/bin/busybox"
    cp "$dir"/modules/*.ko "$root/modules/"
    printf 'root:x:0:0::/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n' > "$root/etc/passwd"
    for file in "$@"; do
        cp "$file" "$root/bin/"
        # A program without libraries has none to list.
        { ldd "$file" 2>/dev/null || true; } | grep -oE '/[^ ]+' | while read -r library; do
            mkdir -p "$root$(dirname "$library")" && cp -L "$library" "$root$library"
        done
    done
    cat > "$root/init" <<INIT
#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev; mount -t tmpfs tmp /tmp
for module in /modules/*.ko; do
    case \$module in *-nvme-core.ko) insmod \$module $options_of_nvme_core ;; *) insmod \$module ;; esac
done
# Answers go over a line of their own, where the kernel says nothing.
stty -F /dev/ttyS1 raw -echo
(
$(cat "$init")
) > /dev/ttyS1 2>&1
poweroff -f
INIT
    chmod +x "$root/init"
    (cd "$root" && find . | cpio --create --format=newc --quiet) | gzip -1 > "$image"
}

run() {
    local dir=$1 image=$2 answers=$3
    shift 3
    exec qemu-system-x86_64 -machine q35,accel=tcg -cpu max -smp 1 -m 512 -display none -monitor none -no-reboot -nic none \
        -serial stdio -serial "file:$answers" -kernel "$dir/vmlinuz" -initrd "$image" \
        -append "console=ttyS0 quiet panic=-1" "$@"
}

verb=$1
shift
case $verb in
kernel | image | run) "$verb" "$@" ;;
*) echo "guest.sh: kernel, image or run, not $verb" >&2; exit 2 ;;
esac
