#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Trains a language model of this example and exports it with reference logits.

    train.py train  --model transformer --seconds 60 --out run/     a GPU; writes run/checkpoint.pt
    train.py export --checkpoint run/checkpoint.pt --out .
                                                 any machine; writes model.safetensors, reference_logits.safetensors

The model is a decoder over bytes whose layers are attention or Mamba-2; --model names one of CONFIGS. Every
hyper-parameter, and the kind of each layer, travels in the metadata of the safetensors file: the C++ example builds
whatever model the file describes. The files of the model "hybrid" are model_hybrid.safetensors and
reference_logits_hybrid.safetensors.

Shapes use the library's letters: B batch, H heads (query heads, state-space heads), Hk key/value heads, T tokens, D head
width, N state size; C is the model's width, F the hidden width of the feed-forward block, V the vocabulary (256 bytes), L
the length of a chunk.
"""

import argparse
import dataclasses
import hashlib
import json
import math
import pathlib
import sysconfig
import time

import torch
import torch.nn as nn
import torch.nn.functional as F

START = time.perf_counter()


@dataclasses.dataclass
class Config:
    vocabulary: int = 256
    width: int = 192
    hidden: int = 384
    query_heads: int = 6
    key_heads: int = 2
    head_width: int = 32
    window: int = 128  # tokens that a query of a window layer sees, its own included
    context: int = 512  # tokens per training sequence
    rope_base: float = 10000.0
    norm_epsilon: float = 1e-5
    layers: str = "window window full window window full"
    state_heads: int = 12  # of a Mamba-2 layer: H
    state_head_width: int = 32  # and D: the layer is H D channels wide inside
    state_size: int = 16  # N, for each of those channels
    convolution_width: int = 4  # tokens that a Mamba-2 layer's short convolution sees
    dropout: float = 0.1  # in training only: the text is small, and two million weights learn it by heart in minutes


CONFIGS = {
    "transformer": Config(),
    "hybrid": Config(layers="mamba2 mamba2 mamba2 window mamba2 mamba2 mamba2 window", window=64, hidden=304, dropout=0.2),
}


# ---------------------------------------------------------------------------------------------------------------------
# The model


class RMSNorm(nn.Module):
    def __init__(self, width, epsilon):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.epsilon = epsilon

    def forward(self, x):  # (B, T, C)
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.epsilon) * self.weight


def rotary_table(length, head_width, base):
    """Cosines and sines of position * base^(-2i/D), each (T, D/2); computed in float64."""
    frequency = base ** (-torch.arange(0, head_width, 2, dtype=torch.float64) / head_width)
    angle = torch.arange(length, dtype=torch.float64)[:, None] * frequency
    return angle.cos(), angle.sin()


def rotate(x, cos, sin):
    """Rotates channel i with channel i + D/2 ("half" rotation). x: (B, H, T, D); cos, sin: (T, D/2)."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


class Attention(nn.Module):
    """Grouped-query attention over all earlier tokens, or over the last `window` of them."""

    def __init__(self, config, window):
        super().__init__()
        self.heads, self.key_heads, self.head_width = config.query_heads, config.key_heads, config.head_width
        self.window = window
        self.q = nn.Linear(config.width, self.heads * self.head_width, bias=False)
        self.k = nn.Linear(config.width, self.key_heads * self.head_width, bias=False)
        self.v = nn.Linear(config.width, self.key_heads * self.head_width, bias=False)
        self.out = nn.Linear(self.heads * self.head_width, config.width, bias=False)

    def forward(self, x, cos, sin, near):  # (B, T, C), (T, D/2), (T, D/2), (T, T)
        batch, length, _ = x.shape
        q = self.q(x).view(batch, length, self.heads, self.head_width).transpose(1, 2)  # (B, H, T, D)
        k = self.k(x).view(batch, length, self.key_heads, self.head_width).transpose(1, 2)  # (B, Hk, T, D)
        v = self.v(x).view(batch, length, self.key_heads, self.head_width).transpose(1, 2)  # (B, Hk, T, D)
        q, k = rotate(q, cos, sin).to(v.dtype), rotate(k, cos, sin).to(v.dtype)
        group = self.heads // self.key_heads
        k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)  # (B, H, T, D)
        if self.window is None:
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)  # (B, H, T, D)
        else:
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=near)  # (B, H, T, D)
        return self.out(y.transpose(1, 2).reshape(batch, length, self.heads * self.head_width))


