#!/usr/bin/env python3
"""Time of training steps of the same models in PyTorch, as a careful user writes them.

    torch_step.py --shape small|mqar --model softmax|linear|norm|mamba2|s4|s5|lru [--steps N] [--threads N]
                  [--all-positions] [--clock wall|cpu] [--device cpu|cuda] [--bf16]

Forward, backward, clipping and AdamW; dropout off; the output layer at the labelled positions only, unless
--all-positions.  Where PyTorch has several ways (fused or masked softmax, chunked or quadratic sums, convolution
by F.conv1d or by shifted products, recurrences by FFT or by doubling), each is timed on two steps and the fastest one
is used.
Prints one "name value" a line.
"""
import argparse
import itertools
import math
import statistics
import time

import torch
from torch import nn
from torch.nn import functional as F

SHAPES = {  # batch, length, width, layers, vocabulary, pairs
    "small": (64, 64, 64, 2, 256, 4),
    "mqar": (64, 512, 128, 2, 8192, 64),
}

CLOCK = time.perf_counter


class Attention(nn.Module):
    def __init__(self, width, length, kind, way):
        super().__init__()
        self.kind, self.way, self.width = kind, way, width
        self.extra = 1 if kind == "norm" else 0
        self.project = nn.Linear(width, 3 * width + self.extra)
        self.out = nn.Linear(width, width)
        self.register_buffer("lower", torch.ones(length, length).tril())
        self.register_buffer("mask", torch.full((length, length), -10000.0).triu(1))
        if kind == "norm":
            self.conv = nn.Conv1d(3 * width, 3 * width, 4, groups=3 * width, padding=3)
            self.offset = nn.Parameter(torch.tensor([4.0]))

    def convolve(self, x):  # (B, T, C): causal, depthwise, four taps
        length = x.shape[1]
        if self.way["conv"] == "conv1d":
            return self.conv(x.transpose(1, 2))[..., :length].transpose(1, 2)
        padded = F.pad(x, (0, 0, 3, 0))
        weight = self.conv.weight[:, 0]
        y = self.conv.bias + padded[:, :length] * weight[:, 0]
        for tap in range(1, 4):
            y = y + padded[:, tap : tap + length] * weight[:, tap]
        return y

    def softmax(self, q, k, v):
        if self.way["softmax"] == "fused":
            return F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None], is_causal=True)[:, 0]
        score = torch.baddbmm(self.mask, q, k.transpose(1, 2), alpha=1 / math.sqrt(self.width))
        return torch.bmm(score.softmax(-1), v)

    def causal_sum(self, q, k, v):  # sum over j <= i of (q_i . k_j) v_j
        batch, length, width = q.shape
        chunk = self.way["chunk"]
        if chunk >= length:
            return torch.bmm(torch.bmm(q, k.transpose(1, 2)) * self.lower, v)
        q, k, v = (x.reshape(batch, length // chunk, chunk, x.shape[-1]) for x in (q, k, v))
        state = torch.matmul(k.transpose(2, 3), v)
        before = F.pad(state.cumsum(1)[:, :-1], (0, 0, 0, 0, 1, 0))
        local = torch.matmul(q, k.transpose(2, 3)) * self.lower[:chunk, :chunk]
        return (torch.matmul(local, v) + torch.matmul(q, before)).reshape(batch, length, -1)

    def forward(self, u):
        x = self.project(u)
        if self.kind == "norm":
            qkv, n = x[..., : 3 * self.width], x[..., 3 * self.width :]
            v, q, k = F.silu(self.convolve(qkv)).chunk(3, -1)
            q, k = F.elu(q) + 1, (F.elu(k) + 1) / math.sqrt(self.width)
            y = torch.exp(-F.softplus(n + self.offset)) * self.causal_sum(q, k, v)
        elif self.kind == "linear":
            q, k, v = x.chunk(3, -1)
            q, k = F.elu(q) + 1, F.elu(k) + 1
            y = self.causal_sum(q, k, v) / (q * k.cumsum(1)).sum(-1, keepdim=True)
        else:
            q, k, v = x.chunk(3, -1)
            y = self.softmax(q, k, v)
        return self.out(y)


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
    """One head, state as wide as the model; state-space duality in chunks."""

    def __init__(self, width, length, way):
        super().__init__()
        self.way, self.width = way, width
        self.norm = nn.LayerNorm(width)
        self.in_proj = nn.Linear(width, 3 * width + 1, bias=False)
        self.conv = nn.Conv1d(3 * width, 3 * width, 4, groups=3 * width, padding=3)
        self.dt_bias, self.A_log, self.D = (nn.Parameter(torch.zeros(1)) for _ in range(3))
        self.out_proj = nn.Linear(width, width, bias=False)
        self.glu = nn.Linear(width, 2 * width)
        chunk = way["chunk"]
        self.register_buffer("future", torch.full((chunk, chunk), -math.inf).triu(1))

    def mixer(self, u):
        batch, length, width = u.shape
        chunk = self.way["chunk"]
        z = self.in_proj(u)
        dt = F.softplus(z[..., -1] + self.dt_bias)
        x, b, c = F.silu(causal_conv(self.conv, z[..., :-1], self.way)).chunk(3, -1)
        decay = (-torch.exp(self.A_log) * dt).reshape(batch, length // chunk, chunk)
        xdt, b4, c4 = (y.reshape(batch, length // chunk, chunk, width) for y in (x * dt[..., None], b, c))
        total = decay.cumsum(-1)
        mask = torch.exp(total[..., :, None] - total[..., None, :] + self.future)
        y = torch.matmul(torch.matmul(c4, b4.transpose(2, 3)) * mask, xdt)
        if chunk < length:
            left = torch.exp(total[..., -1:] - total)
            state = torch.matmul((b4 * left[..., None]).transpose(2, 3), xdt)
            whole = torch.exp(total[..., -1])[..., None, None]
            carry, before = torch.zeros_like(state[:, 0]), []
            for k in range(length // chunk):
                before.append(carry)
                carry = whole[:, k] * carry + state[:, k]
            y = y + torch.exp(total)[..., None] * torch.matmul(c4, torch.stack(before, 1))
        return self.out_proj(y.reshape(batch, length, width) + self.D * x)

    def forward(self, x):
        a, gate = self.glu(F.gelu(self.mixer(self.norm(x)))).chunk(2, -1)
        return x + a * torch.sigmoid(gate)


def fft_conv(u, kernel):  # u (B, T, C), kernel (T, C), real
    length = u.shape[1]
    spectrum = torch.fft.rfft(u, 2 * length, dim=1) * torch.fft.rfft(kernel, 2 * length, dim=0)
    return torch.fft.irfft(spectrum, 2 * length, dim=1)[:, :length]


class S4(nn.Module):
    def __init__(self, width, length, way):
        super().__init__()
        n = width
        self.length = length
        self.lambda_re = nn.Parameter(-0.5 * torch.ones(n, width))
        self.lambda_im = nn.Parameter(torch.linspace(-n, n, n)[:, None].repeat(1, width))
        self.P, self.B, self.C = (nn.Parameter(torch.randn(n, width, 2) / math.sqrt(2)) for _ in range(3))
        self.D = nn.Parameter(torch.ones(1, width))
        self.log_step = nn.Parameter(torch.full((1, width), math.log(0.01)))
        self.register_buffer("z", torch.exp(-2j * math.pi * torch.arange(length) / length).to(torch.complex64))

    def kernel(self):
        lam = torch.complex(self.lambda_re.clamp(max=-1e-4), self.lambda_im)
        p, b, c = (torch.view_as_complex(x) for x in (self.P, self.B, self.C))
        z = self.z[:, None, None]
        weight = 1 / ((2 / torch.exp(self.log_step)) * (1 - z) - lam * (1 + z))  # (L, N, D), without the pole

        def total(v, w):
            return torch.einsum("lnd,nd->ld", weight, v.conj() * w)

        one = (1 + self.z)[:, None]
        f = 2 * (total(c, b) - one * total(c, p) * total(p, b) / (1 + one * total(p, p)))
        return torch.fft.ifft(f, dim=0).real

    def forward(self, u):
        return fft_conv(u, self.kernel()) + self.D * u


class Diagonal(nn.Module):
    """h_t = lambda h_(t-1) + B u_t, y = Re(C h) + D u: LRU and (half the states) S5."""

    def __init__(self, width, length, way, kind):
        super().__init__()
        n = width if kind == "lru" else width // 2
        self.kind, self.way, self.length = kind, way, length
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

    def forward(self, u):
        log_lambda, b = self.system()
        length = u.shape[1]
        h = torch.complex(u @ b.real.T, u @ b.imag.T)
        if self.way["scan"] == "fft":
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

    def __init__(self, width, length, kind, way):
        super().__init__()
        self.ssm = S4(width, length, way) if kind == "s4" else Diagonal(width, length, way, kind)
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
        _, length, width, layers, vocabulary, _ = shape
        self.word = nn.Embedding(vocabulary, width)
        self.bias = nn.Parameter(torch.zeros(width)) if kind != "mamba2" else None
        make = (lambda: Mamba2(width, length, way)) if kind == "mamba2" else (
            lambda: StateSpaceBlock(width, length, kind, way))
        self.block = nn.ModuleList(make() for _ in range(layers))
        self.decoder = nn.Linear(width, vocabulary)

    def forward(self, token, where):
        x = self.word(token)
        if self.bias is not None:  # the dense encoder on one-hot tokens
            x = x + self.bias
        for block in self.block:
            x = block(x)
        if where is not None:
            x = x.flatten(0, 1)[where]
        return self.decoder(x)


class Model(nn.Module):
    def __init__(self, shape, kind, way):
        super().__init__()
        _, length, width, layers, vocabulary, _ = shape
        self.word = nn.Embedding(vocabulary, width)
        self.position = nn.Embedding(length, width) if kind != "norm" else None
        self.attention = nn.ModuleList(Attention(width, length, kind, way) for _ in range(layers))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(layers))  # shared: used twice in a block
        self.norm = nn.LayerNorm(width)
        self.decoder = nn.Linear(width, vocabulary, bias=False)

    def forward(self, token, where):
        x = self.word(token)
        if self.position is not None:
            x = x + self.position.weight
        for attention, norm in zip(self.attention, self.norms):
            x = norm(attention(norm(x)) + x)
        x = self.norm(x)
        if where is not None:
            x = x.flatten(0, 1)[where]
        return self.decoder(x)


def make_batch(shape, seed):
    """Uniform keys, values and places: the arithmetic does not depend on them."""
    batch, length, _, _, vocabulary, pairs = shape
    generator = torch.Generator().manual_seed(seed)
    token = torch.randint(0, vocabulary, (batch, length), generator=generator)
    label = torch.full((batch, length), -100)
    slots = (length - 2 * pairs) // 2
    for row in range(batch):
        place = 2 * pairs + 2 * torch.randperm(slots, generator=generator)[:pairs]
        label[row, place] = torch.randint(vocabulary // 2, vocabulary, (pairs,), generator=generator)
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
    times, loss = [], None
    for k in range(-warm_up, steps):
        token, label = make_batch(shape, k + warm_up)
        token, flat = token.to(DEVICE), label.flatten().to(DEVICE)
        where = None if everywhere else (flat != -100).nonzero()[:, 0]
        start = now()
        with torch.autocast(DEVICE, torch.bfloat16, enabled=BF16):
            logits = model(token, where)
            target = flat if everywhere else flat[where]
            loss = F.cross_entropy(logits.reshape(-1, logits.shape[-1]), target, ignore_index=-100)
        opt.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        if k >= 0:
            times.append(now() - start)
    return times, float(loss.detach()), sum(p.numel() for p in model.parameters())


def ways(kind, length):
    softmax = ["masked"] + (["fused"] if hasattr(F, "scaled_dot_product_attention") else [])
    choice = {
        "softmax": softmax if kind == "softmax" else ["masked"],
        "chunk": [length] + [c for c in (64, 128) if c < length] if kind in ("linear", "norm", "mamba2") else [length],
        "conv": ["conv1d", "shifted"] if kind in ("norm", "mamba2") else ["conv1d"],
        "scan": ["fft", "doubling"] if kind in ("lru", "s5") else ["fft"],
    }
    return [dict(zip(choice, v)) for v in itertools.product(*choice.values())]


def fastest(shape, kind, everywhere):
    candidates = ways(kind, shape[1])
    if len(candidates) == 1:
        return candidates[0]
    return min(candidates, key=lambda way: min(time_steps(shape, kind, way, 2, everywhere, warm_up=1)[0]))


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
    a = parser.parse_args()
    global CLOCK, DEVICE, BF16
    DEVICE, BF16 = a.device, a.bf16
    if a.bf16:
        torch.backends.cuda.matmul.allow_tf32 = True
    if a.clock == "cpu":
        CLOCK = time.process_time
    torch.set_num_threads(a.threads)
    shape = SHAPES[a.shape]
    way = fastest(shape, a.model, a.all_positions)
    times, loss, parameters = time_steps(shape, a.model, way, a.steps, a.all_positions)
    print("torch", torch.__version__)
    print("way", " ".join(f"{k}={v}" for k, v in way.items()))
    print("parameters", parameters)
    print("last_loss", round(loss, 4))
    print(f"step_ms_median {1e3 * statistics.median(times):.3f}")
    print(f"step_ms_min {1e3 * min(times):.3f}")
    print(f"step_ms_max {1e3 * max(times):.3f}")
    print(f"sgemm_1024_gflops {sgemm_gflops():.2f}")


if __name__ == "__main__":
    main()
