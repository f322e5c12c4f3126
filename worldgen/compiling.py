"""Functions compiled by `torch.compile`, where the user asks for it.

Functions:
    compiled: the compiled form of a function, made once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, ParamSpec, TypeVar

import torch

from worldgen.errors import ConfigError

__all__ = ["compiled"]

P = ParamSpec("P")
R = TypeVar("R")


@cache
def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Give the compiled form of a function of tensors.

    It is compiled at the first call with each shape, so that no result depends on the shapes that
    came before it.

    Raises:
        ConfigError: At a call, if it cannot be compiled here: on a CPU that takes a C++ compiler.
    """
    # Here, since they bring the whole compiler along, which takes seconds that few have a use for.
    from torch._dynamo.exc import TorchDynamoException
    from torch._inductor.exc import InductorError

    made: Callable[..., Any] = torch.compile(function, dynamic=False)

    def call(*arguments: P.args, **named: P.kwargs) -> R:
        try:
            result: R = made(*arguments, **named)
        except (TorchDynamoException, InductorError) as error:
            raise ConfigError(
                "`compiled` must be False where torch.compile does not work; on a CPU it needs a "
                f"C++ compiler such as g++, got {str(error).splitlines()[0]}"
            ) from error
        return result

    return call
