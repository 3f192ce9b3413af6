#!/bin/sh
# check_machine.sh [PYTHON [GOAL]]: is everything here that building pagedup needs? If not, it prints the one command
# that installs what is missing, and exits 1. It installs nothing itself. PYTHON is a command or a path; default:
# python3. GOAL is what was asked of make, for the messages.
set -u
python=${1:-python3}
goal=${2:-demo}

fail() {
    printf 'pagedup: %s\n' "$1" >&2
    shift
    for line; do printf '    %s\n' "$line" >&2; done
    exit 1
}

[ "$(uname -s)" = Linux ] || fail "runs on Linux only, and this is $(uname -s)"

for manager in apt-get dnf zypper pacman apk ""; do
    command -v "${manager:-true}" > /dev/null 2>&1 && break
done
sudo="sudo "
[ "$(id -u)" -eq 0 ] && sudo=""

# The one command that installs the packages given.
install_command() {
    case $manager in
        apt-get)
            ls /var/lib/apt/lists/*Packages* > /dev/null 2>&1 || printf '%s' "${sudo}apt-get update && "
            echo "${sudo}apt-get install $*"
            ;;
        pacman) echo "${sudo}pacman -S $*" ;;
        apk) echo "${sudo}apk add $*" ;;
        ?*) echo "$sudo$manager install $*" ;;
        *) echo "(your system's package manager) $*" ;;
    esac
}

# The package of a part: python, venv, headers, compiler or libc. $debian is how Debian's packages of this Python begin.
debian=python3
package() {
    case $manager:$1 in
        apk:compiler) echo gcc musl-dev ;;
        *:compiler) echo gcc ;;
        apt-get:python) echo "$debian" ;;
        apt-get:venv) echo "$debian-venv" ;;
        apt-get:headers) echo "$debian-dev" ;;
        apt-get:libc) echo libc6-dev ;;
        pacman:python | pacman:venv | pacman:headers) echo python ;;
        pacman:libc) echo glibc ;;
        apk:headers) echo python3-dev ;;
        apk:libc) echo musl-dev ;;
        *:python | *:venv) echo python3 ;;
        *:headers) echo python3-devel ;;
        *:libc) echo glibc-devel ;;
    esac
}

new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' > /dev/null 2>&1; }
ask() { "$python" -c "import sys, sysconfig; print($1)" 2> /dev/null; }

what="" packages=""
lacks() { # PART, in words
    what="$what${what:+, }$2"
    found=$(package "$1")
    case " $packages " in *" $found "*) ;; *) packages="$packages${packages:+ }$found" ;; esac
}

# The interpreter.
if command -v "$python" > /dev/null 2>&1; then
    version=$(ask '"%d.%d" % sys.version_info[:2]')
    if ! new_enough "$python"; then
        newer=""
        for v in 3.14 3.13 3.12 3.11; do
            new_enough "python$v" && fail "needs Python 3.11 or newer, and $python is ${version:-broken}. This one is there:" \
                "make PYTHON=python$v $goal"
            [ -z "$newer" ] && [ "$manager" = apt-get ] && apt-cache show "python$v" > /dev/null 2>&1 && newer=$v
        done
        [ -n "$newer" ] || fail "needs Python 3.11 or newer, and $python is ${version:-broken}; with another one:" \
            "make PYTHON=/path/to/python3 $goal"
        fail "needs Python 3.11 or newer, and $python is ${version:-broken}. Install one, and use it:" \
            "$(install_command "python$newer" "python$newer-venv" "python$newer-dev") && make PYTHON=python$newer $goal"
    fi
    system=$(/usr/bin/python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2> /dev/null)
    [ "$version" = "$system" ] || debian=python$version
    "$python" -c 'import venv, ensurepip' > /dev/null 2>&1 || lacks venv "Python's venv module with ensurepip"
    include=$(ask 'sysconfig.get_path("include")')
    [ -f "$include/Python.h" ] || lacks headers "Python.h ($include)"
    case $(ask sys.base_prefix):$what in
        /usr: | /usr:*) ;;
        *:?*) fail "$python was not installed by the system's packages and lacks $what. Use another one:" \
            "make PYTHON=/usr/bin/python3 $goal" ;;
    esac
elif [ "$python" = python3 ]; then
    lacks python "Python 3.11 or newer"
    lacks venv "Python's venv module"
    lacks headers "Python.h"
else
    fail "there is no $python; choose the interpreter with:" "make PYTHON=/path/to/python3 $goal"
fi

# The compiler: the one that this Python asks for, unless $CC says otherwise.
compiler=${CC:-$(ask 'sysconfig.get_config_var("CC")')}
compiler=${compiler:-gcc}
if ! command -v "${compiler%% *}" > /dev/null 2>&1; then
    for other in gcc clang cc; do
        [ -z "${CC:-}" ] && command -v "$other" > /dev/null 2>&1 &&
            fail "$python asks for the C compiler ${compiler%% *}, which is not there; this one is:" "CC=$other make $goal"
    done
    lacks compiler "a C compiler"
# shellcheck disable=SC2086  # it may be a command with options
elif ! printf '#include <string.h>\nint main(void) { return 0; }\n' | $compiler -x c -o /dev/null - > /dev/null 2>&1; then
    lacks libc "the C library's headers"
fi

[ -z "$what" ] || fail "this machine lacks $what. The command that installs what is missing:" \
    "$(install_command "$packages")"
