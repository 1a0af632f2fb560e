"""The LoRA layers of a denoiser, switched off for the reference, and fused for training.

Fused means one autograd operation for a layer with its adapter, where peft takes six.

A layer computes what peft's does,  y = base(x) + B(A(x)) * scaling.  What is saved:

* the product with B is added into base(x) where it stands: two tensors of the output's size less to write and read;
* the gradient of x goes through base and A in one pass with their weights stacked. A alone has so few outputs (the
  rank) that its own pass takes far longer than its arithmetic.

base(x) is computed by the same call with and without the adapter, and an adapter of zeros adds exact zeros: u of a
fresh adapter is 0 to the bit.

Shapes:  B images;  N rows (images times tokens);  I O inputs, outputs of a layer;  r rank;  h w height, width.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any, cast

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.nn import functional as F

ADAPTER_NAME = "studio"


def lora_layers(denoiser: nn.Module) -> dict[str, LoraLayer]:
    """The denoiser's layers that carry the adapter, by module name, sorted."""
    layers = {
        name: module
        for name, module in denoiser.named_modules()
        if isinstance(module, LoraLayer) and ADAPTER_NAME in module.lora_A
    }
    return dict(sorted(layers.items()))


@contextmanager
def reference_mode(denoiser: nn.Module) -> Iterator[None]:
    """Context manager for the base model: the adapter is disabled inside and enabled again on exit.

    Everything that holds this module sees the switch, so only the thread that owns it may use this.
    """
    layers = list(lora_layers(denoiser).values())
    weights = [getattr(layer, name)[ADAPTER_NAME].weight for layer in layers for name in ("lora_A", "lora_B")]
    trainable = [weight.requires_grad for weight in weights]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)
        # peft clears and sets requires_grad along with the switch; what it was before counts.
        for weight, flag in zip(weights, trainable, strict=True):
            weight.requires_grad_(flag)


def fuse(denoiser: nn.Module) -> None:
    """Fuse the adapter's layers into one operation each, until the adapter is detached.

    Layers that this does not know (quantised, dilated, grouped) stay as they are.
    """
    for layer in lora_layers(denoiser).values():
        base = cast(nn.Module, layer.get_base_layer())
        if is_fusible(base):
            layer.forward = MethodType(_conv if isinstance(base, nn.Conv2d) else _linear, layer)


def is_fusible(base: nn.Module) -> bool:
    """True for layers whose gradients are implemented here: plain linear ones and plain convolutions."""
    if type(base) is not nn.Conv2d:
        return type(base) is nn.Linear
    padded_by_zeros = base.padding_mode == "zeros" and not isinstance(base.padding, str)
    return padded_by_zeros and base.groups == 1 and base.dilation == (1, 1)


def _linear(layer: LoraLayer, x: Tensor) -> Tensor:
    base = cast(nn.Linear, layer.get_base_layer())
    if layer.disable_adapters:
        return cast(Tensor, base(x))
    return cast(Tensor, _Linear.apply(*_cast_for_autocast(layer, base, x)))


def _conv(layer: LoraLayer, x: Tensor) -> Tensor:
    base = cast(nn.Conv2d, layer.get_base_layer())
    if layer.disable_adapters:
        return cast(Tensor, base(x))
    return cast(Tensor, _Conv.apply(*_cast_for_autocast(layer, base, x), base.stride, base.padding))


def _cast_for_autocast(layer: LoraLayer, base: nn.Linear | nn.Conv2d, x: Tensor) -> tuple[Tensor | None, ...]:
    """Cast x, weight, bias, A and scaled B to autocast's dtype; gradients flow back through the casts."""
    device_type = x.device.type
    dtype = torch.get_autocast_dtype(device_type) if torch.is_autocast_enabled(device_type) else x.dtype
    a, b = layer.lora_A[ADAPTER_NAME].weight, layer.lora_B[ADAPTER_NAME].weight
    scaling = layer.scaling[ADAPTER_NAME]
    if scaling != 1:
        b = b * scaling
    bias = None if base.bias is None else base.bias.to(dtype)
    return x.to(dtype), base.weight.to(dtype), bias, a.to(dtype), b.to(dtype)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_OI: Tensor, bias_O: Tensor | None, a_rI: Tensor, b_Or: Tensor) -> Tensor:
        y = F.linear(x, weight_OI, bias_O)
        x_NI = x.reshape(-1, x.shape[-1])
        down_Nr = x_NI @ a_rI.t()
        y.view(-1, y.shape[-1]).addmm_(down_Nr, b_Or.t())
        ctx.save_for_backward(x_NI, weight_OI, a_rI, b_Or, down_Nr)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x_NI, weight_OI, a_rI, b_Or, down_Nr = ctx.saved_tensors
        (grad,) = grads
        grad_NO = grad.reshape(-1, grad.shape[-1])
        grad_down_Nr = grad_NO @ b_Or
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = (grad_NO @ weight_OI).addmm_(grad_down_Nr, a_rI).view(*grad.shape[:-1], -1)
        return grad_x, None, None, grad_down_Nr.t() @ x_NI, grad_NO.t() @ down_Nr


class _Conv(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,  # (B, I, h, w)
        weight: Tensor,  # (O, I, kh, kw)
        bias_O: Tensor | None,
        a: Tensor,  # (r, I, kh, kw)
        b: Tensor,  # (O, r, 1, 1)
        stride: tuple[int, int],
        padding: tuple[int, int],
    ) -> Tensor:
        y = F.conv2d(x, weight, bias_O, stride, padding)
        down = F.conv2d(x, a, None, stride, padding)
        images = len(y)
        b_BOr = b.flatten(1).expand(images, -1, -1)
        if y.is_contiguous():
            y.flatten(2).baddbmm_(b_BOr, down.flatten(2))
        else:
            y.add_(torch.bmm(b_BOr, down.flatten(2)).view(y.shape))
        ctx.save_for_backward(x, weight, a, b, down)
        ctx.place = (stride, padding)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, a, b, down = ctx.saved_tensors
        (grad,) = grads
        grad_BOs = grad.flatten(2)
        grad_down = torch.matmul(b.flatten(1).t(), grad_BOs).view(down.shape)
        grad_b = torch.bmm(grad_BOs, down.flatten(2).transpose(1, 2)).sum(0).view(b.shape)
        grad_a = _conv_gradients(grad_down, x, a, ctx.place, of_input=False)
        grad_x = None
        if ctx.needs_input_grad[0]:
            both, weights = torch.cat([grad, grad_down], 1), torch.cat([weight, a])
            grad_x = _conv_gradients(both, x, weights, ctx.place, of_input=True)
        return grad_x, None, None, grad_a, grad_b, None, None


def _conv_gradients(grad: Tensor, x: Tensor, weight: Tensor, place: Any, *, of_input: bool) -> Tensor:
    """The gradient of a convolution's input or of its weight."""
    stride, padding = place
    mask = [of_input, not of_input, False]
    gradients = torch.ops.aten.convolution_backward(
        grad, x, weight, None, stride, padding, (1, 1), False, (0, 0), 1, mask
    )
    return cast(Tensor, gradients[0 if of_input else 1])
