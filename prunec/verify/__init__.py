"""Verification: exactness, lowering, quality and sparsity, each a number with a verdict."""

from prunec.callable_package import make_callable

make_callable(__name__)  # prunec.verify is also the public function