class FeedForward(nn.Module):
    """SwiGLU: down(silu(gate(x)) * up(x))."""

    def __init__(self, config):
        super().__init__()
        self.gate = nn.Linear(config.width, config.hidden, bias=False)
        self.up = nn.Linear(config.width, config.hidden, bias=False)
        self.down = nn.Linear(config.hidden, config.width, bias=False)

    def forward(self, x):
        return self.down(F.silu(self.gate(x)) * self.up(x))


def ssd(x, delta, log_decay, b, c, chunk=32):
    """h_t = exp(log_decay_t) h_{t-1} + delta_t b_t x_t', y_t = h_t' c_t for every head (Dao and Gu 2024, "state space
    duality"): inside a chunk as a masked matrix product, between chunks through their states.

    x: (B, T, H, D); delta, log_decay: (B, T, H); b, c: (B, T, N), the same for all heads. Returns y (B, T, H, D).
    Every exponent that is taken is a sum of log decays, so at most 0.
    """
    batch, length, heads, width = x.shape
    padding = -length % chunk  # tokens that neither decay nor add anything
    x = F.pad(x * delta[..., None], (0, 0, 0, 0, 0, padding)).view(batch, -1, chunk, heads, width)  # (B, T/L, L, H, D)
    b = F.pad(b, (0, 0, 0, padding)).view(batch, -1, chunk, b.shape[-1])  # (B, T/L, L, N)
    c = F.pad(c, (0, 0, 0, padding)).view(batch, -1, chunk, c.shape[-1])  # (B, T/L, L, N)
    log_decay = F.pad(log_decay, (0, 0, 0, padding)).view(batch, -1, chunk, heads)  # (B, T/L, L, H)

    since = log_decay.cumsum(2).permute(0, 1, 3, 2)  # (B, T/L, H, L): from the start of the chunk up to each token
    earlier = torch.ones(chunk, chunk, dtype=torch.bool, device=x.device).tril()  # (L, L)
    between = (since[..., :, None] - since[..., None, :]).masked_fill(~earlier, -math.inf).exp()  # (B, T/L, H, L, L)
    scores = torch.einsum("bzin,bzjn->bzij", c, b)[:, :, None] * between  # (B, T/L, H, L, L)
    y = torch.einsum("bzhij,bzjhd->bzihd", scores, x)

    whole = since[..., -1]  # (B, T/L, H)
    to_end = (whole[..., None] - since).exp().permute(0, 1, 3, 2)[..., None]  # (B, T/L, L, H, 1)
    added = torch.einsum("bzjn,bzjhd->bznhd", b, x * to_end)  # what each chunk adds to the state: (B, T/L, N, H, D)
    total = whole.cumsum(1).permute(0, 2, 1)  # (B, H, T/L)
    chunks = total.shape[-1]
    before = torch.ones(chunks, chunks, dtype=torch.bool, device=x.device).tril(-1)  # (T/L, T/L)
    start = total - whole.permute(0, 2, 1)  # (B, H, T/L): up to the start of each chunk
    across = (start[..., :, None] - total[..., None, :]).masked_fill(~before, -math.inf).exp()  # (B, H, T/L, T/L)
    state = torch.einsum("bhzy,bynhd->bznhd", across, added)  # as each chunk finds it
    y = y + torch.einsum("bzin,bznhd->bzihd", c, state) * since.exp().permute(0, 1, 3, 2)[..., None]
    return y.reshape(batch, -1, heads, width)[:, :length]


class ShortConvolution(nn.Module):
    """A causal convolution of each channel alone: y_t = bias + sum over i of weight_i x_{t - K + 1 + i}."""

    def __init__(self, channels, taps):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, taps).uniform_(-(taps**-0.5), taps**-0.5))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x):  # (B, T, channels)
        taps, length = self.weight.shape[1], x.shape[1]
        x = F.pad(x, (0, 0, taps - 1, 0))
        y = self.bias
        for i in range(taps):
            y = y + x[:, i : i + length] * self.weight[:, i]
        return y


