#!/bin/sh
# Runs benchmarks.cuda on a machine that has Python 3.12 and torch but no internet, from a bundle/ that
# `make cuda-bundle` has made elsewhere: its wheels go into .cuda_bare/, beside what the machine has.
#   benchmarks/cuda_bare.sh --minutes 8 --out /tmp/results      PYTHON=python3 chooses the interpreter
# All arguments go to benchmarks.cuda, relative paths are the repository's, and the exit status is that of
# benchmarks.cuda; 2 without a bundle.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
site=$PWD/.cuda_bare
target=''

if ! ls bundle/*.whl >/dev/null 2>&1; then
    echo "no wheels in $PWD/bundle: run 'make cuda-bundle' where there is internet and bring the folder here" >&2
    exit 2
fi

# --isolated: what PIP_* variables say of targets and versions is meant for other things
install() {
    "$python" -m pip --isolated install --quiet --no-cache-dir --disable-pip-version-check --no-index --no-deps \
        ${target:+--target "$target"} "$@"
}

# the machine's Python may be of a virtual environment itself, whose packages another one sees by these lines only.
# Not by PYTHONPATH: it would have to reach all processes that the tests start
see_the_machine='
import sys, sysconfig
own = sysconfig.get_path("purelib", vars={"base": sys.argv[1]})
folders = [path for path in sys.path if path.endswith("-packages")] if sys.prefix != sys.base_prefix else []
lines = [f"import site; site.addsitedir({path!r})\n" for path in folders]
open(own + "/machine.pth", "w").write("".join(lines))
'
sees='import importlib.util as i; raise SystemExit(not (i.find_spec("torch") and i.find_spec("pip")))'
if "$python" -m venv --clear --without-pip --system-site-packages "$site" >/dev/null 2>&1 &&
    "$python" -c "$see_the_machine" "$site" && "$site/bin/python" -c "$sees"; then
    python=$site/bin/python
else
    rm -rf "$site"
    target=$site
    export PYTHONPATH="$site${PYTHONPATH:+:$PYTHONPATH}"
fi

# one wheel that does not fit must not cost the others
install bundle/*.whl || for wheel in bundle/*.whl; do
    install "$wheel" || echo "going on without $wheel" >&2
done
exec "$python" -m benchmarks.cuda "$@"
