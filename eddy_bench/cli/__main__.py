"""`python -m eddy_bench.cli`."""

from eddy_bench.cli.app import main

main()