class Mamba2(nn.Module):
    """The block of Mamba-2 (Dao and Gu 2024), with one group of b and c for all heads."""

    def __init__(self, config):
        super().__init__()
        self.heads, self.head_width, self.state = config.state_heads, config.state_head_width, config.state_size
        self.inner = self.heads * self.head_width
        self.into = nn.Linear(config.width, 2 * self.inner + 2 * self.state + self.heads, bias=False)
        self.convolution = ShortConvolution(self.inner + 2 * self.state, config.convolution_width)
        first = torch.empty(self.heads).uniform_(math.log(1e-3), math.log(1e-1)).exp()  # step sizes to begin with
        self.delta_bias = nn.Parameter(first + torch.log(-torch.expm1(-first)))  # softplus gives them back
        self.log_a = nn.Parameter(torch.empty(self.heads).uniform_(1, 16).log())  # a = -exp(log_a)
        self.skip = nn.Parameter(torch.ones(self.heads))
        self.norm = RMSNorm(self.inner, config.norm_epsilon)
        self.out = nn.Linear(self.inner, config.width, bias=False)

    def forward(self, x, *positions):  # (B, T, C)
        batch, length, _ = x.shape
        gate, xbc, delta = self.into(x).split((self.inner, self.inner + 2 * self.state, self.heads), dim=-1)
        x, b, c = F.silu(self.convolution(xbc)).split((self.inner, self.state, self.state), dim=-1)
        x = x.reshape(batch, length, self.heads, self.head_width)  # (B, T, H, D)
        delta = F.softplus(delta.to(self.delta_bias.dtype) + self.delta_bias)  # (B, T, H)
        y = ssd(x, delta, -delta * self.log_a.exp(), b, c) + x * self.skip[:, None]  # (B, T, H, D)
        return self.out(self.norm(y.reshape(batch, length, self.inner) * F.silu(gate)))


def make_mixer(kind, config):
    if kind == "full":
        return Attention(config, window=None)
    if kind == "window":
        return Attention(config, window=config.window)
    if kind == "mamba2":
        return Mamba2(config)
    raise ValueError(f"no mixer is called {kind!r}")


class Layer(nn.Module):
    """A mixer and, after attention, a feed-forward block: a Mamba-2 block is both."""

    def __init__(self, kind, config):
        super().__init__()
        self.mixer_norm = RMSNorm(config.width, config.norm_epsilon)
        self.mixer = make_mixer(kind, config)
        self.has_feed_forward = kind != "mamba2"
        if self.has_feed_forward:
            self.feed_forward_norm = RMSNorm(config.width, config.norm_epsilon)
            self.feed_forward = FeedForward(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x, *positions):
        x = x + self.dropout(self.mixer(self.mixer_norm(x), *positions))
        if self.has_feed_forward:
            x = x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))
        return x


def is_projection(name, parameter):
    return parameter.dim() == 2 and name != "embedding.weight" and "convolution" not in name


class LanguageModel(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        kinds = config.layers.split()
        self.embedding = nn.Embedding(config.vocabulary, config.width)  # also the head: logits = norm(x) embedding^T
        self.layers = nn.ModuleList(Layer(kind, config) for kind in kinds)
        self.norm = RMSNorm(config.width, config.norm_epsilon)
        self.dropout = nn.Dropout(config.dropout)
        for name, parameter in self.named_parameters():
            if name == "embedding.weight":
                nn.init.normal_(parameter, std=0.02)
            elif is_projection(name, parameter):
                std = parameter.shape[1] ** -0.5
                into_residual = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(parameter, std=std / math.sqrt(2 * len(kinds)) if into_residual else std)

    def positions(self, length):
        """What depends on positions alone: cosines and sines (T, D/2), and who is inside the window (T, T)."""
        dtype, device = self.embedding.weight.dtype, self.embedding.weight.device
        cos, sin = rotary_table(length, self.config.head_width, self.config.rope_base)
        age = torch.arange(length)[:, None] - torch.arange(length)
        near = (age >= 0) & (age < self.config.window)
        return cos.to(device, dtype), sin.to(device, dtype), near.to(device)

    def forward(self, tokens, positions):  # (B, T) -> logits (B, T, V)
        x = self.dropout(self.embedding(tokens))  # (B, T, C)
        for layer in self.layers:
            x = layer(x, *positions)
        return F.linear(self.norm(x), self.embedding.weight)


# ---------------------------------------------------------------------------------------------------------------------
# The text: Python's own standard library


def read_text(root):
    """The bytes of every source file, one zero byte after each; about one file in 20 is kept for validation."""
    skipped = {"test", "tests", "idle_test", "site-packages", "dist-packages", "encodings", "pydoc_data", "__pycache__"}
    parts = {"train": bytearray(), "validation": bytearray()}
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root)
        if skipped & set(name.parts):
            continue
        chosen = hashlib.sha256(name.as_posix().encode()).digest()[0] % 20 == 0
        parts["validation" if chosen else "train"] += path.read_bytes() + b"\0"
    return [torch.frombuffer(part, dtype=torch.uint8) for part in parts.values()]


