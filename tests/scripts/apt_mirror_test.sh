#!/bin/sh
# scripts/lib/apt-mirror reads both formats of apt's sources as people and images write them.
set -eu
apt_mirror=$1
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
failed=0

sources() { # FILE, content from standard input: the only source of the next expectation
    rm -rf "$dir/etc"
    mkdir -p "$dir/etc/sources.list.d"
    cat >"$dir/etc/$1"
}
also() { cat >"$dir/etc/$1"; }
expect() { # SENTENCE ADDRESS KEYRING
    got=$(APT_ETC=$dir/etc sh "$apt_mirror" bookworm oldstable || echo none)
    want=$(printf '%s\n%s' "$2" "$3")
    [ "$2" != none ] || want=none
    if [ "$got" = "$want" ]; then
        echo "ok: $1"
    else
        printf 'FAILED: %s\nwant: %s\ngot:  %s\n' "$1" "$want" "$got"
        failed=1
    fi
}

sources sources.list <<'END'
# deb http://commented.test/debian bookworm main
deb-src http://source.test/debian bookworm main
deb cdrom:[Debian GNU/Linux 12.0 _Bookworm_]/ bookworm main
deb http://security.test/debian-security bookworm-security main
deb http://contrib.test/debian bookworm contrib
deb http://mirror.test/debian/ bookworm main non-free-firmware # a comment
deb http://later.test/debian bookworm main
END
expect "one line: the first entry with the suite and main" http://mirror.test/debian ""

sources sources.list <<'END'
deb [ arch=amd64,arm64 signed-by=/keys/own.gpg trusted=no ] https://mirror.test/debian bookworm main
END
expect "one line: options in brackets" https://mirror.test/debian /keys/own.gpg

sources sources.list <<'END'
	deb	[check-valid-until=no]	http://snapshot.test/archive/debian/20250520T000000Z	bookworm	main
END
expect "one line: tabs, and a snapshot" http://snapshot.test/archive/debian/20250520T000000Z ""

sources sources.list.d/debian.sources <<'END'
# A comment before the first stanza
Types: deb
# and one inside
URIs: http://mirror.test/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /keys/debian.gpg

Types: deb
URIs: http://security.test/debian-security
Suites: bookworm-security
Components: main
Signed-By: /keys/debian.gpg
END
expect "deb822: as Debian's images have it" http://mirror.test/debian /keys/debian.gpg

sources sources.list.d/debian.sources <<'END'
Types: deb deb-src
URIs: http://disabled.test/debian
Suites: bookworm
Components: main
Enabled: no

types: deb-src
uris: http://source.test/debian
suites: bookworm
components: main


types: deb-src deb
uris:
 cdrom:[Debian]/
 http://mirror.test/debian/
suites:
 bookworm-updates
 bookworm
components: contrib
 main
END
expect "deb822: disabled ones, sources, lines that go on, case of names" http://mirror.test/debian ""

sources sources.list.d/debian.sources <<'END'
Types: deb
URIs: http://mirror.test/debian
Suites: oldstable
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mDMEYOZc
 -----END PGP PUBLIC KEY BLOCK-----
END
expect "deb822: a suite by its other name, a key inside the entry" http://mirror.test/debian ""

sources sources.list.d/a.sources <<'END'
Types: deb
URIs: mirror+file:/etc/apt/mirrors/debian.list
Suites: bookworm
Components: main
END
also sources.list.d/b.sources <<'END'
Types: deb
URIs: http://second.test/debian
Suites: bookworm
Components: main
END
expect "deb822: a file ends its last stanza" mirror+file:/etc/apt/mirrors/debian.list ""

sources sources.list.d/trixie.sources <<'END'
Types: deb
URIs: http://mirror.test/debian
Suites: trixie
Components: main
END
also sources.list </dev/null
expect "another release is none of ours" none ""

rm -rf "$dir/etc"
mkdir "$dir/etc"
expect "no sources at all" none ""

exit $failed
