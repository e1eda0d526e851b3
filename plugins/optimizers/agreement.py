"""Whether the compiled step repeats the torch at hand, to the last bit: tried once, when it is first needed.

How a sum of products is rounded, and how many elements torch takes at a time, is decided by the compiler that
torch was built with and by the CPU. Today's agrees on x86; another may not.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from altgrad_core.quantization.kernels.binades import Binades
from altgrad_plugins.optimizers.adamw import AdamState, adam_update
from altgrad_plugins.optimizers.compiled_adamw import LANES
from altgrad_plugins.optimizers.launch import Row, launch
from altgrad_plugins.optimizers.rms import normalize_rms_
from altgrad_plugins.optimizers.settings import ManifoldAdamWSettings
from altgrad_plugins.optimizers.stiffness import textbook_stiffness
from altgrad_plugins.optimizers.stretched import stretched_update

_ELEMENTS = 1003
"""No multiple of any vector's length, and enough for a sum to be rounded in another way."""
_STEPS = 2
_BINADES = Binades(-20, 20, 2)


@cache
def torch_lanes() -> int | None:
    """The number of elements of torch's vectors with which the compiled step repeats torch's; None, with a warning."""
    for lanes in LANES:
        if all(_repeats(lanes, group, settings) for group, settings in _cases()):
            return lanes
    warnings.warn(
        f"the compiled step of manifold_adamw does not repeat torch {torch.__version__} on this CPU "
        f"({torch.backends.cpu.get_cpu_capability()}) to the last bit, so torch's own operators take it, "
        "which lasts several times as long",
        RuntimeWarning,
        stacklevel=2,
    )
    return None


def _cases() -> Iterator[tuple[dict[str, Any], ManifoldAdamWSettings]]:
    usual = {"eps": 1e-6, "fused": True, "foreach": False}
    # 1 - 0.1 · 10 is 0 or not, as it is rounded
    for betas, lr, decay in (
        ((0.9, 0.999), 3e-3, 0.1),
        ((0.4, 0.7), 3e-3, 0.0),
        ((0.9, 0.999), 0.1, 10.0),
    ):
        for site in ("none", "pre", "both"):
            settings = ManifoldAdamWSettings.model_validate({"site": site})
            yield {**usual, "lr": lr, "betas": betas, "weight_decay": decay}, settings


def _repeats(lanes: int, group: Mapping[str, Any], settings: ManifoldAdamWSettings) -> bool:
    generator = torch.Generator("cpu").manual_seed(0)

    def drawn(*sizes: int) -> Tensor:
        exponents = torch.randint(-9, 3, sizes, generator=generator, device="cpu").float()
        return (
            torch.randn(sizes, generator=generator, dtype=torch.float32, device="cpu")
            * exponents.exp2()
        )

    start = nn.Parameter(drawn(_ELEMENTS), requires_grad=False)
    ours, theirs = (_fresh(start) for _ in range(2))
    for grad in drawn(_STEPS, _ELEMENTS):
        for state in (ours, theirs):
            state.grads[:] = [grad]
        free = settings.site == "none"
        if free:
            adam_update(group, theirs)
        else:
            inside = theirs.params[0].detach().abs().clamp(2.0**_BINADES.lowest)
            stiffness = [textbook_stiffness(inside, _BINADES.mantissa_bits)]
            normalize_rms_(stiffness)
            stretched_update(group, theirs, stiffness, settings.site)
        places = [t.data_ptr() for t in next(ours.rows())]
        row = Row((*places, 0, 0, _ELEMENTS, free), (*_BINADES, 0))
        if not launch(group, settings, [row], lanes)[0][0]:
            return False
    pairs = zip(next(ours.rows()), next(theirs.rows()), strict=True)
    return all(torch.equal(a.view(torch.int32), b.view(torch.int32)) for a, b in pairs)


def _fresh(start: nn.Parameter) -> AdamState:
    weight = nn.Parameter(start.clone(), requires_grad=False)
    mean, square = torch.zeros_like(start), torch.zeros_like(start)
    return AdamState([weight], [], [mean], [square], [start.new_zeros(())])
