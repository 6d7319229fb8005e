"""Say whether a learner's function is right, and if not, which mistake it makes. 检查练习，说出错在哪里。

A mistake is a function, too: the exercise done wrong in one way. Where a learner's results are those of a mistake, the
check names it; else it shows the first result that differs.
"""

import copy
import importlib
from collections.abc import Callable
from typing import Any

import torch

NOTHING_WRITTEN = "还没有写：请把 raise NotImplementedError 换成你的代码。 · Nothing is written yet."
RIGHT = "对了！ · Right!"


def check(exercise: str, function: Callable) -> None:
    """Print whether a function does what its exercise asks.

    Args:
        exercise: The name of a file in `solutions`.
        function: What the learner has written.
    """
    print(find_mistake(exercise, function) or RIGHT)


def find_mistake(exercise: str, function: Callable) -> str | None:
    """Return what is wrong with a function in Chinese and English, or None where it is right."""
    answer = importlib.import_module(f"course.exercises.solutions.{exercise}")
    right, got = run(answer.solution, answer.CASES), []
    for case in answer.CASES:
        try:
            got.append(function(*copy.deepcopy(case)))
        except NotImplementedError:
            return NOTHING_WRITTEN
        except Exception as error:
            return f"出错了 · It stops with {type(error).__name__}: {error}\n{show(case)}"
    differs = [number for number, result in enumerate(got) if not same(result, right[number])]
    if not differs:
        return None
    first = differs[0]
    if all(same(as_type_of(expected, result), expected) for expected, result in zip(right, got, strict=True)):
        types = f"{kind(got[first])}, not {kind(right[first])}"
        return f"数值对了，类型不对。 · The values are right, their type is not: {types}."
    for text, mistake in answer.MISTAKES.items():
        wrong = run(mistake, answer.CASES)
        if all(same(*results) for results in zip(got, wrong, strict=True)):
            return text
    return (
        f"不对，但不是常见的错误。 · It is wrong, in a way of its own.\n{show(answer.CASES[first])}\n"
        f"应该是 · right: {describe(right[first])}\n得到的是 · got:   {describe(got[first])}"
    )


def run(function: Callable, cases: list[tuple]) -> list[Any]:
    """Return what a function makes of each case; it may change its arguments."""
    return [function(*copy.deepcopy(case)) for case in cases]


def same(result: Any, expected: Any) -> bool:
    """Whether two results are equal: tensors of one shape and kind of numbers to 1e-5, anything else exactly."""
    if not isinstance(expected, torch.Tensor):
        return type(result) is type(expected) and result == expected
    if not isinstance(result, torch.Tensor) or result.shape != expected.shape or kind(result) != kind(expected):
        return False
    return torch.allclose(result.double(), expected.double(), rtol=0, atol=1e-5, equal_nan=True)


def kind(value: Any) -> str:
    """Name the type of a value; of a tensor, what numbers it has."""
    if not isinstance(value, torch.Tensor):
        return type(value).__name__
    return "bool" if value.dtype == torch.bool else "float" if value.is_floating_point() else "int"


def as_type_of(expected: Any, result: Any) -> Any:
    """Return a result with the type that was asked for, where its values allow that; else as it is."""
    if isinstance(expected, torch.Tensor) and isinstance(result, torch.Tensor):
        turned = result.to(expected.dtype)
        return turned if bool((turned.to(result.dtype) == result).all()) else result
    if isinstance(expected, list) and isinstance(result, tuple):
        return list(result)
    return result


def show(case: tuple) -> str:
    """Say which arguments a function had."""
    return "参数 · arguments:\n" + "\n".join(f"  {describe(argument)}" for argument in case)


def describe(value: Any) -> str:
    """Say a value in a few lines, a tensor with its shape."""
    if isinstance(value, torch.Tensor):
        return f"{tuple(value.shape)} {value.dtype}\n{value}"
    return repr(value) if not callable(value) else f"{value.__name__}()"
