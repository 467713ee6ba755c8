"""The plan, which is a file, and the planners that write it."""

from prunec.callable_package import make_callable

make_callable(__name__)  # prunec.plan is also the public function
