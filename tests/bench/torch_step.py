#!/usr/bin/env python3
"""Time of training steps of the same models in PyTorch, as a careful user writes them.

    torch_step.py --shape small|mqar|cifar --model softmax|linear|norm|mamba2|s4|s5|lru [--steps N] [--threads N]
                  [--all-positions] [--clock wall|cpu] [--device cpu|cuda] [--bf16] [--compile] [--batch N]
                  [--price PER_HOUR] [--watts W]

Forward, backward, clipping and AdamW; dropout off; the output layer at the labelled positions only, unless
--all-positions.  Where PyTorch has several ways (fused or masked softmax, chunked or quadratic sums, convolution
by F.conv1d or by shifted products, recurrences by FFT, by doubling or in chunks, with --compile also torch.compile of each), each
is timed on two steps - of a quarter of the batch where a step is long - and the fastest one is used.  torch.compile
needs a C++ compiler.  --price, of the machine in any currency, and --watts give the cost of a million steps and the
energy of one.  Prints one "name value" a line.
"""
import argparse
import itertools
import math
import shutil
import statistics
import sys
import time
from collections import namedtuple

import torch
from torch import nn
from torch.nn import functional as F

Shape = namedtuple("Shape", "batch length width layers vocabulary classes labels heads state mlp")
SHAPES = {  # labels: how many of a sequence's steps have one; as in the .json files beside this one
    "small": Shape(64, 64, 64, 2, 256, 256, 4, 1, 64, 0),
    "mqar": Shape(64, 512, 128, 2, 8192, 8192, 64, 1, 128, 0),
    "cifar": Shape(10, 1024, 512, 6, 256, 10, 1, 4, 64, 512),
}
LONG = 64 * 64 * 64 * 2  # batch x length x width x layers above which ways are compared on a smaller batch

VERSION = tuple(int(x) for x in torch.__version__.split(".")[:2])
CLOCK = time.perf_counter


def split_heads(x, heads):  # (B, T, C) -> (B, H, T, C / H)
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def join_heads(x):
    return x.transpose(1, 2).flatten(2)


def attend(q, k, v, way, mask):
    """Causal softmax attention; heads are batches."""
    scale = 1 / math.sqrt(q.shape[-1])
    if way == "fused":
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    if way == "padded":  # the fused kernels want keys as wide as values
        pad = (0, v.shape[-1] - q.shape[-1])
        return F.scaled_dot_product_attention(F.pad(q, pad), F.pad(k, pad), v, is_causal=True, scale=scale)
    q3, k3, v3 = (x.flatten(0, 1) for x in (q, k, v))
    score = torch.baddbmm(mask, q3, k3.transpose(1, 2), alpha=scale)
    return torch.bmm(score.softmax(-1), v3).unflatten(0, q.shape[:2])


