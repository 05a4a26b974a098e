"""The state of a metric: five facts named after what the metric is, stored small, loaded under old names too."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from lightning_utilities import apply_to_collection
from torch import Tensor
from torchmetrics import Metric

from attacker_metrics.attackers.modules import modules_in
from attacker_metrics.metrics.guarded_metric import GuardedMetric, Lock, on_device
from attacker_metrics.metrics.identity import Identity, Learned, identity_of, is_of_this_library
from attacker_metrics.metrics.stored_names import digest_before
from attacker_metrics.scoring.components import Component

SUM, COUNT, SKIPPED, COLLAPSED, OUT_OF_RANGE = "sum", "count", "skipped", "collapsed", "out_of_range"
FACTS = (SUM, COUNT, SKIPPED, COLLAPSED, OUT_OF_RANGE)


class FiveFacts(GuardedMetric):
    """Base of :class:`~attacker_metrics.AttackerMetric`: the sum of scores, and four counts, whatever the number of images.

    Args:
        components: what is scored.
        name: key for reports and state names.
        kwargs: torchmetrics' own keywords.
    """

    __jit_unused_properties__: ClassVar[list[str]] = [
        *GuardedMetric.__jit_unused_properties__,
        *("identity", "_parts", "_stored_suffix"),
    ]

    def __init__(self, components: tuple[Component, ...], name: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.components, self.name = components, name
        self._module_attackers = self._found_module_attackers()
        self._settled = is_of_this_library(type(self)) and all(map(_is_fixed, components))
        self._add_states(self._suffix(self.identity))

    def _state(self, fact: str) -> str:
        return f"{fact}_{self._state_suffix}"

    def _fact(self, fact: str) -> Tensor:
        value: Tensor = getattr(self, self._state(fact))
        return value

    def merge_state(self, incoming_state: dict[str, Any] | Metric) -> None:
        """Add the state of another metric of the same class and settings, e.g. one that a worker returned.

        Args:
            incoming_state: the other metric, or its ``metric_state``.

        Raises:
            ValueError: if class, settings or what was learned differ.
        """
        updates = incoming_state.update_count if isinstance(incoming_state, Metric) else 0
        self.settle()
        if isinstance(incoming_state, FiveFacts):
            incoming_state.settle()
        states = incoming_state.metric_state if isinstance(incoming_state, Metric) else self._renamed(incoming_state, "")
        if not self._defaults.keys() <= states.keys():  # their names tell classes and settings apart
            raise ValueError(
                f"{type(self).__name__} {self.name!r}: only metrics of the same class and settings can be merged, and of the"
                f" same fit where they learn; make the parts like the total, or the total as a copy of a part."
                + self.advice()
            )
        here = apply_to_collection(states, Tensor, Tensor.to, self.device)  # a part may come from another device
        with self._lock:
            super().merge_state({name: here[name] for name in self._defaults})
            self._settled = True
            self._update_count += updates
            self._computed = None

    # --- identity: what the names of the states tell ----------------------------------------------------------------------

    @property
    def identity(self) -> Identity:
        """What the metric is, by value: class, components and, where methods are its own, attributes.

        torchmetrics shares states between metrics of a collection whose states have the same names and, after the first
        batch, the same values; partial metrics are merged, and processes synchronized, by these names too.
        """
        return identity_of(self)

    def __metric_identity__(self) -> Any:
        """What tells this metric from others of its class; own methods may read any attribute that a subclass has set."""
        return self.name, self.components, self._own_attributes()

    def _own_attributes(self) -> dict[str, Any]:
        of_own = not is_of_this_library(type(self)) and (
            not self.is_plain(*_SCORING) or any(module is self for module in modules_in(self._parts))
        )
        if not of_own:
            return {}
        given = {key: value for key, value in vars(self).items() if key not in _OURS and key not in self._defaults}
        told = {key: value for key, value in given.items() if not identity_of(value).unidentified}
        return {**told, "modules": Learned((dict(self._modules), dict(self._parameters), dict(self._buffers)))}

    @property
    def _parts(self) -> list[Any]:
        return [_parts(component) for component in self.components]

    def _found_module_attackers(self) -> tuple[torch.nn.Module, ...]:
        return tuple(modules_in(self._parts, but=[self]))

    def is_plain(self, *methods: str) -> bool:
        """Whether these methods are the base's own."""
        raise NotImplementedError

    def advice(self) -> str:
        """What to do about parts that cannot be told from others; nothing, if there are none."""
        if not self.identity.unidentified:
            return ""
        return (
            f" What {', '.join(self.identity.unidentified)} does cannot be told from outside, so that two objects of it"
            " never count as the same: make the attacker a dataclass(frozen=True) of its settings, or give its class a"
            " method __metric_identity__() that returns them."
        )

    def settle(self, *, for_good: bool = False) -> None:
        """Name the states after what the metric is by now; it may have been fitted or given attributes since it was made.

        Args:
            for_good: as from the first batch, which torchmetrics decides by whose states to share.
        """
        if not self._settled:
            suffix = self._suffix(identity_of(self, remember=for_good))
            if suffix != self._state_suffix:
                self._rename(suffix)
            self._settled = for_good

    def _suffix(self, identity: Identity) -> str:
        return f"{_label(self.name)}_{identity.digest}"

    def _add_states(self, suffix: str) -> None:
        self._state_suffix = suffix
        self.add_state(self._state(SUM), torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        for fact in FACTS[1:]:
            self.add_state(self._state(fact), torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def _rename(self, suffix: str) -> None:
        names = {self._state(fact): f"{fact}_{suffix}" for fact in FACTS}
        self._state_suffix = suffix
        tables: tuple[Any, ...] = (self._defaults, self._persistent, self._reductions, vars(self), self._cache or {})
        for table in tables:
            for old, new in names.items():
                if old in table:
                    table[new] = table.pop(old)

    # --- storage ----------------------------------------------------------------------------------------------------------

    def _renamed(self, states: Mapping[str, Any], prefix: str) -> dict[str, Any]:
        """States under today's names, from those of a state dict or of an earlier release."""
        renamed = dict(states)
        known = [self._stored_suffix]
        if f"{prefix}{self._state(SUM)}" not in renamed and f"{prefix}{SUM}_{known[0]}" not in renamed:
            known = [f"{_label(self.name)}_{digest_before(type(self), self.components)}"]
        for fact in FACTS:
            old, new = f"{prefix}{fact}_{known[0]}", f"{prefix}{self._state(fact)}"
            if old in renamed and new not in renamed:
                renamed[new] = renamed.pop(old)
        return renamed

    @property
    def _stored_suffix(self) -> str:
        """The end of the names in a state dict: what was learned is in the dict itself."""
        return self._suffix(identity_of(self, learned=False))

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """As torchmetrics', with the weights of module attackers; see there."""
        stored: dict[str, Any] = super().state_dict(*args, **kwargs)
        prefix = kwargs.get("prefix", args[1] if len(args) > 1 else "")
        if any(self._persistent[self._state(fact)] for fact in FACTS):
            suffix = self._stored_suffix
            for fact in FACTS:
                if (name := f"{prefix}{self._state(fact)}") in stored:
                    stored[f"{prefix}{fact}_{suffix}"] = stored.pop(name)
        for number, module in self._followers():
            module.state_dict(
                destination=stored, prefix=f"{prefix}attackers.{number}.", keep_vars=kwargs.get("keep_vars", False)
            )
        return stored

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        renamed = self._renamed(state_dict, prefix)
        state_dict.clear()
        state_dict.update(renamed)
        missing, unexpected = args[2], args[3]
        for number, module in self._followers():
            start = f"{prefix}attackers.{number}."
            own = {name.removeprefix(start): state_dict.pop(name) for name in list(state_dict) if name.startswith(start)}
            if own:  # earlier releases stored none
                result = module.load_state_dict(own, strict=False)
                missing += [start + name for name in result.missing_keys]
                unexpected += [start + name for name in result.unexpected_keys]
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def _followers(self) -> list[tuple[int, torch.nn.Module]]:
        """The module attackers that are no submodules, with their numbers."""
        within = {id(module) for module in self.modules()} if self._module_attackers else set()
        return [(number, m) for number, m in enumerate(self._module_attackers) if id(m) not in within]

    def train(self, mode: bool = True) -> FiveFacts:
        """Set the mode, also of module attackers, which score in evaluation mode all the same."""
        for _, module in self._followers():
            module.train(mode)
        return super().train(mode)

    def _apply(self, fn: Callable[[Tensor], Tensor], *args: Any, **kwargs: Any) -> torch.nn.Module:
        moved = super()._apply(fn, *args, **kwargs)
        for _, module in self._followers():
            module._apply(lambda value: on_device(value, self.device))  # type: ignore[no-untyped-call]
        return moved

    def __getstate__(self) -> dict[str, Any]:
        """What is not as in any new metric, with the five facts as numbers: no tensor, unless on an accelerator."""
        state = super().__getstate__()
        names = [self._state(fact) for fact in FACTS]
        values = [state.pop(name) for name in names]
        facts = [0.0, 0, 0, 0, 0] if self.device.type == "meta" else [value.item() for value in values]
        persistent = self._persistent[names[0]]
        for table in ("_defaults", "_persistent", "_reductions"):
            state[table] = {name: value for name, value in state[table].items() if name not in names}
        state.update(_computed=None, _forward_cache=None)
        plain = {key: value for key, value in state.items() if key not in _NEW or not _same(value, _NEW[key])}
        device = None if self.device.type == "cpu" else torch.empty(0, device=self.device)
        return {"metric": plain, "facts": facts, "persistent": persistent, "device": device}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`__getstate__` returned, or what earlier releases stored."""
        if "facts" not in state:
            super().__setstate__({**state, "_lock": Lock(), "_settled": False})
            self._module_attackers = self._found_module_attackers()
            self._rename(self._suffix(self.identity))
            return
        GuardedMetric.__init__(self)
        vars(self).update(state["metric"])
        device = torch.device("cpu") if state["device"] is None else state["device"].device
        with torch.inference_mode(mode=False), torch.device("cpu"):
            self._add_states(self._state_suffix)
            for fact, value in zip(FACTS, state["facts"], strict=True):
                name = self._state(fact)
                default = on_device(vars(self)[name], device)
                self._defaults[name], vars(self)[name] = default, torch.full_like(default, value)
                self._persistent[name] = state["persistent"]


class _New(GuardedMetric):
    def update(self) -> None:
        """Nothing."""

    def compute(self) -> None:
        """Nothing."""


_NEW: dict[str, Any] = {key: value for key, value in vars(_New()).items() if key not in ("_device", "_dtype", "_lock")}
"""The attributes of a metric that nothing has happened to; they need not be pickled."""
_OURS = _NEW.keys() | {
    *("_device", "_dtype", "_lock", "components", "name", "nan_strategy"),
    *("_module_attackers", "_settled", "_state_suffix", "update", "compute", "_update_signature"),
}
_SCORING = ("scores", "update", "compute", "forward", "check", "collapsed_images")


def _same(value: Any, new: Any) -> bool:
    return value is new or (type(value) is type(new) and isinstance(new, bool | int | dict | set) and value == new)


def _label(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name)


def _parts(component: Component) -> tuple[Any, ...]:
    return (component.similarity, *component.noisy, *component.clean, *component.variants)


def _is_fixed(component: Component) -> bool:
    """Whether a component is made of the library's functions and frozen settings, which never change."""
    return all(
        is_of_this_library(part if hasattr(part, "__code__") else type(part)) and not isinstance(part, torch.nn.Module)
        for part in _parts(component)
    )
