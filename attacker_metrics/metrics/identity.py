"""What a thing is, by value: the same words in every process for two metrics, attackers or similarities that do the same.

Numbers are told apart by their value, not their type; a device does not count, nor does the module in which a class or a
function of this library lives, nor the name of the main module. Functions that cannot be imported by their name (lambdas,
functions inside functions, those of the main module) are told apart by their code and what they close over, objects by
their class and what pickle would store, torch modules by their parameters and buffers. What can be described in none of
these ways (a handle of a library in C, an open file) is itself only: equal to no other object.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import functools
import hashlib
import inspect
import itertools
import numbers
import re
import sys
import threading
import types
import weakref
from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_PACKAGE = __name__.partition(".")[0]
_DEVICE = re.compile(r"(cpu|cuda|mps|xpu|hpu|xla|npu|mtia|meta)(:\d+)?")
_MODULE_BOOKKEEPING = frozenset({*vars(nn.Module()), "_is_full_backward_hook"})
_CLASS_BOOKKEEPING = {
    *("__dict__", "__weakref__", "__doc__", "__module__", "__qualname__", "__annotations__", "__slots__", "__hash__"),
    *("__firstlineno__", "__static_attributes__", "__annotate_func__", "__annotations_cache__"),
    *("__match_args__", "__dataclass_params__", "_abc_impl"),
}
_BY_NAME = (
    types.ModuleType,
    types.MemberDescriptorType,
    types.GetSetDescriptorType,
    types.WrapperDescriptorType,
    types.MethodDescriptorType,
    types.ClassMethodDescriptorType,
    torch.dtype,
    torch.layout,
    torch.memory_format,
)
_LOCKS = (type(threading.Lock()), type(threading.RLock()), threading.Condition, threading.Event, threading.local)
_tokens: dict[int, tuple[Any, str]] = {}
_remembered: dict[tuple[int, bool], tuple[Any, str]] = {}
_number_of_token = itertools.count()


@dataclasses.dataclass(frozen=True)
class Learned:
    """What was learned: part of what a thing is now, but not of how it was set up, after which stored states are named."""

    content: Any


@dataclasses.dataclass(frozen=True)
class Identity:
    """What :func:`identity_of` found: the words, and which parts are known as nothing but themselves."""

    text: str
    unidentified: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """Eight hexadecimal digits of the words."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:8]


def identity_of(thing: Any, *, learned: bool = True, remember: bool = False) -> Identity:
    """Describe a thing by value.

    A class of one's own says what its objects are, where pickle's view would be too narrow or too wide, by a method
    ``__metric_identity__()`` that returns a number, a text or a tuple of such.

    Args:
        thing: anything.
        learned: whether the parameters and buffers of torch modules, and other things :class:`Learned`, count.
        remember: whether objects inside keep these words from now on, although they may count their calls or fill caches.

    Example:
        >>> from attacker_metrics.attackers import Blur
        >>> identity_of(Blur(2)) == identity_of(Blur(2.0)) != identity_of(Blur(3.0))
        True
    """
    reader = _Reader(learned, remember)
    try:
        text = reader.read(thing)
    except RecursionError:
        reader.unidentified = []
        text = reader.opaque(thing)
    return Identity(text, tuple(dict.fromkeys(reader.unidentified)))


def is_of_this_library(thing: Any) -> bool:
    """Whether a class or a function is the library's own."""
    return str(getattr(thing, "__module__", "")).partition(".")[0] == _PACKAGE