class Attention(nn.Module):
    def __init__(self, shape, kind, way):
        super().__init__()
        self.kind, self.way, self.heads = kind, way, shape.heads
        self.width, self.state = shape.width, shape.state
        convolved = shape.width + 2 * shape.state
        self.project = nn.Linear(shape.width, convolved + (shape.heads if kind == "norm" else 0))
        self.out = nn.Linear(shape.width, shape.width)
        self.register_buffer("lower", torch.ones(shape.length, shape.length).tril())
        self.register_buffer("mask", torch.full((shape.length, shape.length), -10000.0).triu(1))
        if kind == "norm":
            self.conv = nn.Conv1d(convolved, convolved, 4, groups=convolved, padding=3)
            self.offset = nn.Parameter(torch.linspace(4, 9, shape.heads))

    def causal_sum(self, q, k, v):  # sum over j <= i of (q_i . k_j) v_j
        length, chunk = q.shape[2], self.way["chunk"]
        if chunk >= length:
            return torch.matmul(torch.matmul(q, k.transpose(-1, -2)) * self.lower, v)
        q, k, v = (x.unflatten(2, (length // chunk, chunk)) for x in (q, k, v))
        state = torch.matmul(k.transpose(-1, -2), v)
        before = F.pad(state.cumsum(2)[:, :, :-1], (0, 0, 0, 0, 1, 0))
        local = torch.matmul(q, k.transpose(-1, -2)) * self.lower[:chunk, :chunk]
        return (torch.matmul(local, v) + torch.matmul(q, before)).flatten(2, 3)

    def forward(self, u):
        x, n = self.project(u), None
        if self.kind == "norm":
            x, n = x[..., : -self.heads], x[..., -self.heads :]
            x = F.silu(causal_conv(self.conv, x, self.way))
        q, k, v = (split_heads(y, self.heads) for y in x.split((self.state, self.state, self.width), -1))
        if self.kind == "norm":
            q, k = F.elu(q) + 1, (F.elu(k) + 1) / math.sqrt(q.shape[-1])
            y = torch.exp(-F.softplus(n + self.offset)).transpose(1, 2)[..., None] * self.causal_sum(q, k, v)
        elif self.kind == "linear":
            q, k = F.elu(q) + 1, F.elu(k) + 1
            y = self.causal_sum(q, k, v) / (q * k.cumsum(2)).sum(-1, keepdim=True)
        else:
            y = attend(q, k, v, self.way["softmax"], self.mask)
        return self.out(join_heads(y))


def causal_conv(conv, x, way):  # (B, T, C): depthwise, four taps
    length = x.shape[1]
    if way["conv"] == "conv1d":
        return conv(x.transpose(1, 2))[..., :length].transpose(1, 2)
    padded = F.pad(x, (0, 0, 3, 0))
    weight = conv.weight[:, 0]
    y = conv.bias + padded[:, :length] * weight[:, 0]
    for tap in range(1, 4):
        y = y + padded[:, tap : tap + length] * weight[:, tap]
    return y


class Mamba2(nn.Module):
    """State-space duality in chunks; B and C are shared by the heads."""

    def __init__(self, shape, way):
        super().__init__()
        width, state, heads = shape.width, shape.state, shape.heads
        self.way, self.width, self.state, self.heads = way, width, state, heads
        self.norm = nn.LayerNorm(width)
        self.in_proj = nn.Linear(width, width + 2 * state + heads, bias=False)
        convolved = width + 2 * state
        self.conv = nn.Conv1d(convolved, convolved, 4, groups=convolved, padding=3)
        self.dt_bias, self.A_log, self.D = (nn.Parameter(torch.zeros(heads)) for _ in range(3))
        self.out_proj = nn.Linear(width, width, bias=False)
        self.glu = nn.Linear(width, 2 * width)
        self.register_buffer("future", torch.full((way["chunk"], way["chunk"]), -math.inf).triu(1))

    def mixer(self, u):
        length, chunk, heads = u.shape[1], self.way["chunk"], self.heads
        z = self.in_proj(u)
        dt = F.softplus(z[..., -heads:] + self.dt_bias)  # (B, T, H)
        x, b, c = F.silu(causal_conv(self.conv, z[..., :-heads], self.way)).split(
            (self.width, self.state, self.state), -1)
        x = x.unflatten(-1, (heads, -1))

        def in_chunks(y):  # (B, T, ...) -> (B, T / L, L, ...)
            return y.unflatten(1, (length // chunk, chunk))

        decay = in_chunks(-torch.exp(self.A_log) * dt).transpose(2, 3)  # (B, K, H, L)
        xdt = in_chunks(x * dt[..., None]).transpose(2, 3)  # (B, K, H, L, P)
        b, c = in_chunks(b)[:, :, None], in_chunks(c)[:, :, None]
        total = decay.cumsum(-1)
        mask = torch.exp(total[..., :, None] - total[..., None, :] + self.future)
        y = torch.matmul(torch.matmul(c, b.transpose(-1, -2)) * mask, xdt)
        if chunk < length:
            left = torch.exp(total[..., -1:] - total)
            state = torch.matmul((b * left[..., None]).transpose(-1, -2), xdt)
            whole = torch.exp(total[..., -1])[..., None, None]
            carry, before = torch.zeros_like(state[:, 0]), []
            for k in range(length // chunk):
                before.append(carry)
                carry = whole[:, k] * carry + state[:, k]
            y = y + torch.exp(total)[..., None] * torch.matmul(c, torch.stack(before, 1))
        y = y.transpose(2, 3).flatten(1, 2) + self.D[:, None] * x
        return self.out_proj(y.flatten(2))

    def forward(self, x):
        a, gate = self.glu(F.gelu(self.mixer(self.norm(x)))).chunk(2, -1)
        return x + a * torch.sigmoid(gate)


def fft_conv(u, kernel, way):  # u (B, T, C), kernel (T, C), real
    length = u.shape[1]
    if way["fft"] == "strided":
        spectrum = torch.fft.rfft(u, 2 * length, dim=1) * torch.fft.rfft(kernel, 2 * length, dim=0)
        return torch.fft.irfft(spectrum, 2 * length, dim=1)[:, :length]
    u, kernel = u.transpose(1, 2).contiguous(), kernel.transpose(0, 1).contiguous()
    y = torch.fft.irfft(torch.fft.rfft(u, 2 * length) * torch.fft.rfft(kernel, 2 * length), 2 * length)
    return y[..., :length].transpose(1, 2)


class S4(nn.Module):
    def __init__(self, shape, way):
        super().__init__()
        n, width, length = shape.state, shape.width, shape.length
        self.way = way
        self.lambda_re = nn.Parameter(-0.5 * torch.ones(n, width))
        self.lambda_im = nn.Parameter(torch.linspace(-n, n, n)[:, None].repeat(1, width))
        self.P, self.B, self.C = (nn.Parameter(torch.randn(n, width, 2) / math.sqrt(2)) for _ in range(3))
        self.D = nn.Parameter(torch.ones(1, width))
        self.log_step = nn.Parameter(torch.full((1, width), math.log(0.01)))
        self.register_buffer("z", torch.exp(-2j * math.pi * torch.arange(length) / length).to(torch.complex64))

    def sums(self, pairs):
        """sum over n of conj(v) w / (g(z) - lambda), without the pole at z = -1: (L, D) for each pair."""
        lam = torch.complex(self.lambda_re.clamp(max=-1e-4), self.lambda_im)
        if self.way["cauchy"] == "sums":
            z = self.z[:, None, None]
            weight = 1 / ((2 / torch.exp(self.log_step)) * (1 - z) - lam * (1 + z))  # (L, N, D)
            return [torch.einsum("lnd,nd->ld", weight, v.conj() * w) for v, w in pairs]
        z = self.z[:, None]
        g = (2 / torch.exp(self.log_step)).reshape(-1, 1, 1) * (1 - z)
        weight = 1 / (g - lam.transpose(0, 1)[:, None] * (1 + z))  # (D, L, N)
        right = torch.stack([(v.conj() * w).transpose(0, 1) for v, w in pairs], -1)  # (D, N, 4)
        return [x.transpose(0, 1) for x in torch.bmm(weight, right).unbind(-1)]

    def kernel(self):
        p, b, c = (torch.view_as_complex(x) for x in (self.P, self.B, self.C))
        cb, cp, pb, pp = self.sums([(c, b), (c, p), (p, b), (p, p)])
        one = (1 + self.z)[:, None]
        f = 2 * (cb - one * cp * pb / (1 + one * pp))
        return torch.fft.ifft(f, dim=0).real

    def forward(self, u):
        return fft_conv(u.float(), self.kernel(), self.way) + self.D * u  # no transforms of bfloat16


class Diagonal(nn.Module):
    """h_t = lambda h_(t-1) + B u_t, y = Re(C h) + D u: LRU and (half the states) S5."""

    def __init__(self, shape, way, kind):
        super().__init__()
        width = shape.width
        n = shape.state if kind == "lru" else shape.state // 2
        self.kind, self.way = kind, way
        if kind == "lru":
            self.nu_log, self.theta_log, self.gamma_log = (nn.Parameter(-2 * torch.ones(n)) for _ in range(3))
        else:
            self.lambda_re = nn.Parameter(-0.5 * torch.ones(n))
            self.lambda_im = nn.Parameter(torch.linspace(-n, 0, n))
            self.log_step = nn.Parameter(torch.full((n, 1), math.log(0.01)))
        self.B = nn.Parameter(torch.randn(2, n, width) / math.sqrt(width))
        self.C = nn.Parameter(torch.randn(2, width, n) / math.sqrt(n))
        self.D = nn.Parameter(torch.ones(width))

    def system(self):
        b = torch.complex(self.B[0], self.B[1])
        if self.kind == "lru":
            return torch.complex(-torch.exp(self.nu_log), torch.exp(self.theta_log)), torch.exp(self.gamma_log)[:, None] * b
        lam = torch.complex(self.lambda_re, self.lambda_im)
        z = lam * torch.exp(self.log_step[:, 0])
        return z, ((torch.exp(z) - 1) / lam)[:, None] * b

    def by_chunks(self, h, log_lambda, size=32):  # products within chunks, the last state from one to the next
        step = torch.arange(size, device=h.device)
        lower = torch.tril(torch.ones(size, size, device=h.device))
        inside = torch.exp(log_lambda[:, None, None] * (step[:, None] - step).clamp(min=0)) * lower  # (N, L, L)
        shape = h.shape
        x = h.permute(2, 1, 0).unflatten(1, (-1, size)).transpose(1, 2).flatten(2)  # (N, L, T / L x B)
        local = torch.bmm(inside, x).unflatten(2, (-1, shape[0]))  # (N, L, T / L, B)
        decay = torch.exp(log_lambda * size)[:, None]
        carry, before = torch.zeros_like(local[:, -1, 0]), []
        for k in range(local.shape[2]):
            before.append(carry)
            carry = decay * carry + local[:, -1, k]
        since = torch.exp(log_lambda[:, None] * (step + 1))[:, :, None, None]
        h = local + since * torch.stack(before, 1)[:, None]
        return h.transpose(1, 2).flatten(1, 2).permute(2, 1, 0)

    def forward(self, u):
        log_lambda, b = self.system()
        length = u.shape[1]
        h = torch.complex((u @ b.real.T).float(), (u @ b.imag.T).float())  # there is no complex bfloat16
        if self.way["scan"] == "chunks":
            h = self.by_chunks(h, log_lambda)
        elif self.way["scan"] == "fft":
            power = torch.exp(torch.arange(length, device=u.device)[:, None] * log_lambda)
            h = torch.fft.ifft(
                torch.fft.fft(h, 2 * length, dim=1) * torch.fft.fft(power, 2 * length, dim=0), dim=1
            )[:, :length]
        else:
            step = 1
            while step < length:
                h = h + F.pad(torch.exp(step * log_lambda) * h[:, :-step], (0, 0, step, 0))
                step *= 2
        y = h.real @ self.C[0].T - h.imag @ self.C[1].T
        return (y if self.kind == "lru" else 2 * y) + self.D * u


class StateSpaceBlock(nn.Module):
    """Batch norm behind, full GLU."""

    def __init__(self, shape, kind, way):
        super().__init__()
        width = shape.width
        self.ssm = S4(shape, way) if kind == "s4" else Diagonal(shape, way, kind)
        self.out = nn.Linear(width, 2 * width)  # out1 and out2 in one product
        self.norm = nn.BatchNorm1d(width)

    def forward(self, x):
        g = F.gelu(self.ssm(x), approximate="tanh") if hasattr(torch, "compile") else F.gelu(self.ssm(x))
        a, gate = self.out(g).chunk(2, -1)
        y = x + a * torch.sigmoid(gate)
        return self.norm(y.flatten(0, 1)).view_as(y)


class StateSpaceModel(nn.Module):
    def __init__(self, shape, kind, way):
        super().__init__()
        self.word = nn.Embedding(shape.vocabulary, shape.width)
        self.bias = nn.Parameter(torch.zeros(shape.width)) if kind != "mamba2" else None
        make = (lambda: Mamba2(shape, way)) if kind == "mamba2" else (lambda: StateSpaceBlock(shape, kind, way))
        self.block = nn.ModuleList(make() for _ in range(shape.layers))
        self.decoder = nn.Linear(shape.width, shape.classes)

    def forward(self, token, where):
        x = self.word(token)
        if self.bias is not None:  # the dense encoder on one-hot tokens
            x = x + self.bias
        for block in self.block:
            x = block(x)
        if where is not None:
            x = x.flatten(0, 1)[where]
        return self.decoder(x)


class TransformerBlock(nn.Module):
    """One LayerNorm, used twice."""

    def __init__(self, shape, kind, way):
        super().__init__()
        self.attention = Attention(shape, kind, way)
        self.norm = nn.LayerNorm(shape.width)
        mlp = (nn.Linear(shape.width, shape.mlp), nn.GELU(), nn.Linear(shape.mlp, shape.width)) if shape.mlp else ()
        self.mlp = nn.Sequential(*mlp) if mlp else None

    def forward(self, x):
        r = self.attention(self.norm(x)) + x
        return self.norm(r) if self.mlp is None else self.mlp(self.norm(r)) + r


class Model(nn.Module):
    def __init__(self, shape, kind, way):
        super().__init__()
        self.word = nn.Embedding(shape.vocabulary, shape.width)
        self.position = nn.Embedding(shape.length, shape.width) if kind != "norm" else None
        self.block = nn.ModuleList(TransformerBlock(shape, kind, way) for _ in range(shape.layers))
        self.norm = nn.LayerNorm(shape.width)
        self.decoder = nn.Linear(shape.width, shape.classes, bias=False)

    def forward(self, token, where):
        x = self.word(token)
        if self.position is not None:
            x = x + self.position.weight
        for block in self.block:
            x = block(x)
        if where is not None:
            x = x.flatten(0, 1)[where]
        return self.decoder(self.norm(x))


def make_batch(shape, seed):
    """Uniform tokens, labels and places: the arithmetic does not depend on them."""
    generator = torch.Generator().manual_seed(seed)
    token = torch.randint(0, shape.vocabulary, (shape.batch, shape.length), generator=generator)
    label = torch.full((shape.batch, shape.length), -100)
    for row in range(shape.batch):
        place = torch.randperm(shape.length, generator=generator)[: shape.labels]
        label[row, place] = torch.randint(0, shape.classes, (shape.labels,), generator=generator)
    return token, label


def optimiser(model):
    for extra in ({"fused": True}, {"foreach": True}, {}):
        try:
            o = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1, **extra)
            o.zero_grad()
            return o
        except (TypeError, RuntimeError):
            continue
    raise SystemExit("torch_step.py: this PyTorch has no usable AdamW")


ATTENTION = ("softmax", "linear", "norm")
DEVICE, BF16 = "cpu", False


def now():
    if DEVICE != "cpu":
        torch.cuda.synchronize()
    return CLOCK()


def time_steps(shape, kind, way, steps, everywhere, warm_up=2):
    torch.manual_seed(1)
    model = (Model if kind in ATTENTION else StateSpaceModel)(shape, kind, way).to(DEVICE)
    opt = optimiser(model)
    forward = torch.compile(model) if way["compile"] else model
    times, loss = [], None
    for k in range(-warm_up, steps):
        token, label = make_batch(shape, k + warm_up)
        token, flat = token.to(DEVICE), label.flatten().to(DEVICE)
        where = None if everywhere else (flat != -100).nonzero()[:, 0]
        start = now()
        with torch.autocast(DEVICE, torch.bfloat16, enabled=BF16):
            logits = forward(token, where)
            target = flat if everywhere else flat[where]
            loss = F.cross_entropy(logits.reshape(-1, logits.shape[-1]), target, ignore_index=-100)
        opt.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        if k >= 0:
            times.append(now() - start)
    return times, float(loss.detach()), sum(p.numel() for p in model.parameters())


def ways(kind, shape, compiled):
    fused = hasattr(F, "scaled_dot_product_attention")
    narrow = shape.state < shape.width and VERSION >= (2, 1)  # keys of a head narrower than values
    softmax = ["masked"] + (["fused"] if fused else []) + (["padded"] if fused and narrow else [])
    chunks = [shape.length] + [c for c in (64, 128) if c < shape.length]
    choice = {
        "softmax": softmax if kind == "softmax" else ["masked"],
        "chunk": chunks if kind in ("linear", "norm", "mamba2") else [shape.length],
        "conv": ["conv1d", "shifted"] if kind in ("norm", "mamba2") else ["conv1d"],
        "scan": ["fft", "doubling", "chunks"] if kind in ("lru", "s5") else ["fft"],
        "fft": ["strided", "contiguous"] if kind == "s4" else ["strided"],
        "cauchy": ["sums", "products"] if kind == "s4" else ["sums"],
        "compile": [False, True] if compiled else [False],
    }
    return [dict(zip(choice, v)) for v in itertools.product(*choice.values())]


def fastest(shape, kind, everywhere, compiled):
    candidates = ways(kind, shape, compiled)
    if len(candidates) == 1:
        return candidates[0]
    if DEVICE == "cpu" and shape.batch * shape.length * shape.width * shape.layers > LONG:
        shape = shape._replace(batch=max(shape.batch // 4, 1))

    def cost(way):
        try:
            return min(time_steps(shape, kind, way, 2, everywhere, warm_up=1)[0])
        except Exception as e:  # what torch.compile cannot do here, or memory
            print(f"torch_step.py: {way}: {type(e).__name__}", file=sys.stderr)
            return math.inf

    return min(candidates, key=cost)


def sgemm_gflops(n=1024, runs=7):
    a, b = torch.rand(n, n), torch.rand(n, n)
    best = math.inf
    for _ in range(runs):
        start = CLOCK()
        torch.mm(a, b)
        best = min(best, CLOCK() - start)
    return 2 * n**3 / best * 1e-9


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="small")
    parser.add_argument("--model", choices=ATTENTION + ("mamba2", "s4", "s5", "lru"), default="softmax")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--all-positions", action="store_true")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu: for a busy machine, one thread")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--bf16", action="store_true", help="autocast, and TF32 for what stays in float32")
    parser.add_argument("--compile", action="store_true", help="try torch.compile too")
    parser.add_argument("--batch", type=int, help="instead of the shape's")
    parser.add_argument("--price", type=float, help="of the machine, per hour")
    parser.add_argument("--watts", type=float)
    a = parser.parse_args()
    global CLOCK, DEVICE, BF16
    DEVICE, BF16 = a.device, a.bf16
    if a.bf16:
        torch.backends.cuda.matmul.allow_tf32 = True
    if a.clock == "cpu":
        CLOCK = time.process_time
    torch.set_num_threads(a.threads)
    shape = SHAPES[a.shape]
    if a.batch:
        shape = shape._replace(batch=a.batch)
    compiled = a.compile and hasattr(torch, "compile") and any(map(shutil.which, ("g++", "c++", "clang++")))
    way = fastest(shape, a.model, a.all_positions, compiled)
    times, loss, parameters = time_steps(shape, a.model, way, a.steps, a.all_positions)
    median = statistics.median(times)
    print("torch", torch.__version__)
    print("way", " ".join(f"{k}={v}" for k, v in way.items()))
    print("parameters", parameters)
    print("last_loss", round(loss, 4))
    print(f"step_ms_median {1e3 * median:.3f}")
    print(f"step_ms_min {1e3 * min(times):.3f}")
    print(f"step_ms_max {1e3 * max(times):.3f}")
    print(f"steps_per_second {1 / median:.4f}")
    print(f"sgemm_1024_gflops {sgemm_gflops():.2f}")
    if a.price:
        print(f"cost_per_million_steps {a.price / 3600 * median * 1e6:.4g}")
    if a.watts:
        print(f"joules_per_step {a.watts * median:.4g}")


if __name__ == "__main__":
    main()