@torch.no_grad()
def validation_loss(model, text, batch, device):
    """The mean loss in bits per byte over consecutive, separate contexts."""
    length = model.config.context
    count = (len(text) - 1) // length
    inputs = text[: count * length].view(count, length)
    targets = text[1 : count * length + 1].view(count, length)
    positions = model.positions(length)
    model.eval()
    total = 0.0
    for first in range(0, count, batch):
        tokens = inputs[first : first + batch].to(device).long()
        logits = model(tokens, positions).flatten(0, 1)  # (B T, V)
        total += F.cross_entropy(logits, targets[first : first + batch].to(device).long().flatten(), reduction="sum").item()
    model.train()
    return total / (count * length) / math.log(2)


# ---------------------------------------------------------------------------------------------------------------------
# Training


def log(*parts):
    print(f"[{time.perf_counter() - START:6.1f} s]", *parts, flush=True)


def learning_rate(progress, peak):
    """Linear warm-up over 2 % of the time, then a cosine to zero."""
    return peak * (progress / 0.02 if progress < 0.02 else 0.5 * (1 + math.cos(math.pi * (progress - 0.02) / 0.98)))


def train(arguments):
    torch.manual_seed(arguments.seed)
    torch.set_float32_matmul_precision("high")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config = CONFIGS[arguments.model]
    model = LanguageModel(config).to(device)
    text, held_out = (part.to(device) for part in read_text(arguments.text))
    log(f"{sum(p.numel() for p in model.parameters())} parameters; {len(text)} bytes of text, {len(held_out)} held out")

    matrices = [p for n, p in model.named_parameters() if is_projection(n, p)]
    others = [p for n, p in model.named_parameters() if not is_projection(n, p)]
    groups = [{"params": matrices, "weight_decay": 0.3}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=arguments.peak, betas=(0.9, 0.95), fused=device.type == "cuda")

    positions = model.positions(config.context)

    def loss_of(tokens, targets):  # (B, T), (B, T)
        return F.cross_entropy(model(tokens, positions).float().flatten(0, 1), targets.flatten())

    run = torch.compile(loss_of) if arguments.compile else loss_of

    def step():
        offset = torch.randint(len(text) - config.context, (arguments.batch, 1), device=device)
        window = text[offset + torch.arange(config.context + 1, device=device)].long()  # (B, T + 1)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
            loss = run(window[:, :-1].contiguous(), window[:, 1:].contiguous())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss

    def set_rate(progress):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(progress, arguments.peak)

    def measure():
        nonlocal best
        bits = validation_loss(model, held_out, arguments.batch, device)
        rate = steps * arguments.batch * config.context / (time.perf_counter() - first)
        log(f"step {steps}: last loss {loss:.3f} bits, validation {bits:.4f} bits per byte, {rate / 1e6:.2f} M tokens/s")
        if best is None or bits < best:
            best = bits
            arguments.out.mkdir(parents=True, exist_ok=True)
            notes = {"steps": steps, "batch": arguments.batch, "validation_bits_per_byte": f"{bits:.4f}"}
            state = {n: t.cpu() for n, t in model.state_dict().items()}
            saved = {"model": arguments.model, "config": dataclasses.asdict(config), "notes": notes, "state": state}
            torch.save(saved, arguments.out / "checkpoint.pt")

    set_rate(0.0)
    log(f"first step: {step().item() / math.log(2):.3f} bits")  # the compiler runs here, outside the schedule
    first = shown = time.perf_counter()
    steps, loss, best = 0, math.nan, None
    while (now := time.perf_counter()) < first + arguments.seconds:
        set_rate((now - first) / arguments.seconds)
        running = step()
        steps += 1
        if steps % 10 == 0:
            loss = running.item() / math.log(2)  # also keeps the queue short, so that the clock tells the truth
            if now - shown > arguments.seconds / 10:
                shown = now
                measure()
    measure()