class _Reader:
    def __init__(self, learned: bool, remember: bool) -> None:
        self.learned, self.remember = learned, remember
        self.unidentified: list[str] = []
        self._inside: dict[int, int] = {}  # what is being described -> its depth

    def read(self, thing: Any) -> str:
        simple = self._simple(thing)
        if simple is not None:
            return simple
        if id(thing) in self._inside:
            return f"cycle {self._inside[id(thing)]}"
        self._inside[id(thing)] = len(self._inside)
        try:
            return self._composite(thing)
        finally:
            del self._inside[id(thing)]

    def opaque(self, thing: Any) -> str:
        self.unidentified.append(f"{type(thing).__module__}.{type(thing).__qualname__}")
        return f"only {_token(thing)}"

    def _simple(self, thing: Any) -> str | None:
        if thing is None or thing is Ellipsis or isinstance(thing, bytes | bytearray):
            return repr(thing)
        if isinstance(thing, enum.Enum):
            return f"{_name(type(thing))}.{thing.name}"
        if isinstance(thing, str):
            return "device" if _DEVICE.fullmatch(thing) else repr(str(thing))
        if isinstance(thing, numbers.Number | np.bool_):
            return _number(thing)
        if isinstance(thing, torch.device):
            return "device"
        if isinstance(thing, Tensor | np.ndarray):
            return self._array(thing)
        if isinstance(thing, PurePath):
            return repr(thing.as_posix())
        if isinstance(thing, _LOCKS):
            return "lock"
        if isinstance(thing, _BY_NAME):
            return getattr(thing, "__qualname__", None) or getattr(thing, "__name__", None) or str(thing)
        return None

    def _composite(self, thing: Any) -> str:
        own_words = getattr(type(thing), "__metric_identity__", None)
        if own_words is not None:
            return f"{self.read(type(thing))}({self.read(own_words(thing))})"
        if isinstance(thing, type):
            return self._class(thing)
        if type(thing) in (tuple, list, torch.Size):
            return f"[{', '.join(map(self.read, thing))}]"
        if isinstance(thing, set | frozenset):
            return f"set[{', '.join(sorted(map(self.read, thing)))}]"
        if type(thing) is dict or isinstance(thing, types.MappingProxyType):
            return self._mapping(thing)
        if isinstance(thing, Learned):
            return f"learned {self.read(thing.content)}" if self.learned else "learned"
        if isinstance(thing, functools.partial):
            return self._partial(thing)
        if isinstance(thing, types.FunctionType):
            return self._function(thing)
        if isinstance(thing, types.MethodType):
            return f"{self.read(thing.__func__)} of {self.read(thing.__self__)}"
        if isinstance(thing, types.BuiltinFunctionType) and isinstance(thing.__self__, types.ModuleType | None):
            return _name(thing)
        if isinstance(thing, types.BuiltinFunctionType | types.MethodWrapperType):
            return f"{thing.__name__} of {self.read(thing.__self__)}"
        if isinstance(thing, staticmethod | classmethod):
            return f"{type(thing).__name__} {self.read(thing.__func__)}"
        if isinstance(thing, property):
            return f"property {self.read((thing.fget, thing.fset))}"
        if isinstance(thing, weakref.ReferenceType):
            return self.read(thing())
        if isinstance(thing, torch.jit.ScriptFunction):
            return f"script {thing.code!r}"
        if isinstance(thing, nn.Module):
            return self._module(thing)
        if dataclasses.is_dataclass(thing):
            values = {f.name: getattr(thing, f.name, None) for f in dataclasses.fields(thing) if f.compare}
            return f"{self.read(type(thing))}({self._mapping(values)})"
        if _can_be_imported(thing):  # a ufunc, an operator of torch, a function behind lru_cache
            return _name(thing)
        return self._object(thing)

    def _mapping(self, values: Mapping[Any, Any]) -> str:
        items = sorted((self.read(key), value) for key, value in values.items()) if _sortable(values) else []
        if items:
            return "{" + ", ".join(f"{key}: {self.read(value)}" for key, value in items) + "}"
        return "{" + ", ".join(sorted(f"{self.read(key)}: {self.read(value)}" for key, value in values.items())) + "}"

    def _array(self, thing: Any) -> str:
        try:
            if isinstance(thing, Tensor):
                if thing.is_meta:
                    return f"meta {tuple(thing.shape)} {thing.dtype}"
                thing = thing.detach()
                thing = thing.to_dense() if thing.layout is not torch.strided else thing
                thing = thing.dequantize() if thing.is_quantized else thing
                if thing.ndim == 0:
                    return self.read(thing.item())
                what = f"{tuple(thing.shape)} {thing.dtype}"
                content = thing.resolve_conj().resolve_neg().cpu().contiguous().view(torch.uint8).numpy().tobytes()
            elif thing.ndim == 0:
                return self.read(thing.item())
            elif thing.dtype.hasobject:
                return f"array {self.read(thing.tolist())}"
            else:
                what, content = f"{thing.shape} {thing.dtype.str}", thing.tobytes()
        except (RuntimeError, TypeError, NotImplementedError):  # a tensor that stands for others, such as a traced one
            return self.opaque(thing)
        return f"array {what} {hashlib.sha256(content).hexdigest()[:32]}"

    def _partial(self, thing: functools.partial[Any]) -> str:
        """The function and its arguments by name, so that it does not matter how they were passed."""
        try:
            signature = inspect.signature(thing.func)
            bound = dict(signature.bind_partial(*thing.args, **thing.keywords).arguments)
        except (TypeError, ValueError):
            bound = {"args": thing.args, **thing.keywords}
        return f"partial {self.read(thing.func)} {self._mapping(bound)}"

    def _function(self, thing: types.FunctionType) -> str:
        name = _name(thing)
        if _can_be_imported(thing):
            return name
        if not self.learned and "<" not in name:
            return name
        inside = dict(zip(thing.__code__.co_freevars, map(_content, thing.__closure__ or ()), strict=True))
        own = {key: value for key, value in vars(thing).items() if key != "__wrapped__"}
        parts = (self._code(thing.__code__), inside, thing.__defaults__, thing.__kwdefaults__, own)
        return f"{name} {self.read(parts)}"

    def _code(self, code: types.CodeType) -> str:
        """The instructions without where they stand."""
        constants = [self._code(c) if isinstance(c, types.CodeType) else self.read(c) for c in code.co_consts]
        words = repr((code.co_code, constants, code.co_names, code.co_freevars, code.co_argcount, code.co_kwonlyargcount))
        return hashlib.sha256(words.encode()).hexdigest()[:16]

    def _class(self, thing: type) -> str:
        name = _name(thing)
        if _can_be_imported(thing) or (not self.learned and "<" not in name):
            return name
        members = {key: value for key, value in vars(thing).items() if key not in _CLASS_BOOKKEEPING}
        if dataclasses.is_dataclass(thing):  # the decorator's methods are made of the fields
            members = {key: value for key, value in members.items() if not key.startswith("__")}
        return f"{name} {self.read(thing.__bases__)} {self._mapping(members)}"

    def _module(self, thing: nn.Module) -> str:
        if isinstance(thing, torch.jit.ScriptModule):
            return f"script {thing.original_name} {self.read((_code_of_script(thing), Learned(dict(thing.state_dict()))))}"
        settings = {key: value for key, value in vars(thing).items() if key not in _MODULE_BOOKKEEPING}
        own = {key: value for key, value in (thing._parameters | thing._buffers).items() if value is not None}
        shapes = {key: tuple(value.shape) for key, value in own.items() if not isinstance(value, nn.UninitializedParameter)}
        parts = (settings, shapes, Learned(own), dict(thing._modules), _hooks(thing))
        return f"{self.read(type(thing))}({self.read(parts)})"

    def _object(self, thing: Any) -> str:
        """By what pickle would store, or did when a metric began to count."""
        key = (id(thing), self.learned)
        if key in _remembered:
            return _remembered[key][1]
        before = len(self.unidentified)
        text = self._stored(thing)
        if self.remember and len(self.unidentified) == before and "learned" not in text and "cycle" not in text:
            with contextlib.suppress(TypeError):  # no weak reference to it
                _remembered[key] = weakref.ref(thing, lambda _: _remembered.pop(key, None)), text
        return text

    def _stored(self, thing: Any) -> str:
        try:
            reduced = thing.__reduce_ex__(2)
        except Exception:
            return self.opaque(thing)
        if isinstance(reduced, str):
            return f"{_home(type(thing))}{reduced}"
        return f"object {self.read([list(part) if hasattr(part, '__next__') else part for part in reduced])}"


