#!/bin/sh
# scripts/setup says what is wrong before it touches anything.
set -eu
setup=$1
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
failed=0

expect() { # SENTENCE STATUS PATTERN COMMAND…
    sentence=$1 want=$2 pattern=$3
    shift 3
    status=0
    "$@" >"$dir/out" 2>&1 || status=$?
    if [ $status -eq "$want" ] && grep -q "$pattern" "$dir/out"; then
        echo "ok: $sentence"
    else
        echo "FAILED: $sentence (exit $status, wanted $want with '$pattern')"
        cat "$dir/out"
        failed=1
    fi
}

printf 'ID=fedora\nPRETTY_NAME="Fedora Linux 40"\nVERSION_ID=40\n' >"$dir/fedora"
printf 'ID=debian\nPRETTY_NAME="Debian GNU/Linux 11 (bullseye)"\nVERSION_ID="11"\n' >"$dir/bullseye"

expect "not Debian" 1 "Fedora Linux 40; only Debian 12 and 13" env OUTRIDER_OS_RELEASE="$dir/fedora" sh "$setup"
expect "Debian too old" 1 "11 (bullseye) is too old" env OUTRIDER_OS_RELEASE="$dir/bullseye" sh "$setup"
expect "no os-release" 1 "no /etc/os-release" env OUTRIDER_OS_RELEASE="$dir/none" sh "$setup"
expect "unknown profile" 2 "usage:" sh "$setup" everything

# Neither root nor sudo, something missing: a PATH with only what the script asks before that point.
mkdir "$dir/bin"
for tool in dirname sed head grep cat rm mktemp dpkg dpkg-query apt-get; do
    ln -s "$(command -v "$tool")" "$dir/bin/$tool"
done
rm "$dir/bin/dpkg-query"
printf '#!/bin/sh\nexit 1\n' >"$dir/bin/dpkg-query"
printf '#!/bin/sh\necho 1000\n' >"$dir/bin/id"
chmod +x "$dir/bin/dpkg-query" "$dir/bin/id"
expect "neither root nor sudo" 1 "neither root nor sudo" env PATH="$dir/bin" /bin/sh "$setup"

exit $failed