# ---------------------------------------------------------------------------------------------------------------------
# Export

PROMPT = '''import math


class Vector:
    """A point in the plane."""

    def __init__(self, x, y):
        self.x = x
        self.y = y

    def length(self):
        return math.sqrt(self.x * self.x + self.y'''


def save_safetensors(tensors, path, metadata):
    """Eight bytes of length, a JSON header, then the elements of every tensor, without gaps."""
    names = {torch.bfloat16: "BF16", torch.float32: "F32", torch.uint8: "U8"}
    header, data = {"__metadata__": metadata}, bytearray()
    for name, tensor in tensors.items():
        begin = len(data)
        data += tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()
        header[name] = {"dtype": names[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, len(data)]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def export(arguments):
    checkpoint = torch.load(arguments.checkpoint, map_location="cpu")
    config = Config(**checkpoint["config"])
    model = LanguageModel(config)
    model.load_state_dict({name: value.bfloat16().float() for name, value in checkpoint["state"].items()})
    model.eval()

    notes = {key: str(value) for key, value in checkpoint["notes"].items()}
    metadata = {key: str(value) for key, value in dataclasses.asdict(config).items()}
    metadata["text"] = "the sources of Python's standard library (PSF licence)"
    arguments.out.mkdir(parents=True, exist_ok=True)
    suffix = "" if checkpoint["model"] == "transformer" else f"_{checkpoint['model']}"
    weights = {name: value.bfloat16() for name, value in model.state_dict().items()}
    save_safetensors(weights, arguments.out / f"model{suffix}.safetensors", {"format": "pt", **metadata, **notes})

    tokens = torch.tensor([list(PROMPT.encode())])  # (1, T)
    assert tokens.shape[1] > config.window, "the sliding window would not matter"
    with torch.no_grad():
        single = model(tokens, model.positions(tokens.shape[1]))[0]  # (T, V), float32
        model.double()
        logits = model(tokens, model.positions(tokens.shape[1]))[0]  # (T, V), float64
    difference = f"{(single.double() - logits).abs().max().item():.1e}"
    log(f"{tokens.shape[1]} tokens, logits up to {logits.abs().max():.1f}; in float32 they differ by {difference}")
    reference = {"tokens": tokens[0].to(torch.uint8), "logits": logits.float()}
    about = {"text": "logits by PyTorch, computed in float64", "largest_difference_in_float32": difference}
    save_safetensors(reference, arguments.out / f"reference_logits{suffix}.safetensors", about)

    if arguments.text.is_dir():
        _, held_out = read_text(arguments.text)
        count = min(len(held_out), 64 * config.context + 1)
        log(f"rounded weights: {validation_loss(model.float(), held_out[:count], 16, 'cpu'):.4f} bits per byte on a part")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, action in (("train", train), ("export", export)):
        command = commands.add_parser(name)
        command.set_defaults(action=action)
        command.add_argument("--out", type=pathlib.Path, default=pathlib.Path("."))
        command.add_argument("--text", type=pathlib.Path, default=pathlib.Path(sysconfig.get_paths()["stdlib"]))
        if name == "export":
            command.add_argument("--checkpoint", type=pathlib.Path, required=True)
        else:
            command.add_argument("--model", choices=CONFIGS, default="transformer")
            command.add_argument("--seconds", type=float, default=60, help="how long to train, by the clock")
            command.add_argument("--batch", type=int, default=256)
            command.add_argument("--peak", type=float, default=3e-3, help="the highest learning rate")
            command.add_argument("--seed", type=int, default=1)
            command.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    arguments = parser.parse_args()
    arguments.action(arguments)


if __name__ == "__main__":
    main()