def _sortable(values: Mapping[Any, Any]) -> bool:
    return all(isinstance(key, str) for key in values) and len(values) > 0


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # a variable that has no value yet
        return None


def _number(value: Any) -> str:
    try:
        if isinstance(value, numbers.Integral | np.bool_) or (value == value // 1 and abs(value) < 2**53):
            return str(int(value))
    except (TypeError, ArithmeticError, ValueError):  # complex, infinite
        pass
    if isinstance(value, numbers.Real):
        return repr(float(value))
    return repr(complex(value)) if isinstance(value, numbers.Complex) else repr(value)


def _home(thing: Any) -> str:
    module = str(getattr(thing, "__module__", None) or "")
    if module == "__mp_main__":  # what spawned processes call the main module
        module = "__main__"
    return f"{_PACKAGE if is_of_this_library(thing) else module}."


def _name(thing: Any) -> str:
    return _home(thing) + str(getattr(thing, "__qualname__", None) or getattr(thing, "__name__", ""))


def _can_be_imported(thing: Any) -> bool:
    """Whether its name alone says what a thing is. That of the main module may be given again, as notebooks do."""
    module = getattr(thing, "__module__", None)
    name = getattr(thing, "__qualname__", None) or getattr(thing, "__name__", None)
    if not isinstance(name, str) or module in (None, "__main__", "__mp_main__") or "<" in name:
        return False
    if is_of_this_library(thing):  # wherever it has moved
        return True
    found: Any = sys.modules.get(str(module))
    for part in name.split("."):
        found = getattr(found, part, None)
    return found is thing


def _code_of_script(module: torch.jit.ScriptModule) -> str:
    try:
        return str(module.code)
    except (RuntimeError, AttributeError):  # without a forward
        return ""


def _hooks(module: nn.Module) -> list[Callable[..., Any]]:
    return [hook for hooks in (module._forward_hooks, module._forward_pre_hooks) for hook in hooks.values()]


def _token(thing: Any) -> str:
    """A name that no other object, in no process, has."""
    key = id(thing)
    if key not in _tokens:
        unique = f"{next(_number_of_token)} {hashlib.sha256(np.random.default_rng().bytes(16)).hexdigest()[:16]}"
        try:
            held: Any = weakref.ref(thing, lambda _: _tokens.pop(key, None))
        except TypeError:
            held = thing
        _tokens[key] = held, unique
    return _tokens[key][1]
