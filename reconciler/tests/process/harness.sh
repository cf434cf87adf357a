#!/bin/sh
# Stands in for the harness. What it does is written in `behaviour` in its state folder.
while [ $# -gt 0 ]; do
    case $1 in
    --socket) socket=$2 ;;
    --config) config=$2 ;;
    --state) state=$2 ;;
    esac
    shift
done
behaviour=$(cat "$state/behaviour" 2>/dev/null)

# The trap is set before anybody is told that it runs.
case $behaviour in
deaf) trap '' TERM ;;
*) trap 'echo TERM >>"$state/ended"; exit 0' TERM ;;
esac
echo started >>"$state/starts"

case $behaviour in
fail)
    echo "the stand-in fails as it was told" >&2
    exit 3
    ;;
leftover)
    (trap '' TERM; echo "$(cut -d' ' -f4 /proc/self/stat)" >"$state/leftover"; while :; do sleep 1; done) &
    ;;
spy)
    ls -l /proc/1/fd >"$state/open"
    {
        while read -r path; do
            if [ -e "$path" ] || [ -L "$path" ]; then echo "sees $path"; fi
        done <"$state/paths"
        for folder in / "$config" /usr /etc /run/hive; do
            if (: >"$folder/planted") 2>/dev/null; then echo "writes $folder"; fi
        done
        if unshare -U true 2>/dev/null; then echo "makes namespaces"; fi
        echo "root: $(ls -A / | tr '\n' ' ')"
        echo "socket: $socket"
        echo "user: $(id -u) $(id -un) on $(cat /proc/sys/kernel/hostname)"
        echo "environment: $(env | cut -d= -f1 | sort | tr '\n' ' ')"
        echo "interfaces: $(tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' ' | tr '\n' ' ')"
        echo "processes: $(ls /proc | grep -c '^[0-9]')"
        echo "privileges: $(grep -c '^Cap.*[1-9a-f]$' /proc/self/status)"
    } >"$state/report.part" 2>&1
    mv "$state/report.part" "$state/report"
    ;;
secrets)
    {
        for file in "$CREDENTIALS_DIRECTORY"/*; do
            if (: >"$file") 2>/dev/null; then echo "writes $file"; fi
            # Backwards: the secret itself is to be in no file of the host.
            echo "$(stat -c '%n %u %a' "$file") $(rev "$file")"
        done
        if (: >"$CREDENTIALS_DIRECTORY/planted") 2>/dev/null; then echo "plants"; fi
        echo "environment: $(env | cut -d= -f1 | sort | tr '\n' ' ')"
    } >"$state/report.part" 2>&1
    mv "$state/report.part" "$state/report"
    ;;
esac

while :; do
    # A trap interrupts `wait`, not `sleep`.
    sleep 1 &
    wait $!
done
