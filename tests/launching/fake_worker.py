"""A real worker process whose training and evaluation are the stand-ins."""

import launch_fakes

launch_fakes.install()

from davinci.launching.worker import main  # noqa: E402

main()
