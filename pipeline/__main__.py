"""`python -m pipeline` is the `segpipe` command."""

from pipeline.cli import main

raise SystemExit(main())
